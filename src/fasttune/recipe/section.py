"""The base class of recipe sections, and the helper that declares their fields."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def setting(default: Any, description: str, *, allowed: str, code: str = "E303", **limits: Any) -> Any:
    """Declare a field. In an error for a wrong value, `allowed` follows "expected" and `code` is the error code."""
    return Field(default, description=description, json_schema_extra={"allowed": allowed, "code": code}, **limits)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
