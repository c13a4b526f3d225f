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
from tinyflux.errors import FieldTypeConflict, LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tinyflux.batch import FieldLayout, Int32s, Int64s
    from tinyflux.columnar.limits import SeriesLimits
    from tinyflux.columnar.series import SeriesIndex

# Up to so many pairs of measurement and layout, a table of them beats sorting the points.
_MIN_PAIR_TABLE: Final = 1 << 10
_PAIRS_PER_POINT: Final = 8
# Every field is a column of each read of `*`: a client that makes up names must not fill memory.
MAX_FIELDS: Final = 16_384
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
        self._known: dict[tuple[int, FieldLayout], int] = {}  # as in a Shape

    def take(
        self, batch: PointBatch, *, strict: bool = False, limits: SeriesLimits | None = None
    ) -> Accepted:
        """Return the points of a batch whose field types agree.

        New series and fields are in the index afterwards.

        Args:
            batch: The points.
            strict: Take all points or none.
            limits: What new series have to keep to.

        Raises:
            FieldTypeConflict: Strict, and a point was refused; the index is as it was.
            LimitExceeded: The same, because of a limit.
        """
        key_ids = self._index.lookup(batch.keys)
        over: tuple[Rejection, ...] = ()
        if limits is not None and -1 in key_ids:
            batch, over = limits.admit(batch, key_ids, self._index)
            if strict and over:
                raise LimitExceeded(over[0].reason)
        pairs, numbers = _pairs(batch, self._measurements(batch, key_ids))
        shape_of_pair, reasons = self._shapes(batch, pairs, numbers, strict=strict)
        shapes = shape_of_pair[pairs]
        if reasons:
            accepted = shapes >= 0
            batch, shapes = batch.take(accepted), shapes[accepted]
        ids = self._ids(batch, key_ids)
        block = Block(ids, _own(batch.times), shapes, _own(batch.values), batch.strings)
        conflicts = tuple(Rejection(points, reason) for reason, points in reasons.items())
        return Accepted(batch, block, (*over, *conflicts))

    def check(self, batch: PointBatch, limits: SeriesLimits | None = None) -> None:
        """Raise what a strict `take` would; nothing is learnt.

        Raises:
            FieldTypeConflict: A point would be refused.
            LimitExceeded: The same, because of a limit.
        """
        key_ids = self._index.lookup(batch.keys)
        if limits is not None and (over := limits.admit(batch, key_ids, self._index)[1]):
            raise LimitExceeded(over[0].reason)
        pairs, numbers = _pairs(batch, self._measurements(batch, key_ids))
        self._shapes(batch, pairs, numbers, strict=True, learns=False)

    def _measurements(self, batch: PointBatch, key_ids: Sequence[int]) -> Int64s:
        """Return int64[k], the measurement number of each key."""
        ids = np.array(key_ids, np.int64)
        numbers = self._index.numbers(ids).astype(np.int64)
        for row in np.flatnonzero(ids < 0).tolist() if -1 in key_ids else ():
            name, _ = parse_series_key(batch.keys[row])
            numbers[row] = self._index.open_measurement(name).number
        return numbers

    def _ids(self, batch: PointBatch, key_ids: list[int]) -> Int32s:
        """Return int32[n], the series id of each point. Only series that have a point are made."""
        ids = np.array(key_ids, np.int32)
        if -1 in key_ids:
            unknown = np.flatnonzero(ids < 0)
            used = np.zeros(len(ids), np.bool_)
            used[batch.key_rows] = True
            for row in unknown[used[unknown]].tolist():
                ids[row] = self._index.add(batch.keys[row])
        return ids[batch.key_rows]

    def _shapes(
        self,
        batch: PointBatch,
        pairs: Int64s,
        numbers: Int64s,
        *,
        strict: bool,
        learns: bool = True,
    ) -> tuple[Int32s, Counter[str]]:
        """Return the shape of each pair (int32[p], -1 when refused) and the reasons with points."""
        shape_of_pair = np.full(len(numbers), -1, np.int32)
        reasons: Counter[str] = Counter()
        if self._are_known(batch, pairs, numbers, shape_of_pair):
            return shape_of_pair, reasons
        fields: dict[int, Mapping[str, FieldType]] = {}  # the types that measurements get
        new: dict[tuple[int, FieldLayout], int] = {}
        for pair in _in_order_of_first(pairs, len(numbers)):
            number, layout_row = divmod(int(numbers[pair]), len(batch.layouts))
            shape = Shape(number, batch.layouts[layout_row])
            known = self._known.get(shape)
            if known is None:
                index = self._index.measurement(number)
                joined = self._join(index.name, fields.get(number, index.fields), shape.layout)
                if isinstance(joined, str):
                    reasons[joined] += int((pairs == pair).sum())
                    continue
                fields[number] = joined
                known = new.setdefault(shape, len(self.shapes) + len(new))
            shape_of_pair[pair] = known
        if strict and reasons:
            raise FieldTypeConflict(next(iter(reasons)))
        if not learns:
            return shape_of_pair, reasons
        for number, types in fields.items():
            if types != self._index.measurement(number).fields:
                self._index.set_fields(number, types)
        self.shapes += [Shape(*pair) for pair in new]
        self._known |= new
        return shape_of_pair, reasons

    def _are_known(
        self, batch: PointBatch, pairs: Int64s, numbers: Int64s, shape_of_pair: Int32s
    ) -> bool:
        """Fill in the shapes of the pairs that occur; False at the first that is new.

        Nearly always all are known, and then their order does not matter.
        """
        n_layouts = len(batch.layouts)
        for pair in np.bincount(pairs).nonzero()[0].tolist():
            number, layout_row = divmod(int(numbers[pair]), n_layouts)
            known = self._known.get((number, batch.layouts[layout_row]))
            if known is None:
                return False
            shape_of_pair[pair] = known
        return True

    def _join(
        self, measurement: str, fields: Mapping[str, FieldType], layout: FieldLayout
    ) -> Mapping[str, FieldType] | str:
        """Return the field types with those of a layout added, or why that cannot be."""
        joined = dict(fields)
        for name, kind in layout:
            old = joined.get(name, FieldType.NONE)
            if old is kind or kind is FieldType.NONE:
                joined.setdefault(name, kind)
            elif old is FieldType.NONE:
                joined[name] = kind
            elif self._promotes and {old, kind} == _NUMBERS:
                joined[name] = FieldType.FLOAT
            else:
                return conflict(measurement, name, kind, old)
        if len(fields) < len(joined) > MAX_FIELDS:
            return f'too many fields: measurement "{measurement}" may have {MAX_FIELDS}'
        return joined

    def forget(self, measurement: int) -> None:
        """Forget what was learnt about a measurement that is gone."""
        for pair in [pair for pair in self._known if pair[0] == measurement]:
            del self._known[pair]


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
            row. Small: a few entries a point, or _MIN_PAIR_TABLE.
    """
    n_layouts = len(batch.layouts)
    if not len(batch):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    first = int(key_measurements.min())
    codes = (key_measurements - first) * n_layouts
    size = int(codes.max()) + n_layouts
    pairs = codes[batch.key_rows] + batch.layout_rows
    if size > max(_MIN_PAIR_TABLE, _PAIRS_PER_POINT * len(pairs)):
        used, pairs = np.unique(pairs, return_inverse=True)
    else:
        used = np.arange(size)
    return pairs, used + first * n_layouts


def _in_order_of_first(pairs: Int64s, size: int) -> list[int]:
    """Return the distinct pairs (all below size) in order of their first point."""
    if size == 1:
        return [0] if len(pairs) else []
    first = np.full(size, -1, np.int64)
    # Written backwards, so that the first point is what remains.
    first[pairs[::-1]] = np.arange(len(pairs) - 1, -1, -1)
    found = np.flatnonzero(first >= 0)
    return list(found[np.argsort(first[found])].tolist())


def _own(array: Int64s) -> Int64s:
    """Return an array that owns its memory: a view would keep the whole request alive."""
    return array if array.flags.owndata else array.copy()


def join(batches: Sequence[PointBatch]) -> PointBatch:
    """Return several batches one after another as one."""
    keys: dict[bytes, int] = {}
    layouts: dict[FieldLayout, int] = {}
    strings: list[str] = []
    key_rows, layout_rows, values = [], [], []
    for batch in batches:
        key_of = np.array([keys.setdefault(key, len(keys)) for key in batch.keys], np.int32)
        layout_of = np.array([layouts.setdefault(x, len(layouts)) for x in batch.layouts], np.int32)
        key_rows.append(key_of[batch.key_rows])
        layout_rows.append(layout_of[batch.layout_rows])
        values.append(_shifted(batch, len(strings)))
        strings += batch.strings
    return PointBatch(
        list(keys),
        np.concatenate([np.zeros(0, np.int32), *key_rows]),
        np.concatenate([np.zeros(0, np.int64), *(batch.times for batch in batches)]),
        list(layouts),
        np.concatenate([np.zeros(0, np.int32), *layout_rows]),
        np.concatenate([np.zeros(0, np.int64), *values]),
        strings,
    )


def _shifted(batch: PointBatch, shift: int) -> Int64s:
    """Return the slots of a batch with the numbers of strings counted on from shift."""
    if not shift or not batch.strings:
        return batch.values
    values = batch.values.copy()
    starts = batch.offsets()[:-1]
    for row, layout in enumerate(batch.layouts):
        for slot, (_, kind) in enumerate(layout):
            if kind is FieldType.STRING:
                values[starts[batch.layout_rows == row] + slot] += shift
    return values
