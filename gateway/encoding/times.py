"""Times as clients read them: numbers of an epoch unit, or RFC 3339 text. Arrays in, lists out.

Source: influxd 1.x services/httpd convertToEpoch (truncates towards zero, unknown units are ns),
Go's RFC3339Nano.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

import numpy as np

if TYPE_CHECKING:
    from tinyflux.batch import Int64s

SECOND_NS: Final = 1_000_000_000
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
    dates = times.view("datetime64[ns]")
    if not (times % SECOND_NS).any():
        texts = np.datetime_as_string(dates, "s")
    else:
        texts = np.strings.rstrip(np.strings.rstrip(np.datetime_as_string(dates, "ns"), "0"), ".")
    suffixed: list[str] = np.strings.add(texts, suffix).tolist()
    return suffixed


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
