"""The answer of a query over one measurement, before it is cut into the series of a result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gateway.results import Column, Series
from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn, Frame, SeriesSet, TagColumn

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.rows import Col
    from tinyflux.batch import Bools, Int64s


def _is_all(rows: Bools) -> bool:
    return int(np.count_nonzero(rows)) == len(rows)  # a tenth of the time of all() on few rows


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Rows by group.

    Attributes:
        name: The measurement.
        dimensions: The GROUP BY tags.
        groups: The values of the dimensions, one tuple a group, in the order of the query.
        rows: int64[n], the position in `groups` of each row, ascending.
        times: int64[n] ns.
        columns: Names and values after time, n rows each.
        descending: Times descend within a group.
    """

    name: str
    dimensions: tuple[str, ...]
    groups: Sequence[tuple[str, ...]]
    rows: Int64s
    times: Int64s
    columns: list[tuple[str, Col]]
    descending: bool = False

    def slices(self) -> Iterator[tuple[int, slice]]:
        """Yield each group that has rows, with where they are."""
        rows, n = self.rows, len(self.rows)
        if not n:
            return
        if rows[0] == rows[-1]:
            yield int(rows[0]), slice(0, n)
            return
        starts = [0, *(np.flatnonzero(rows[1:] != rows[:-1]) + 1).tolist(), n]
        groups = rows[starts[:-1]].tolist()
        yield from zip(groups, map(slice, starts[:-1], starts[1:]), strict=True)

    def limit(self, limit: int, offset: int, slimit: int, soffset: int) -> Answer:
        """Return the answer with at most so many rows a group and so many groups; 0 is no limit."""
        if not (limit or offset or slimit or soffset):
            return self
        rows, n = self.rows, len(self.rows)
        starts = np.concatenate(([0], np.flatnonzero(rows[1:] != rows[:-1]) + 1))
        lengths = np.append(starts[1:], n) - starts
        places = np.arange(n) - starts.repeat(lengths)
        keep = places >= offset
        if limit:
            keep &= places < offset + limit
        if slimit or soffset:
            # Series are counted in ascending order, also when they are printed descending.
            numbers = np.arange(len(starts))[:: -1 if self.descending else 1]
            is_wanted = numbers >= soffset
            if slimit:
                is_wanted &= numbers < soffset + slimit
            keep &= is_wanted.repeat(lengths)
        return self if _is_all(keep) else self.take(keep)

    def take(self, rows: Int64s | Bools) -> Answer:
        """Return the chosen rows; positions are of groups that ascend."""
        columns = [(name, column.take(rows)) for name, column in self.columns]
        return replace(self, rows=self.rows[rows], times=self.times[rows], columns=columns)

    def to_series(self, names: list[str], timezone: str) -> Iterator[Series]:
        """Yield one series a group."""
        full = [column for _, column in self.columns]
        data: list[Column] = [FieldColumn(FieldType.INTEGER, self.times)]
        data += [FieldColumn(c.type, c.values, None if _is_all(c.valid) else c.valid) for c in full]
        keys, groups, name = self.dimensions, self.groups, self.name
        for group, where in self.slices():
            tags = dict(zip(keys, groups[group], strict=True)) if keys else None
            # By position: of many series of few rows this is a third of the time.
            yield Series(name, names, data, tags, True, timezone, False, False, where)

    def to_frame(self) -> Frame:
        """Return the rows as the engine's frame: groups are series, columns are fields."""
        is_sorted = bool(np.all((np.diff(self.times) >= 0) | (np.diff(self.rows) > 0)))
        return self.as_frame() if is_sorted else self._ascending().as_frame()

    def as_frame(self) -> Frame:
        """Return the rows as a frame in which they stay where they are, whatever their times."""
        used, first = np.unique(self.rows, return_index=True)
        columns = {}
        for position, key in enumerate(self.dimensions):
            values = [self.groups[group][position] for group in used.tolist()]
            distinct: dict[str, int] = {}
            codes = [distinct.setdefault(value, len(distinct)) for value in values]
            columns[key] = TagColumn(np.array(codes, np.int32), list(distinct))
        series = SeriesSet(self.name, np.arange(len(used)), columns)
        fields = {name: FieldColumn(c.type, c.values, c.valid) for name, c in self.columns}
        return Frame(series, np.append(first, len(self.rows)), self.times, fields)

    def _ascending(self) -> Answer:
        return replace(self.take(np.lexsort((self.times, self.rows))), descending=False)
