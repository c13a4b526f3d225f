"""Functions of one row: arrays in, arrays out. Outside their domain they give NaN: null.

Source: measured, `tests/conformance/math.case`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from tinyflux.batch import Float64s

Unary: TypeAlias = Callable[[Float64s], Float64s]
Binary: TypeAlias = Callable[[Float64s, Float64s], Float64s]


def _round(values: Float64s) -> Float64s:
    """Round half away from zero, as Go does."""
    whole = np.trunc(values)
    away = np.abs(values - whole) >= 0.5
    return np.where(away, whole + np.copysign(1.0, values), whole)


UNARY: Final[dict[str, Unary]] = {
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "exp": np.exp,
    "ln": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": _round,
}
BINARY: Final[dict[str, Binary]] = {
    "atan2": np.arctan2,
    "pow": np.power,
    "log": lambda values, base: np.log(values) / np.log(base),
}

# An integer stays what it is under these; `abs` alone changes it.
KEEPS_INTEGERS: Final = frozenset(["abs", "floor", "ceil", "round"])
