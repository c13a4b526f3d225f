"""Runs and series to write segments from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tinyflux.columnar.base import SeriesSet, TagColumn
from tinyflux.columnar.scan import Run

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinyflux.columnar.base import FieldColumn


def run_of(rows: Mapping[int, Sequence[int]], columns: Mapping[str, FieldColumn]) -> Run:
    """Return a run; rows maps series ids to times, both ascending."""
    lengths = [len(times) for times in rows.values()]
    return Run(
        np.array(list(rows), np.int64),
        np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        np.array([time for times in rows.values() for time in times], np.int64),
        columns,
    )


def series_of(
    ids: Sequence[int], tags: Mapping[str, Sequence[str | None]], lacking: str = "-"
) -> SeriesSet:
    """Return series; a value equal to `lacking` is a tag that is not there."""
    columns = {}
    for key, values in tags.items():
        distinct = list(dict.fromkeys(value for value in values if value != lacking))
        codes = [-1 if value == lacking else distinct.index(value) for value in values]
        columns[key] = TagColumn(np.array(codes, np.int32), distinct)
    return SeriesSet("m", np.array(ids, np.int64), columns)
