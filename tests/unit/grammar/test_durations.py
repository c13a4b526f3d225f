from __future__ import annotations

import pytest

from grammar.durations import (
    format_calendar_duration,
    format_duration,
    longest_ns,
    parse_calendar_duration,
    parse_duration,
)


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
    "text", ["", "1", "1x", "1us", "1mo", "1y", "1h30", "1.5s", "h", "1 h", "9" * 5000 + "s"]
)
def test_other_texts_are_invalid(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid duration$"):
        parse_duration(text)


def test_duration_beyond_int64_is_refused() -> None:
    with pytest.raises(ValueError, match="overflowed duration 999999999999w: choose a smaller"):
        parse_duration("999999999999w")


@pytest.mark.parametrize(
    ("text", "months", "ns"),
    [
        ("1mo", 1, 0),
        ("1y", 12, 0),
        ("-1y3mo", -15, 0),
        ("3mo5d", 3, 432_000_000_000_000),
        ("-1mo1h", -1, -3_600_000_000_000),
        ("1m", 0, 60_000_000_000),
        ("292y", 3504, 0),
    ],
)
def test_calendar_duration_reads_as_months_and_nanoseconds(text: str, months: int, ns: int) -> None:
    assert parse_calendar_duration(text) == (months, ns)


@pytest.mark.parametrize("text", ["0mo", "1moo", "1Y", "1 mo", "mo", "1y0mo", "9" * 5000 + "y"])
def test_other_texts_are_invalid_calendar_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid duration$"):
        parse_calendar_duration(text)


def test_calendar_duration_beyond_the_times_there_are_is_refused() -> None:
    with pytest.raises(ValueError, match="overflowed duration 293y: choose a smaller"):
        parse_calendar_duration("293y")


@pytest.mark.parametrize(
    ("months", "ns", "text"),
    [(12, 0, "1y"), (15, 0, "15mo"), (-1, 0, "-1mo"), (-24, -86_400_000_000_000, "-2y1d")],
)
def test_calendar_duration_prints_in_its_largest_unit(months: int, ns: int, text: str) -> None:
    assert format_calendar_duration(months, ns) == text
    assert parse_calendar_duration(text) == (months, ns)


def test_longest_months() -> None:
    assert [longest_ns(months) // 86_400_000_000_000 for months in (1, 2, 12, 13)] == [
        31,
        62,
        366,
        397,
    ]


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
