"""Columns as Arrow arrays and back, by their buffers.

pyarrow's own conversions from and to Python and numpy import pandas when it is installed, and
`pyarrow.compute`: half a second and 50 MB for nothing. An Arrow array is a few buffers, and numpy
makes and reads those as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tinyflux.batch import Bools, Int32s, Int64s
    from tinyflux.columnar.base import Values

_DTYPES: Final = {FieldType.FLOAT: np.float64, FieldType.INTEGER: np.int64}


def from_times(times: Int64s) -> Any:  # pyarrow is untyped
    """Return int64[n] ns as an array of timestamps in UTC."""
    import pyarrow as pa

    return _fixed(times, None, pa.timestamp("ns", "UTC"))


def from_column(column: FieldColumn) -> Any:
    """Return a field column as an array of doubles, int64, booleans or large strings."""
    import pyarrow as pa

    if column.type is FieldType.STRING:
        return _from_texts(column.values, column.valid, pa.large_string())
    if column.type in _DTYPES:
        kind = pa.float64() if column.type is FieldType.FLOAT else pa.int64()
        return _fixed(column.values, column.valid, kind)
    return from_flags(column.values, column.valid)


def from_flags(flags: Values, valid: Bools | None = None) -> Any:
    """Return bool[n] as an array of booleans."""
    import pyarrow as pa

    buffers = [_bitmap(valid), pa.py_buffer(np.packbits(flags.astype(np.bool_), bitorder="little"))]
    return pa.Array.from_buffers(pa.bool_(), len(flags), buffers)


def from_codes(codes: Int32s, valid: Bools | None, texts: Sequence[str]) -> Any:
    """Return codes into texts as a dictionary array of strings."""
    import pyarrow as pa

    dictionary = _from_texts(texts, None, pa.string())
    return pa.DictionaryArray.from_arrays(_fixed(codes, valid, pa.int32()), dictionary)


def to_column(array: Any, kind: FieldType, none: Any = None) -> FieldColumn:
    """Return an array as a field column of a type; its numbers are the buffer itself, read-only.

    Args:
        array: One array; of strings, dictionary coded.
        kind: The type of the field.
        none: An array of booleans, the explicit Nones.
    """
    valid = _valid(array)
    values: Values
    if kind is FieldType.STRING:
        values = _to_texts(array, valid)
    elif kind in _DTYPES:
        values = _to_fixed(array, _DTYPES[kind], valid)
    else:
        values = _to_flags(array)
    if kind is FieldType.NONE:
        valid = np.zeros(len(array), np.bool_)
    return FieldColumn(kind, values, valid, None if none is None else _to_flags(none))


def _fixed(values: NDArray[Any], valid: Bools | None, kind: Any) -> Any:
    import pyarrow as pa

    buffers = [_bitmap(valid), pa.py_buffer(np.ascontiguousarray(values))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _bitmap(valid: Bools | None) -> Any:
    import pyarrow as pa

    return None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))


def _from_texts(texts: Values | Sequence[str], valid: Bools | None, kind: Any) -> Any:
    import pyarrow as pa

    if valid is not None:  # what is not valid may be anything
        texts = np.where(valid, np.asarray(texts, np.object_), "")
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, np.int64)
    np.cumsum(list(map(len, encoded)), out=offsets[1:])
    if kind == pa.string():
        offsets = offsets.astype(np.int32)
    buffers = [_bitmap(valid), pa.py_buffer(offsets), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(kind, len(encoded), buffers)


def _bits(buffer: Any, array: Any) -> Bools:
    flags = np.frombuffer(buffer, np.uint8)
    bits = np.unpackbits(flags, count=array.offset + len(array), bitorder="little")
    return bits[array.offset :].view(np.bool_)


def _valid(array: Any) -> Bools | None:
    return _bits(array.buffers()[0], array) if array.null_count else None


def _to_flags(array: Any) -> Bools:
    """Return bool[n], false where there is no value."""
    flags = _bits(array.buffers()[1], array)
    valid = _valid(array)
    return flags if valid is None else flags & valid


def _to_fixed(array: Any, dtype: type, valid: Bools | None) -> Values:
    buffer = array.buffers()[1]
    values: Values = np.frombuffer(buffer, dtype, array.offset + len(array))[array.offset :]
    return values if valid is None else np.where(valid, values, dtype(0))


def _to_texts(array: Any, valid: Bools | None) -> Values:
    """Return object[n]; equal strings are one object.

    Raises:
        ValueError: A code without a text: no checksum of Parquet covers the size of a dictionary.
    """
    texts = np.array([*array.dictionary.to_pylist(), ""], np.object_)
    indices = array.indices
    codes = _to_fixed(indices, np.int32, None)
    if valid is not None:
        codes = np.where(valid, codes, len(texts) - 1)
    if len(codes) and not 0 <= codes.min() <= codes.max() <= len(texts) - (valid is None) - 1:
        raise ValueError("a dictionary is too short")
    return texts[codes]
