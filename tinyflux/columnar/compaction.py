"""Compaction: which segments become one. Fewer, larger ones make reads cheaper, files smaller.

The segments of one measurement and shard stand in a row, oldest first; only neighbours merge, so
"newer wins" stays true. A run of the newest ones merges when it is long enough and none of them is
much larger than all newer ones together: a row is then rewritten O(log n) times, and a shard has
O(log n) segments. Segments of `MAX_ROWS` are left alone, which also bounds the memory of a step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tinyflux.columnar.footer import SegmentInfo


class Choose(Protocol):
    """Says which segments should become one."""

    def __call__(
        self, segments: Iterable[SegmentInfo], *, max_rows: int = ...
    ) -> list[SegmentInfo]:
        """Return segments of one measurement and shard that stand side by side; [] for none."""


MAX_ROWS: Final = 2_000_000
MIN_SEGMENTS: Final = 4
_MAX_RATIO: Final = 2


def choose(
    segments: Iterable[SegmentInfo],
    *,
    max_rows: int = MAX_ROWS,
    min_segments: int = MIN_SEGMENTS,
) -> list[SegmentInfo]:
    """Return segments that should become one, oldest first; [] when there is nothing to do.

    All are of one measurement and shard, and no other segment of these stands between them.

    Args:
        segments: All segments of a store.
        max_rows: The most rows a merged segment may have.
        min_segments: The fewest segments worth a merge.
    """
    rows_of: dict[tuple[str, int], list[SegmentInfo]] = {}
    for info in segments:
        rows_of.setdefault((info.measurement, info.shard_ns), []).append(info)
    best: list[SegmentInfo] = []
    for found in rows_of.values():
        if len(found) > max(len(best), min_segments - 1):
            found.sort(key=lambda info: info.order)
            newest = _newest_alike(found, max_rows)
            if len(newest) >= min_segments and len(newest) > len(best):
                best = newest
    return best


def choose_all(segments: Iterable[SegmentInfo], *, max_rows: int = MAX_ROWS) -> list[SegmentInfo]:
    """Return neighbours that can become one, oldest first, however much work that is; [] for none.

    Called again and again, with the results in their place, it leaves as few segments as there can
    be of at most `max_rows` (each alone may have more).
    """
    rows_of: dict[tuple[str, int], list[SegmentInfo]] = {}
    for info in segments:
        rows_of.setdefault((info.measurement, info.shard_ns), []).append(info)
    for found in rows_of.values():
        chosen: list[SegmentInfo] = []
        for info in sorted(found, key=lambda info: info.order):
            if sum(one.rows for one in chosen) + info.rows > max_rows:
                if len(chosen) > 1:
                    break
                chosen = []
            chosen.append(info)
        if len(chosen) > 1:
            return chosen
    return []


def _newest_alike(segments: Sequence[SegmentInfo], max_rows: int) -> list[SegmentInfo]:
    """Return the most of the newest segments of which none dwarfs those after it."""
    total, start = 0, len(segments)
    while start and (not total or segments[start - 1].rows <= _MAX_RATIO * total):
        total += segments[start - 1].rows
        if total > max_rows:
            break
        start -= 1
    return list(segments[start:])
