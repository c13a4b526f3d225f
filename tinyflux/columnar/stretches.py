"""Stretches of time: a request cut so that the rows of each fit into memory, and all are in order.

An answer that goes out in order of time over many series cannot be read series by series. Instead
of merging all series at once, it is read a stretch after the other, each with the rows of all
series.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tinyflux.batch import Int64s
    from tinyflux.columnar.scan import Source

_SLACK: Final = 1.5  # a stretch with so many times more rows than wanted is not cut again
_MOST_PIECES: Final = 1024  # of one cut; what is too big still is cut again


def stretches(
    sources: Sequence[Source],
    ids: Int64s,
    bounds: tuple[int, int],
    max_rows: int,
    *,
    descending: bool = False,
) -> Iterator[tuple[Sequence[Source], Int64s, int, int]]:
    """Yield stretches of time that together hold all rows of a closed interval.

    Args:
        sources: Where the rows are.
        ids: The series, ascending.
        bounds: First and last time of the interval.
        max_rows: About how many rows a stretch may have. One of a single nanosecond has what there
            is.
        descending: Whether the newest comes first.

    Yields:
        The sources that have rows there, the ids, the first and the last time of the stretch.
    """
    waiting = [bounds]
    while waiting:
        first_ns, last_ns = waiting.pop()
        live = [s for s in sources if s.first_ns <= last_ns and s.last_ns >= first_ns]
        if not live:
            continue
        first_ns = max(first_ns, min(source.first_ns for source in live))
        last_ns = min(last_ns, max(source.last_ns for source in live))
        n_rows = sum(source.count(ids, first_ns, last_ns) for source in live)
        if not n_rows:
            continue
        if n_rows <= max_rows * _SLACK or first_ns == last_ns:
            yield live, ids, first_ns, last_ns
            continue
        pieces = _cut(first_ns, last_ns, min(-(-n_rows // max_rows), _MOST_PIECES))
        waiting += pieces if descending else reversed(pieces)


def _cut(first_ns: int, last_ns: int, n_pieces: int) -> list[tuple[int, int]]:
    """Return about n equally long pieces of a closed interval, ascending; at least two."""
    length = max(1, (last_ns - first_ns + 1) // n_pieces)
    starts = range(first_ns, last_ns + 1, length)
    return [(start, min(start + length - 1, last_ns)) for start in starts]
