from __future__ import annotations

import pytest

from grammar.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0s", 0),
        ("5ns", 5),
        ("1u", 1_000),
        ("1µ", 1_000),
        ("1ms", 1_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1w", 604_800_000_000_000),
        ("-2m", -120_000_000_000),
        ("9223372036854775807ns", 2**63 - 1),
    ],
)
def test_duration_reads_as_nanoseconds(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text", ["", "1", "1x", "1us", "1mo", "1h30", "1.5s", "h", "1 h", "9" * 5000 + "s"]
)
def test_other_texts_are_invalid(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid duration$"):
        parse_duration(text)


def test_duration_beyond_int64_is_refused() -> None:
    with pytest.raises(ValueError, match="overflowed duration 999999999999w: choose a smaller"):
        parse_duration("999999999999w")


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (5_400_000_000_000, "90m"),
        (604_800_000_000_000, "1w"),
        (864_000_000_000_000, "10d"),
        (1_500_000_000, "1500ms"),
        (1_000, "1u"),
        (1_001, "1001ns"),
        (-3_600_000_000_000, "-1h"),
    ],
)
def test_duration_prints_in_its_largest_unit(ns: int, text: str) -> None:
    assert format_duration(ns) == text
