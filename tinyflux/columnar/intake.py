"""Intake: a batch is checked against the field types and translated to the numbers of the store.

Per point only array look-ups happen here. What costs a Python step happens once per distinct series
key of the batch, and once per distinct pair of measurement and field layout, which is remembered as
a `Shape`.

Field types are checked as InfluxDB does, for the whole store instead of per shard: the first type
wins. A store that does not overwrite follows the TinyFlux API, where numbers are numbers: an int
may join a float field, and a float turns an int field into a float field.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from tinyflux.batch import FieldType, PointBatch, parse_series_key
from tinyflux.columnar.base import Rejection
from tinyflux.columnar.memtable import Block, Shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyflux.batch import FieldLayout, Int64s
    from tinyflux.columnar.series import MeasurementIndex, SeriesIndex

# Up to this many pairs of measurement and layout, a table of them beats sorting the rows.
_PAIR_TABLE_SIZE: Final = 1 << 16
_NUMBERS: Final = frozenset({FieldType.FLOAT, FieldType.INTEGER})


class Accepted(NamedTuple):
    """What of a batch is to be stored.

    Attributes:
        batch: The accepted points.
        block: The same points, with the numbers of the store.
        rejected: What was refused, and why.
    """

    batch: PointBatch
    block: Block
    rejected: tuple[Rejection, ...]


class Intake:
    """Takes batches into a store. Belongs to its one writer.

    Attributes:
        shapes: All shapes so far; only appended to. Blocks refer to them by position.
    """

    def __init__(self, index: SeriesIndex, *, overwrite: bool) -> None:
        self.shapes: list[Shape] = []
        self._index = index
        self._promotes = not overwrite
        self._known: dict[Shape, int] = {}

    def take(self, batch: PointBatch) -> Accepted:
        """Return the points of a batch whose field types agree. New series and fields are in the
        index afterwards.
        """
        key_ids = self._index.lookup(batch.keys)
        key_measurements = self._measurements(batch, key_ids)
        pairs, numbers = _pairs(batch, key_measurements)
        shape_of_pair = np.full(len(numbers), -1, np.int32)
        reasons: Counter[str] = Counter()
        for pair in _in_order_of_first(pairs, len(numbers)):
            measurement, layout_row = divmod(int(numbers[pair]), len(batch.layouts))
            shape = self._shape(measurement, batch.layouts[layout_row])
            if isinstance(shape, int):
                shape_of_pair[pair] = shape
            else:
                reasons[shape] += int((pairs == pair).sum())
        shapes = shape_of_pair[pairs]
        if reasons:
            accepted = shapes >= 0
            batch, shapes = batch.take(accepted), shapes[accepted]
        ids = self._ids(batch, key_ids)
        block = Block(ids, _own(batch.times), shapes, _own(batch.values), batch.strings)
        rejected = tuple(Rejection(points, reason) for reason, points in reasons.items())
        return Accepted(batch, block, rejected)

    def _measurements(self, batch: PointBatch, key_ids: Sequence[int]) -> Int64s:
        """Return int64[k], the measurement number of each key."""
        ids = np.array(key_ids, np.int64)
        numbers = self._index.numbers(ids).astype(np.int64)
        for row in np.flatnonzero(ids < 0).tolist():
            name, _ = parse_series_key(batch.keys[row])
            numbers[row] = self._index.open_measurement(name).number
        return numbers

    def _ids(self, batch: PointBatch, key_ids: list[int]) -> np.ndarray:
        """Return int32[n], the series id of each point. Series that have no point in the batch are
        not made.
        """
        ids = np.array(key_ids, np.int32)
        unknown = np.flatnonzero(ids < 0)
        if len(unknown):
            used = np.zeros(len(ids), np.bool_)
            used[batch.key_rows] = True
            for row in unknown[used[unknown]].tolist():
                ids[row] = self._index.add(batch.keys[row])
        return ids[batch.key_rows]

    def _shape(self, measurement: int, layout: FieldLayout) -> int | str:
        """Return the number of a shape, or why its points cannot be stored."""
        shape = Shape(measurement, layout)
        known = self._known.get(shape)
        if known is not None:
            return known
        index = self._index.measurement(measurement)
        reason = self._learn(index, layout)
        if reason is not None:
            return reason
        self._known[shape] = len(self.shapes)
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def _learn(self, index: MeasurementIndex, layout: FieldLayout) -> str | None:
        """Add the fields of a layout to a measurement; return why not when a type disagrees (then
        nothing is added).
        """
        fields = dict(index.fields)
        for name, kind in layout:
            old = fields.get(name, FieldType.NONE)
            if old is kind or kind is FieldType.NONE:
                fields.setdefault(name, kind)
            elif old is FieldType.NONE:
                fields[name] = kind
            elif self._promotes and {old, kind} == _NUMBERS:
                fields[name] = FieldType.FLOAT
            else:
                return conflict(index.name, name, kind, old)
        if fields != index.fields:
            self._index.set_fields(index.number, fields)
        return None

    def forget(self, measurement: int) -> None:
        """Forget what was learnt about a measurement that is gone."""
        for shape in [shape for shape in self._known if shape.measurement == measurement]:
            del self._known[shape]


def conflict(measurement: str, field: str, kind: FieldType, old: FieldType) -> str:
    """Return the reason for refusing a value of another type than its field has.

    Source: influxdb 1.8 tsdb/shard.go, ErrFieldTypeConflict.
    """
    return (
        f'field type conflict: input field "{field}" on measurement "{measurement}" is type '
        f"{kind.name.lower()}, already exists as type {old.name.lower()}"
    )


def _pairs(batch: PointBatch, key_measurements: Int64s) -> tuple[Int64s, Int64s]:
    """Number the pairs of measurement and layout.

    Returns:
        pairs: int64[n], the pair of each point.
        numbers: int64[p], of each pair: measurement number times the number of layouts plus layout
            row. Small: at most one entry a point, or _PAIR_TABLE_SIZE.
    """
    n_layouts = len(batch.layouts)
    distinct, local = np.unique(key_measurements, return_inverse=True)
    pairs = batch.layout_rows.astype(np.int64)
    if len(distinct) > 1:
        pairs += local[batch.key_rows] * n_layouts
    n_pairs = len(distinct) * n_layouts
    if n_pairs > max(_PAIR_TABLE_SIZE, len(pairs)):
        used, pairs = np.unique(pairs, return_inverse=True)
    else:
        used = np.arange(n_pairs)
    return pairs, distinct[used // n_layouts] * n_layouts + used % n_layouts


def _in_order_of_first(pairs: Int64s, size: int) -> list[int]:
    """Return the distinct pairs (all below size) in order of their first point."""
    first = np.full(size, -1, np.int64)
    # Written backwards, so that the first point is what remains.
    first[pairs[::-1]] = np.arange(len(pairs) - 1, -1, -1)
    found = np.flatnonzero(first >= 0)
    return list(found[np.argsort(first[found])].tolist())


def _own(array: Int64s) -> Int64s:
    """Return the array itself when it owns its memory, else a copy: a view would keep the whole
    request alive.
    """
    return array if array.flags.owndata else array.copy()
