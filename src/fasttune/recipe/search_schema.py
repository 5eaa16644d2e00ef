"""The recipe's section `search`: which settings to vary, within which ranges, for how many trials."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, Strict, model_validator
from pydantic_core import PydanticCustomError

from fasttune.recipe.section import Section, setting
from fasttune.recipe.types import Count, Duration, Number, Text, to_list


class Range(Section):
    """Numbers from `low` to `high`; with `log`, each order of magnitude is as likely as the next."""

    low: Annotated[Number, Field(allow_inf_nan=False)]
    high: Annotated[Number, Field(allow_inf_nan=False)]
    log: Annotated[bool, Strict()] = False

    @model_validator(mode="after")
    def _check(self) -> Range:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise PydanticCustomError("range", "not a range")
        return self


Choices = Annotated[list[Any], BeforeValidator(to_list), Field(min_length=1)]


class Search(Section):
    num_trials: Count = setting(
        20,
        "The number of runs that `fasttune search` makes, each with other settings.",
        allowed="a whole number above 0",
    )
    max_time: Duration | None = setting(
        None,
        "Start no trial after this time; the time of an interrupted search counts.",
        allowed="a duration such as 90s, 20m or 1h30m, or null (no limit)",
    )
    ranges: Annotated[dict[Text, Range | Choices], Field(min_length=1)] | None = setting(
        None,
        "The settings to vary: a field of `training` or `preprocessing` and its range, or the values to choose from. "
        "If unset, the learning rate, the layer decay, the number of epochs and the batch size, around the values of "
        "`training.preset`.",
        allowed="a table such as {training.learning_rate: {low: 1e-5, high: 1e-3, log: true}, training.batch_size: "
        "[8, 16]}, or null (the usual settings)",
    )
