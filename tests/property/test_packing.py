"""Packing columns against building the same points one by one."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, strategies as st

from tinyflux.batch import FieldType, series_key
from tinyflux.columnar.base import FieldColumn
from tinyflux.columnar.packing import pack

DTYPES: dict[FieldType, type] = {
    FieldType.FLOAT: np.float64,
    FieldType.INTEGER: np.int64,
    FieldType.BOOLEAN: np.bool_,
    FieldType.STRING: np.object_,
}
VALUES: dict[FieldType, st.SearchStrategy[Any]] = {
    FieldType.FLOAT: st.floats(allow_nan=False),
    FieldType.INTEGER: st.integers(-(2**63), 2**63 - 1),
    FieldType.BOOLEAN: st.booleans(),
    # fill(number) leaves numbers among texts
    FieldType.STRING: st.text(max_size=3) | st.integers(-9, 9) | st.just(2.5),
}


@st.composite
def columns(draw: st.DrawFn, n_rows: int) -> tuple[str, FieldType, list[Any]]:
    kind = draw(st.sampled_from(sorted(VALUES)))
    cells = st.lists(st.none() | VALUES[kind], min_size=n_rows, max_size=n_rows)
    return draw(st.sampled_from("abcd")), kind, draw(cells)


def field_column(kind: FieldType, cells: list[Any]) -> FieldColumn:
    values: Any = np.zeros(len(cells), DTYPES[kind])
    valid = np.array([cell is not None for cell in cells], np.bool_)
    for row in np.flatnonzero(valid).tolist():
        values[row] = cells[row]
    return FieldColumn(kind, values, None if valid.all() else valid)


@given(st.data())
def test_points_are_those_of_the_rows(data: st.DataObject) -> None:
    n_rows = data.draw(st.integers(1, 12))
    given_columns = data.draw(st.lists(columns(n_rows), min_size=1, max_size=6))
    tags: list[tuple[tuple[str, str], ...]] = [(), (("h", "a"),), (("h", "b"),)]
    key_rows = data.draw(st.lists(st.integers(0, 2), min_size=n_rows, max_size=n_rows))
    batch = pack(
        [series_key("m", own) for own in tags],
        np.array(key_rows, np.int64),
        np.arange(n_rows),
        [(name, field_column(kind, cells)) for name, kind, cells in given_columns],
    )
    found = [
        (own, time, {name: (type(value), value) for name, value in fields.items()})
        for _, own, time, fields in batch.rows()
    ]
    expected = []
    for row in range(n_rows):
        fields = {name: cells[row] for name, _, cells in given_columns if cells[row] is not None}
        typed = {name: (type(value), value) for name, value in fields.items()}
        expected.append((tags[key_rows[row]], row, typed))
    assert found == expected
