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


def json_float(value: float) -> float | int | orjson.Fragment | None:
    """Return what makes orjson print a float as Go does; NaN and the infinities become null."""
    if -_EXACT < value < _EXACT:
        if value.is_integer() and (value or copysign(1.0, value) > 0):
            return int(value)
        if not -_SHORTEST_PLAIN < value < _SHORTEST_PLAIN:
            return value
    return orjson.Fragment(go_float(value)) if isfinite(value) else None


def json_floats(values: Float64s, valid: Bools | None) -> list[object]:
    """Return what to print for each of float64[n], None where not valid (bool[n]; None is all)."""
    printable: list[object]
    if len(values) < _SMALL:
        printable = [json_float(value) for value in values.tolist()]
    else:
        printable = _json_floats(values)
    if valid is not None:
        for row in np.flatnonzero(~valid).tolist():
            printable[row] = None
    return printable


def _json_floats(values: Float64s) -> list[object]:
    sizes = np.abs(values)
    small = sizes < _EXACT
    whole = small & (values == np.trunc(values)) & ~((values == 0) & np.signbit(values))
    odd = ~whole & ~(small & (sizes >= _SHORTEST_PLAIN))
    if whole.all():
        return list(values.astype(np.int64).tolist())
    if not whole.any() and not odd.any():
        return list(values.tolist())
    printable = values.astype(object)
    printable[whole] = values[whole].astype(np.int64)
    for row in np.flatnonzero(odd).tolist():
        printable[row] = json_float(float(values[row]))
    return list(printable.tolist())
