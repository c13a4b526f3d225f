"""Looking for times in many sorted ranges of one array at once.

Series mostly have points at regular intervals, so where a time belongs in a range can be guessed
from its ends. A guess is checked, and only where it is wrong the range is bisected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from tinyflux.batch import Bools, Int64s

Side: TypeAlias = Literal["left", "right"]

_ROUNDING: Final = 1e-6  # of a row: what a guess in floats may be off


def search(times: Int64s, low: Int64s, high: Int64s, needle: int | Int64s, side: Side) -> Int64s:
    """Return np.searchsorted(times[low[i]:high[i]], needle, side) + low[i] for every i.

    Args:
        times: int64[n], ascending inside each range.
        low: int64[k], starts of the ranges.
        high: int64[k], ends of the ranges.
        needle: What to look for; one for all, or one for each range.
        side: "left" or "right", as of np.searchsorted.
    """
    if len(low) < 8:  # a call for each costs about 2 us, what follows about 30 in all
        wanted = needle.tolist() if isinstance(needle, np.ndarray) else [needle] * len(low)
        ranges = zip(low.tolist(), high.tolist(), wanted, strict=True)
        return np.array([a + int(times[a:b].searchsorted(n, side)) for a, b, n in ranges], np.int64)
    if not len(times):
        return low.copy()
    needles = np.full(len(low), needle) if isinstance(needle, int) else needle
    found = _guess(times, low, high, needles, side)
    [wrong] = np.logical_not(_fits(times, low, high, needles, found, side)).nonzero()
    if len(wrong):
        found[wrong] = _bisect(times, low[wrong], high[wrong], needles[wrong], side)
    return found


def _guess(times: Int64s, low: Int64s, high: Int64s, needles: Int64s, side: Side) -> Int64s:
    """Return int64[k], places within the ranges: the right ones where times are regular."""
    last = high - 1
    first_ns = times.take(low, mode="clip").astype(np.float64)
    whole_ns = np.maximum(times.take(last, mode="clip") - first_ns, 1)  # of a row or none: anything
    rows = (needles - first_ns) / whole_ns * (last - low)
    rows = np.ceil(rows - _ROUNDING) if side == "left" else np.floor(rows + _ROUNDING) + 1
    places: Int64s = low + np.maximum(np.minimum(rows, high - low), 0).astype(np.int64)
    return places


def _fits(
    times: Int64s, low: Int64s, high: Int64s, needles: Int64s, places: Int64s, side: Side
) -> Bools:
    """Return bool[k]: whether everything before a place is before the needle, the rest not."""
    before, here = times.take(places - 1, mode="clip"), times.take(places, mode="clip")
    if side == "left":
        fits: Bools = (before < needles) | (places == low)
        fits &= (here >= needles) | (places == high)
    else:
        fits = (before <= needles) | (places == low)
        fits &= (here > needles) | (places == high)
    return fits


def _bisect(times: Int64s, low: Int64s, high: Int64s, needles: Int64s, side: Side) -> Int64s:
    for _ in range(int((high - low).max()).bit_length()):
        middle = (low + high) >> 1
        here = times.take(middle, mode="clip")
        before = (here < needles) if side == "left" else (here <= needles)
        before &= low < high  # a range that is settled stays as it is
        low = np.where(before, middle + 1, low)
        high = np.where(before, high, middle)
    return low
