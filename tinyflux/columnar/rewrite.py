"""Rewrites: which rows go and which points come, worked out before anything is changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyflux.columnar import deletion
from tinyflux.columnar.evaluate import prepare
from tinyflux.columnar.intake import join
from tinyflux.columnar.packing import pack
from tinyflux.columnar.scan import filter_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinyflux.batch import Bools, Int64s, PointBatch
    from tinyflux.columnar.base import Frame, Replacement, ScanRequest
    from tinyflux.columnar.deletion import Deletion
    from tinyflux.columnar.series import SeriesIndex
    from tinyflux.columnar.snapshot import Snapshot


class Rewrite(NamedTuple):
    """What a rewrite does.

    Attributes:
        n_out: How many points are taken out.
        deletion: The rows to delete: those taken out, and those that share series and time with
            one.
        batch: The points to store: those that were to stay, and the new ones.
        is_complete: Whether this is all of it; False at the bound of ranges.
    """

    n_out: int
    deletion: Deletion
    batch: PointBatch
    is_complete: bool = True


def plan_rewrite(
    snapshot: Snapshot,
    index: SeriesIndex,
    requests: Sequence[ScanRequest],
    change: Callable[[Frame], Replacement | None],
    most_ranges: int = 0,
) -> Rewrite:
    """Return what a rewrite does; `ColumnarStorage.rewrite` explains the arguments.

    Args:
        snapshot: What is stored.
        index: Its series.
        requests: Which points are looked at. Fields that they do not name are lost to points that
            share series and time with one that is taken out.
        change: What becomes of them.
        most_ranges: Stop at about so many ranges to delete; 0 does not.
    """
    n_out = n_ranges = 0
    deletions: list[Deletion] = []
    batches: list[PointBatch] = []
    for request in requests:
        prepared = prepare(request.query)
        for frame in snapshot.scan_prepared(request, prepared, keep=False):
            if 0 < most_ranges <= n_ranges:
                batch = join(batches)
                return Rewrite(n_out, deletion.concat(deletions), batch, is_complete=False)
            matching = prepared.keep(frame)
            rows = np.arange(len(frame)) if matching is None else np.flatnonzero(matching)
            if not len(rows):
                continue
            asked = frame if len(rows) == len(frame) else filter_rows(frame, _mask(frame, rows))
            answer = change(asked)
            if answer is None:
                continue
            out = _mask(frame, rows[answer.out])
            gone = _with_twins(frame, out)
            n_out += int(out.sum())
            deletions.append(deletion.from_rows(frame, gone))
            n_ranges += len(deletions[-1])
            staying = gone & ~out
            if staying.any():
                batches.append(_to_batch(filter_rows(frame, staying), index))
            if answer.batch is not None:
                batches.append(answer.batch)
    return Rewrite(n_out, deletion.concat(deletions), join(batches))


def _mask(frame: Frame, rows: Int64s) -> Bools:
    mask = np.zeros(len(frame), np.bool_)
    mask[rows] = True
    return mask


def _with_twins(frame: Frame, rows: Bools) -> Bools:
    """Return the rows together with all that have the series and time of one of them."""
    if not len(frame):
        return rows
    distinct = np.ones(len(frame), np.bool_)
    distinct[1:] = frame.times[1:] != frame.times[:-1]
    distinct[frame.offsets[:-1]] = True
    group = np.cumsum(distinct) - 1
    chosen = np.zeros(int(group[-1]) + 1, np.bool_)
    chosen[group[rows]] = True
    twins: Bools = chosen[group]
    return twins


def _to_batch(frame: Frame, index: SeriesIndex) -> PointBatch:
    """Return the rows of a frame as a batch."""
    keys = index.keys(frame.series.ids.tolist())
    return pack(keys, frame.series_rows(), frame.times, frame.columns.items())
