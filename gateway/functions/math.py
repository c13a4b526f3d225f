"""Functions of one row: arrays in, arrays out. Outside their domain they give NaN: null.

Source: measured, `tests/conformance/math.case`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from tinyflux import hyperloglog
from tinyflux.batch import Bools, Float64s, Int64s

if TYPE_CHECKING:
    from tinyflux.columnar.base import Values

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


def count_hll(texts: Values, valid: Bools) -> tuple[Int64s, Bools]:
    """Return about how many different values the sketches of sum_hll() have seen.

    Args:
        texts: object[n], sketches; other texts give nothing.
        valid: bool[n], where there is one.

    Returns:
        counts, valid: int64[n], bool[n].
    """
    counts, known = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_)
    for row in np.flatnonzero(valid).tolist():
        registers = hyperloglog.from_text(texts[row])
        if registers is not None:
            counts[row], known[row] = hyperloglog.estimate(registers), True
    return counts, known


# An integer stays what it is under these; `abs` alone changes it.
KEEPS_INTEGERS: Final = frozenset(["abs", "floor", "ceil", "round"])
