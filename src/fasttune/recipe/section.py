"""What every section of a recipe is made of."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def setting(default: Any, description: str, *, allowed: str, code: str = "E303", **limits: Any) -> Any:
    """A field. `allowed` finishes the sentence "expected ..." in an error; `code` is that error's."""
    return Field(default, description=description, json_schema_extra={"allowed": allowed, "code": code}, **limits)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
