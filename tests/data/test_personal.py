"""E-mail addresses and telephone numbers are found; dates, prices and counts are not taken for them."""

import pytest

from fasttune.data.personal import rows_with


@pytest.mark.parametrize("text", ["write to ann.b+c@example.co.uk!", "Post: ann@example.org.", "an_n@mail.example.com"])
def test_addresses(text: str) -> None:
    assert rows_with([text])["e-mail addresses"] == [0]


@pytest.mark.parametrize(
    "text",
    ["call +49 30 1234567", "(555) 123-4567", "555-123-4567 now", "030/1234 5678", "手机 13812345678", "+442079460958"],
)
def test_numbers(text: str) -> None:
    assert rows_with([text])["telephone numbers"] == [0]


@pytest.mark.parametrize(
    "text",
    [
        "on 2024-01-15 at 12:30",
        "born 01-01-1990, delivered 05-12-2024 late",
        "15.01.2024",
        "paid $1,234,567.89 for 20 000 pieces",
        "a @ b, me@home",
        "room 101-102, 5 of 10",
        "version 1.10.2-3",
        "the ratio 0.123456789",
    ],
)
def test_nothing(text: str) -> None:
    assert rows_with([text]) == {"e-mail addresses": [], "telephone numbers": []}


def test_a_long_word_takes_no_longer_than_its_length() -> None:
    """Once quadratic: 400,000 letters took minutes."""
    assert rows_with(["a" * 400_000 + " @", "a" * 400_000 + "@b", "1" * 400_000]) == {
        "e-mail addresses": [],
        "telephone numbers": [],
    }
