"""What may be read at once, by whoever others wait for: few rows, of what is decoded already.

An event loop that answers a small question itself reads `at_most` so many rows: reading that would
take more raises before it begins, and the question is asked again on a thread. An allowance is for
one thread, and counts what is really read: rows behind a LIMIT that needs no others cost nothing.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_NARROW_COLUMNS: Final = 8  # of a row; one of more columns counts as several


class TooMuch(Exception):
    """The allowance does not reach.

    Attributes:
        is_cold: Something would have to be decoded; the next time it may not.
    """

    def __init__(self, *, is_cold: bool) -> None:
        super().__init__("more than may be read at once")
        self.is_cold = is_cold


class _Allowance(threading.local):
    """What this thread may still read; None is everything."""

    n_rows: int | None = None


_allowance: Final = _Allowance()


@contextmanager
def at_most(n_rows: int) -> Iterator[None]:
    """Have reading on this thread raise TooMuch beyond so many rows, or to decode anything."""
    _allowance.n_rows = n_rows
    try:
        yield
    finally:
        _allowance.n_rows = None


def spend(n_rows: int, n_columns: int = 1) -> None:
    """Count rows that are read now.

    Raises:
        TooMuch: They are more than this thread may still read.
    """
    left = _allowance.n_rows
    if left is not None:
        left -= n_rows * max(1, n_columns // _NARROW_COLUMNS)
        if left < 0:
            raise TooMuch(is_cold=False)
        _allowance.n_rows = left


def wait() -> None:
    """Go on with what takes long whatever the rows are, as reading a file does.

    Raises:
        TooMuch: This thread may not wait.
    """
    if _allowance.n_rows is not None:
        raise TooMuch(is_cold=True)
