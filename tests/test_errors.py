"""What every error has in common: how it reads, and how it crosses from one process to another."""

import json

import pytest

from fasttune import errors
from fasttune.errors import Problem


def test_without_an_expected_value_the_problem_is_a_sentence() -> None:
    problem = Problem(code="E520", where="runs/x", found="in use by process 12", hint="wait for it")
    assert str(problem) == "E520 runs/x: in use by process 12\n  hint: wait for it"


@pytest.mark.parametrize("kind", [errors.Error, errors.DataError, errors.CheckpointError])
def test_errors_cross_processes(kind: type[errors.Error]) -> None:
    error = kind(Problem(code="E1", where="a", found="b", expected="c"))
    back = errors.from_json(json.loads(json.dumps(errors.as_json(error))))
    assert (type(back), back.problems) == (kind, error.problems)
