"""Time windows and the functions over them: arrays in, arrays out, no storage, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tinyflux.batch import Int64s


@dataclass(frozen=True, slots=True)
class Windows:
    """A grid of half-open time windows `[start, start + every)` counted from 1970-01-01T00:00:00Z.

    Windows have consecutive numbers; number 0 starts at `offset_ns` modulo `every_ns`.

    Attributes:
        every_ns: Length of a window, > 0.
        offset_ns: Shift of the grid; any integer.
    """

    every_ns: int
    offset_ns: int = 0

    def number(self, times: Int64s) -> Int64s:
        """Return int64[n]: the number of the window that each time (ns) lies in."""
        raise NotImplementedError

    def start(self, numbers: Int64s) -> Int64s:
        """Return int64[n]: the first ns of each window."""
        raise NotImplementedError
