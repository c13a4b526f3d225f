"""Durations: `1h30m` <-> int nanoseconds."""

from __future__ import annotations

import re

# Largest first. `us` and `mo` are not InfluxQL 1.x; `µ` is read but never printed.
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
_PART = re.compile(r"([0-9]+)(ns|ms|[uµsmhdw])")
_WHOLE = re.compile(rf"-?(?:{_PART.pattern})+")
_MAX = 2**63 - 1


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration such as `1h30m`.

    Raises:
        ValueError: It is not a duration or does not fit int64; the text is influxd's.
    """
    if not _WHOLE.fullmatch(text):
        raise ValueError("invalid duration")
    total = 0
    for digits, unit in _PART.findall(text):
        count = int(digits) if len(digits) <= 19 else _MAX + 1
        if count > _MAX:
            raise ValueError("invalid duration")
        total += count * _UNITS["u" if unit == "µ" else unit]
    if total > _MAX:
        raise ValueError(f"overflowed duration {text}: choose a smaller duration or INF")
    return -total if text.startswith("-") else total


def format_duration(ns: int) -> str:
    """Return a duration in the largest unit that divides it, as InfluxQL prints it: `90m`, `0s`."""
    if ns == 0:
        return "0s"
    for unit, size in _UNITS.items():
        if ns % size == 0:
            return f"{ns // size}{unit}"
    raise AssertionError("every int is a number of nanoseconds")
