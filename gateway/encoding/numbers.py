"""Floats as Go prints them, for whole columns at a time.

influxd answers 1, not 1.0; 1e+21 from 1e21 on; 1e-7 below 1e-6; everything between in plain
decimals.
Source: Go encoding/json floatEncoder.
"""

from __future__ import annotations

from decimal import Decimal
from math import copysign, isfinite
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable

    from tinyflux.batch import Bools, Float64s

_EXACT: Final = 2.0**53  # below, a whole float and the integer print the same digits
_SHORTEST_PLAIN: Final = 1e-4  # from here to 1e16, orjson prints floats as Go does
_SMALL: Final = 64  # below this many values a loop in Python is faster than a dozen numpy calls


def go_float(value: float) -> str:
    """Return a finite float as Go's encoding/json prints it."""
    size = abs(value)
    if size != 0 and (size < 1e-6 or size >= 1e21):
        return repr(value).replace("e-0", "e-")
    if value == 0:
        return "-0" if copysign(1.0, value) < 0 else "0"
    return plain_float(value)


def plain_float(value: float) -> str:
    """Return a finite float without exponent, shortest digits, no `.0`."""
    text = repr(value)
    if "e" in text:
        text = format(Decimal(text), "f")
    return text.removesuffix(".0")


def json_fragment(value: float) -> orjson.Fragment:
    """Return a float that orjson prints otherwise than Go does, as what Go prints."""
    return orjson.Fragment(go_float(value))


def printable(value: float, odd: Callable[[float], object]) -> object:
    """Return what to print for a float: an int, the float itself, `odd(value)`, or None.

    Args:
        value: NaN and the infinities give None: no format of ours has them.
        odd: Called for what Python's shortest text is not the text of Go for: exponents, -0.
    """
    if -_EXACT < value < _EXACT:
        if value.is_integer() and (value or copysign(1.0, value) > 0):
            return int(value)
        if not -_SHORTEST_PLAIN < value < _SHORTEST_PLAIN:
            return value
    return odd(value) if isfinite(value) else None


def printable_floats(
    values: Float64s, valid: Bools | None, odd: Callable[[float], object]
) -> list[object]:
    """Return `printable` of float64[n], None where not valid (bool[n]; None means all are)."""
    if len(values) < _SMALL:
        cells = [printable(value, odd) for value in values.tolist()]
    else:
        cells = _printable_floats(values, odd)
    if valid is not None:
        for row in np.flatnonzero(~valid).tolist():
            cells[row] = None
    return cells


def json_floats(values: Float64s) -> bytes:
    """Return float64[n], without gaps in memory, as a JSON array; whole ones may end in `.0`."""
    if len(values) >= _SMALL:
        sizes = np.abs(values)
        plain = (sizes >= _SHORTEST_PLAIN) & (sizes < _EXACT)
        plain |= (values == 0) & ~np.signbit(values)
        if plain.all():
            return orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)
    return orjson.dumps(printable_floats(values, None, json_fragment))


def _printable_floats(values: Float64s, odd: Callable[[float], object]) -> list[object]:
    sizes = np.abs(values)
    small = sizes < _EXACT
    whole = small & (values == np.trunc(values)) & ~((values == 0) & np.signbit(values))
    is_odd = ~whole & ~(small & (sizes >= _SHORTEST_PLAIN))
    if whole.all():
        return list(values.astype(np.int64).tolist())
    cells = values.astype(object)
    cells[whole] = values[whole].astype(np.int64)
    for row in np.flatnonzero(is_odd).tolist():
        cells[row] = printable(float(values[row]), odd)
    return list(cells.tolist())
