"""Durations: `1h30m` <-> int nanoseconds, `1y3mo` <-> months and nanoseconds."""

from __future__ import annotations

import re

# Largest first. `us` is not InfluxQL 1.x; `µ` is read but never printed.
_UNITS = {
    "w": 604_800_000_000_000,
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
    "u": 1_000,
    "ns": 1,
}
_MONTHS = {
    "y": 12,
    "mo": 1,
}  # not InfluxQL 1.x: their length depends on where they are counted from
_PART = re.compile(r"([0-9]+)(ns|ms|mo|[uµsmhdwy])")
_WHOLE = re.compile(rf"-?(?:{_PART.pattern})+")
_MAX = 2**63 - 1
_MAX_MONTHS = 292 * 12  # as long as int64 nanoseconds reach
_DAY = _UNITS["d"]


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration such as `1h30m`.

    Raises:
        ValueError: It is not a duration or does not fit int64; the text is influxd's.
    """
    months, ns = parse_calendar_duration(text)
    if months:
        raise ValueError("invalid duration")
    return ns


def parse_calendar_duration(text: str) -> tuple[int, int]:
    """Return the months and the nanoseconds of a duration such as `1h30m`, `1y` or `3mo5d`.

    Raises:
        ValueError: It is not a duration, or too long; the text is influxd's.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError("invalid duration")
    months = ns = 0
    for digits, unit in _PART.findall(text):
        count = int(digits) if len(digits) <= 19 else _MAX + 1
        if count > _MAX or (unit in _MONTHS and not count):
            raise ValueError("invalid duration")
        if unit in _MONTHS:
            months += count * _MONTHS[unit]
        else:
            ns += count * _UNITS["u" if unit == "µ" else unit]
    if ns > _MAX or months > _MAX_MONTHS:
        raise ValueError(f"overflowed duration {text}: choose a smaller duration or INF")
    return (-months, -ns) if text.startswith("-") else (months, ns)


def longest_ns(months: int) -> int:
    """Return the most nanoseconds that so many months from one midnight to another may take."""
    years, rest = divmod(months, 12)
    return (366 * years + 31 * rest) * _DAY


def format_calendar_duration(months: int, ns: int) -> str:
    """Return months and nanoseconds of the same sign in the largest units: `1y`, `-3mo5d`."""
    unit = "y" if months % 12 == 0 else "mo"
    text = f"{months // _MONTHS[unit]}{unit}"
    return text + format_duration(abs(ns)) if ns else text


def format_duration(ns: int) -> str:
    """Return a duration in the largest unit that divides it, as InfluxQL prints it: `90m`, `0s`."""
    if ns == 0:
        return "0s"
    for unit, size in _UNITS.items():
        if ns % size == 0:
            return f"{ns // size}{unit}"
    raise AssertionError("every int is a number of nanoseconds")
