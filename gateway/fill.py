"""fill(): what stands in windows without a value. Grids in, grids out, in the order of the query.

Source: measured, `tests/conformance/fill.case`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from grammar import ast
from tinyflux.batch import Bools, FieldType, Int64s

if TYPE_CHECKING:
    from tinyflux.columnar.base import Values


def fill(
    mode: ast.Fill,
    number: float,
    kind: FieldType,
    values: Values,
    valid: Bools,
    within: Bools,
    *,
    is_count: bool,
) -> tuple[Values, Bools]:
    """Return a grid in which the empty windows are filled.

    Args:
        mode: How.
        number: The number of `fill(number)`.
        kind: The type of the values.
        values: [g, w] of that type.
        valid: bool[g, w].
        within: bool[g, w], the windows to fill; no others change.
        is_count: The values are counts: an empty window counts 0 under `fill(null)`.

    Returns:
        The values and their validity, [g, w] both.
    """
    if mode is ast.Fill.NULL and not is_count:
        return values, valid
    empty = within & ~valid
    if mode is ast.Fill.NULL:
        return np.where(empty, 0, values), valid | empty
    if mode is ast.Fill.NUMBER:
        return np.where(empty, _converted(number, kind), values), valid | empty
    if mode is ast.Fill.PREVIOUS:
        return _fill_previous(values, valid, empty)
    if mode is ast.Fill.LINEAR and kind in {FieldType.FLOAT, FieldType.INTEGER}:
        return _fill_linear(kind, values, valid, empty)
    return values, valid


def _converted(number: float, kind: FieldType) -> np.generic | str:
    """Return the fill number as influxd converts it to the type of the column."""
    match kind:
        case FieldType.INTEGER:
            fits = -(2.0**63) <= number < 2.0**63  # else what Go's conversion gives on amd64
            return np.int64(int(number) if fits else -(2**63))
        case FieldType.STRING:
            return ""
        case FieldType.BOOLEAN:
            return np.bool_(False)
    return np.float64(number)


def _neighbours(valid: Bools) -> tuple[Int64s, Int64s]:
    """Return int64[g, w] twice: the nearest valid window before (-1: none) and after (w: none)."""
    size = valid.shape[1]
    windows = np.arange(size)
    before = np.maximum.accumulate(np.where(valid, windows, -1), axis=1)
    after = np.minimum.accumulate(np.where(valid, windows, size)[:, ::-1], axis=1)[:, ::-1]
    return before, after


def _fill_previous(values: Values, valid: Bools, empty: Bools) -> tuple[Values, Bools]:
    before, _ = _neighbours(valid)
    known = empty & (before >= 0)
    rows = np.arange(valid.shape[0])[:, None]
    return np.where(known, values[rows, np.maximum(before, 0)], values), valid | known


def _fill_linear(
    kind: FieldType, values: Values, valid: Bools, empty: Bools
) -> tuple[Values, Bools]:
    before, after = _neighbours(valid)
    size = valid.shape[1]
    known = empty & (before >= 0) & (after < size)
    groups, windows = np.nonzero(known)
    left, right = before[groups, windows], after[groups, windows]
    low = values[groups, left].astype(np.float64)
    high = values[groups, right].astype(np.float64)
    line = low + (high - low) / (right - left) * (windows - left)  # to the last digit of influxd
    filled = values.copy()
    filled[groups, windows] = np.trunc(line).astype(np.int64) if kind is FieldType.INTEGER else line
    return filled, valid | known
