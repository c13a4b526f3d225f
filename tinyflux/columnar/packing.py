"""Columns of rows as a batch of points: no step in Python per row, but for each of their texts."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyflux.batch import Bools, FieldType, Int32s, Int64s, PointBatch, field_type_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tinyflux.batch import FieldLayout
    from tinyflux.columnar.base import FieldColumn


class _Slots(NamedTuple):
    """A field of the rows, as far as its values are of one type.

    Attributes:
        name: Its key.
        kind: The type.
        slots: int64[n], as in PointBatch.
        rows: bool[n], the rows that have it.
    """

    name: str
    kind: FieldType
    slots: Int64s
    rows: Bools


def pack(
    keys: list[bytes],
    key_rows: Int64s,
    times: Int64s,
    columns: Iterable[tuple[str, FieldColumn]],
) -> PointBatch:
    """Return rows as points.

    Args:
        keys: Series keys, each once.
        key_rows: int64[n], which of them each row has.
        times: int64[n] ns.
        columns: Names and fields, n rows each; every row has one of them at least. Of columns of
            one name a row has the last one that has a value.
    """
    strings: list[str] = []
    parts = [part for name, column in columns for part in _parts(name, column, strings)]
    taken: dict[str, Bools] = {}  # by columns of the same name that come later
    for n, part in reversed(list(enumerate(parts))):
        later = taken.get(part.name)
        if later is not None:
            parts[n] = part._replace(rows=part.rows & ~later)
        taken[part.name] = part.rows if later is None else part.rows | later
    there = np.array([part.rows for part in parts], np.bool_).T.reshape(len(times), len(parts))
    slots = np.array([part.slots for part in parts], np.int64).T.reshape(there.shape)
    layouts, layout_rows = _layouts(parts, there)
    return PointBatch(
        keys, key_rows.astype(np.int32), times, layouts, layout_rows, slots[there], strings
    )


def _parts(name: str, column: FieldColumn, strings: list[str]) -> Iterator[_Slots]:
    rows, values = column.mask(), column.values
    if column.none is not None:
        yield _Slots(name, FieldType.NONE, np.zeros(len(values), np.int64), column.none)
    if column.type is FieldType.STRING:
        yield from _parts_of_objects(name, values, rows, strings)
    elif column.type is FieldType.FLOAT:
        yield _Slots(name, column.type, values.astype(np.float64, copy=False).view(np.int64), rows)
    elif column.type is not FieldType.NONE:
        yield _Slots(name, column.type, values.astype(np.int64, copy=False), rows)


def _parts_of_objects(
    name: str, values: np.ndarray, rows: Bools, strings: list[str]
) -> Iterator[_Slots]:
    """Yield the values of objects by their types: a column of text may have been filled."""
    [at] = rows.nonzero()
    objects = values[at].tolist()
    kinds = list(map(field_type_of, objects))
    for kind in sorted(set(kinds)):
        mine = np.array([k is kind for k in kinds])
        own = [value for value, k in zip(objects, kinds, strict=True) if k is kind]
        slots, here = np.zeros(len(values), np.int64), np.zeros(len(values), np.bool_)
        here[at[mine]] = True
        if kind is FieldType.STRING:
            slots[here] = np.arange(len(strings), len(strings) + len(own))
            strings += own
        elif kind is FieldType.FLOAT:
            slots[here] = np.array(own, np.float64).view(np.int64)
        else:
            slots[here] = own
        yield _Slots(name, kind, slots, here)


def _layouts(parts: list[_Slots], there: Bools) -> tuple[list[FieldLayout], Int32s]:
    """Return the distinct layouts of rows, and int32[n], which each row has."""
    if there.all():
        return [tuple((part.name, part.kind) for part in parts)], np.zeros(len(there), np.int32)
    bits = np.ascontiguousarray(np.packbits(there, axis=1))
    patterns = bits.view(np.dtype((np.void, bits.shape[1]))).ravel()
    _, first, inverse = np.unique(patterns, return_index=True, return_inverse=True)
    layouts = [
        tuple((parts[k].name, parts[k].kind) for k in np.flatnonzero(there[row]).tolist())
        for row in first.tolist()
    ]
    return layouts, inverse.astype(np.int32)
