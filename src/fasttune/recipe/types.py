"""The types of recipe values, and the conversions to them.

YAML readers disagree about `2e-5` and `no`, so numbers may be given as text, and False as a strategy means `no`. A
boolean is never a number, and nothing is rounded.
"""

from __future__ import annotations

import numbers
import os
import re
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, Strict
from pydantic_core import PydanticCustomError

NUMBER = re.compile(r"[-+]?([0-9]+(_[0-9]+)*\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.?inf|\.?nan", re.IGNORECASE)
LONGEST_NUMBER = 64  # characters; Python refuses to parse integers of thousands of digits
LARGEST_SEED = 2**32 - 1  # the largest that numpy accepts

TASK_NAMES = ["text-classification", "question-answering", "token-classification"]  # as in fasttune.tasks.TASKS
Metric = Literal[
    "accuracy",
    "f1",
    "f1_macro",
    "f1_micro",
    "f1_weighted",
    "precision_macro",
    "recall_macro",
    "matthews_correlation",
    "quadratic_kappa",
    "pearson",
    "spearman",
    "rmse",
    "mae",
    "exact_match",
    "precision",
    "recall",
]
METRICS: tuple[str, ...] = get_args(Metric)
LESS_IS_BETTER = ("loss", "rmse", "mae")
Header = Literal["auto"] | Annotated[bool, Strict()]


def _to_number(value: object) -> object:
    """Convert numbers, and numbers that YAML 1.1 readers return as text (`2e-5`). Booleans are refused."""
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER and NUMBER.fullmatch(value.strip()):
        text = value.strip()
        return float(text.lstrip(".") if text.lower() in (".inf", ".nan") else text)
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return float("inf")  # out of range for the field, whose own error applies
    raise PydanticCustomError("number_form", "not a number")


def to_whole(value: object) -> object:
    """Convert counts as `_to_number` does: 1e3 is 1000, and 8.5 is refused instead of rounded."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]{1,18}", value.strip()):
        return int(value)  # a float would round long numbers
    number = _to_number(value)
    if isinstance(number, float) and number.is_integer():
        return int(number)
    raise PydanticCustomError("not_whole", "not a whole number")


def _to_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def to_list(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _to_values(value: object) -> object:
    """Values of cells, which are text: -1 is "-1". A single value is a list of one."""
    values = value if isinstance(value, list | tuple) else [value]
    return [str(item) if type(item) in (int, float) else item for item in values]


def _to_name_table(value: object) -> object:
    """Python users may write integer labels as keys; in the data and in recipes they are text."""
    if isinstance(value, dict):
        return {str(key) if type(key) is int else key: name for key, name in value.items()}
    return value


def _to_strategy(value: object) -> object:
    """A YAML 1.1 reader returns False for `eval_strategy: no`."""
    return "no" if value is False else value


def _to_report_to(value: object) -> object:
    if value is False or value == "no":
        return "none"
    return [value] if value == "tensorboard" else to_list(value)  # the bare name, as in transformers


def _check_task(value: str) -> str:
    if value not in TASK_NAMES:
        raise PydanticCustomError("range", "no such task")
    return value


def check_steps(value: int) -> int:
    if value != -1 and value < 1:
        raise PydanticCustomError("range", "out of range")
    return value


def check_warmup(value: float) -> float:
    if not (0 <= value < 1 or (value >= 1 and value.is_integer())):
        raise PydanticCustomError("range", "out of range")
    return value


DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")  # 1h30m


def seconds_of(duration: str) -> int:
    """The seconds in a duration such as `90s`, `20m` or `1h30m`; 0 if it is not one."""
    match = DURATION.fullmatch(duration)
    hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0, 0, 0)
    return 3600 * hours + 60 * minutes + seconds


def _check_duration(value: str) -> str:
    if not seconds_of(value):
        raise PydanticCustomError("range", "not a duration")
    return value


def check_encoding(value: str) -> str:
    """Accept encodings that Python knows and that encode text, unlike the codecs rot13 and base64."""
    try:
        "text".encode(value)
    except (LookupError, UnicodeError, ValueError):
        raise PydanticCustomError("range", "no such encoding") from None
    return value


def _check_different(value: list[Any]) -> list[Any]:
    if len(set(value)) != len(value):
        raise PydanticCustomError("range", "values repeat")
    return value


TaskName = Annotated[str, Strict(), AfterValidator(_check_task)]
Number = Annotated[float, BeforeValidator(_to_number)]
Whole = Annotated[int, BeforeValidator(to_whole)]
Count = Annotated[Whole, Field(gt=0)]
Seed = Annotated[Whole, Field(ge=0, le=LARGEST_SEED)]
Seeds = Annotated[list[Seed], BeforeValidator(to_list), Field(min_length=2), AfterValidator(_check_different)]
Text = Annotated[str, BeforeValidator(_to_text), Strict(), Field(min_length=1)]
Duration = Annotated[Text, AfterValidator(_check_duration)]
Texts = Annotated[list[Text], BeforeValidator(to_list), Field(min_length=1)]
Values = Annotated[list[Text], BeforeValidator(_to_values), Field(min_length=1)]
Strategy = Annotated[Literal["no", "steps", "epoch"], BeforeValidator(_to_strategy)]
NameList = Annotated[list[Text], BeforeValidator(to_list), Field(min_length=2), AfterValidator(_check_different)]
WeightTable = Annotated[
    dict[Text, Annotated[Number, Field(gt=0, allow_inf_nan=False)]],
    BeforeValidator(_to_name_table),
    Field(min_length=1),
]
NameTable = Annotated[dict[Text, Text], BeforeValidator(_to_name_table), Field(min_length=2)]
Metrics = Annotated[list[Metric], BeforeValidator(to_list), Field(min_length=1)]
ReportTo = Annotated[
    Annotated[list[Literal["tensorboard"]], Field(min_length=1, max_length=1)] | Literal["auto", "none"],
    BeforeValidator(_to_report_to),
]
