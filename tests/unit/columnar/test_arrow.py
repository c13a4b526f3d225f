"""Columns become Arrow arrays and come back as they were."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies as st

from tinyflux.batch import FieldType
from tinyflux.columnar import arrow
from tinyflux.columnar.base import FieldColumn

VALUES: dict[FieldType, tuple[type, st.SearchStrategy[Any]]] = {
    FieldType.FLOAT: (np.float64, st.floats(allow_nan=False)),
    FieldType.INTEGER: (np.int64, st.integers(-(2**63), 2**63 - 1)),
    FieldType.BOOLEAN: (np.bool_, st.booleans()),
    FieldType.STRING: (np.object_, st.text(max_size=5)),
}
SPECIAL = ["", "a", "ä€😀", "\0", "x" * 300]


@given(st.data(), st.sampled_from(sorted(VALUES)), st.integers(0, 20), st.booleans())
def test_a_column_survives_the_way_there_and_back(
    data: st.DataObject, kind: FieldType, n: int, gaps: bool
) -> None:
    dtype, strategy = VALUES[kind]
    values = data.draw(st.lists(strategy, min_size=n, max_size=n))
    mask = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    valid = np.array(mask, np.bool_) if gaps else None
    array = arrow.from_column(FieldColumn(kind, np.array(values, dtype), valid))
    assert array.to_pylist() == [
        v if valid is None or there else None for v, there in zip(values, mask, strict=True)
    ]
    start = data.draw(st.integers(0, n))
    piece = array.slice(start)  # what is read may start anywhere in its buffers
    if kind is FieldType.STRING:
        piece = piece.dictionary_encode()
    found = arrow.to_column(piece, kind)
    there = [v for v, here in zip(values, mask, strict=True)][start:]
    assert found.type is kind
    assert found.values.dtype == dtype
    assert found.values[found.mask()].tolist() == np.array(there, dtype)[found.mask()].tolist()
    if valid is not None:
        assert found.mask().tolist() == mask[start:]


def test_times_are_timestamps_in_utc() -> None:
    array = arrow.from_times(np.array([0, 1_700_000_000_000_000_001], np.int64))
    assert array.type == pa.timestamp("ns", "UTC")
    assert array.cast(pa.int64()).to_pylist() == [0, 1_700_000_000_000_000_001]
    assert arrow.to_column(array, FieldType.INTEGER).values.tolist()[1] == 1_700_000_000_000_000_001


def test_codes_are_a_dictionary() -> None:
    codes, valid = np.array([0, 4, 2, 1, 3], np.int32), np.array([True, True, True, True, False])
    array = arrow.from_codes(codes, valid, SPECIAL)
    assert array.to_pylist() == ["", "x" * 300, "ä€😀", "a", None]
    array.validate(full=True)


def test_explicit_nones_are_kept_beside() -> None:
    column = FieldColumn(FieldType.NONE, np.zeros(3, np.bool_), np.zeros(3, np.bool_))
    nones = arrow.from_flags(np.array([True, False, True]))
    found = arrow.to_column(arrow.from_column(column), FieldType.NONE, nones)
    assert found.none is not None
    assert (found.mask().tolist(), found.none.tolist()) == ([False] * 3, [True, False, True])


def test_pandas_stays_out_of_a_process_that_flushes_and_reads() -> None:
    pytest.importorskip("pandas")  # without it there is nothing to keep out
    code = """
import sys, tempfile
from tinyflux import FieldQuery, ParquetStorage, Point, TinyFlux
with tempfile.TemporaryDirectory() as path, TinyFlux(path, storage=ParquetStorage) as db:
    db.insert_multiple(Point(tags={"a": "b"}, fields={"f": 1.5, "i": n}) for n in range(9))
    db.storage.flush()
    assert len(db.search(FieldQuery().f > 1)) == 9
print([name for name in ("pandas", "pyarrow.compute", "pyarrow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['pyarrow']\n"
