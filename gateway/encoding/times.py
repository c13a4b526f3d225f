"""Times as clients read them: numbers of an epoch unit, or RFC 3339 text. Arrays in, lists out.

Source: influxd 1.x services/httpd convertToEpoch (truncates towards zero, unknown units are ns),
Go's RFC3339Nano.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tinyflux.batch import Int64s

SECOND_NS: Final = 1_000_000_000
_DAY_S: Final = 86_400
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()
_THREE_DIGITS: Final = np.array([f"{number:03}" for number in range(1000)], "S3")
_SMALL: Final = 100  # below this many texts a loop is faster than two dozen numpy calls
EPOCH_UNITS: Final = {  # influxd takes every other word, also "us", as ns
    "ns": 1,
    "u": 1_000,
    "ms": 1_000_000,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
}


def epoch_unit(epoch: str) -> int:
    """Return the ns of an `epoch` parameter: 0 for "" (meaning RFC 3339), 1 for unknown words."""
    return EPOCH_UNITS.get(epoch, 1) if epoch else 0


def to_epoch(times: Int64s, unit_ns: int) -> Int64s:
    """Return int64[n]: the times (ns) in whole units, truncated towards zero."""
    if unit_ns == 1:
        return times
    units: Int64s = times // unit_ns
    units += (times < 0) & (units * unit_ns != times)
    return units


def to_rfc3339(times: Int64s, zone: str = "") -> list[str]:
    """Return each time (int64[n], ns) as RFC 3339 text with only as many decimals as it needs.

    Args:
        times: The times.
        zone: An IANA zone; "" is UTC.
    """
    if zone in {"", "UTC"}:
        return _texts(times, "Z")
    offsets = _offsets(times, ZoneInfo(zone))
    texts = np.empty(len(times), object)
    for offset in np.unique(offsets).tolist():
        rows = offsets == offset
        texts[rows] = _texts(times[rows] + offset * SECOND_NS, _suffix(offset))
    texts_list: list[str] = texts.tolist()
    return texts_list


def _texts(times: Int64s, suffix: str) -> list[str]:
    """Return the texts of local times; `suffix` names their offset from UTC."""
    if len(times) < _SMALL:
        return [_text(time, suffix) for time in times.tolist()]
    seconds, fractions = np.divmod(times, SECOND_NS)
    days, seconds = np.divmod(seconds, _DAY_S)
    dates, rows = np.unique(days, return_inverse=True)
    texts = np.empty(
        len(times),
        [
            ("date", "S11"),
            ("clock", "S8"),
            ("dot", "S1"),
            ("digits", "S3", 3),
            ("end", f"S{len(suffix) + 1}"),
        ],
    )
    texts["date"] = np.array([f"{_date(day)}T" for day in dates.tolist()], "S")[rows]
    texts["clock"] = _clocks()[seconds]
    texts["dot"] = b"."
    for place, size in enumerate((10**6, 10**3, 1)):
        texts["digits"][:, place] = _THREE_DIGITS[fractions // size % 1000]
    texts["end"] = suffix.encode() + b"\n"
    matrix = texts.view(np.uint8).reshape(len(times), -1)
    used = np.ones(matrix.shape, np.bool_)
    digits = matrix[:, 20:29] != ord("0")
    used[:, 20:29] = np.logical_or.accumulate(digits[:, ::-1], axis=1)[:, ::-1]
    used[:, 19] = used[:, 20]
    return matrix[used].tobytes().decode("ascii").split("\n")[:-1]


def _text(time: int, suffix: str) -> str:
    seconds, fraction = divmod(time, SECOND_NS)
    day, second = divmod(seconds, _DAY_S)
    digits = f".{fraction:09}".rstrip("0") if fraction else ""
    return f"{_date(day)}T{_clock(second)}{digits}{suffix}"


@lru_cache(4096)
def _date(day: int) -> str:
    return date.fromordinal(_EPOCH_DAY + day).isoformat()


def _clock(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


@cache
def _clocks() -> NDArray[np.bytes_]:
    """Return S8[86400], the text of each second of a day."""
    return np.array([_clock(second) for second in range(_DAY_S)], "S8")


def _offsets(times: Int64s, zone: ZoneInfo) -> Int64s:
    """Return int64[n], the zone's offset from UTC in seconds; it changes on quarters of an hour."""
    quarters, rows = np.unique(times // (900 * SECOND_NS), return_inverse=True)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    offsets = []
    for quarter in quarters.tolist():
        offset = (epoch + timedelta(seconds=900 * quarter)).astimezone(zone).utcoffset()
        offsets.append(int(offset.total_seconds()) if offset is not None else 0)
    return np.array(offsets, np.int64)[rows]


def _suffix(offset_s: int) -> str:
    if offset_s == 0:
        return "Z"
    minutes = abs(offset_s) // 60
    return f"{'-' if offset_s < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}"
