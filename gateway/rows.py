"""Rows and expressions over them: the one form in which raw points and windows are computed with.

An Axis says which rows there are: sorted by group, and within a group in the order of the query. A
    Col is one value a row. The windows of an aggregate query are rows (groups x windows of them),
    the points of a raw query are rows; so an expression, a transformation and a fill are the same
    for both.

A column *emits* the rows that it gives by itself, maybe as null. A row of the answer is one that
any column emits: a field emits where it has a value, a filled aggregate everywhere in the range, a
tag or a literal nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.functions.math import BINARY, KEEPS_INTEGERS, UNARY, count_hll
from gateway.functions.transforms import READS_ONE_WINDOW_BEFORE, TRANSFORMS, Argument
from grammar import ast
from tinyflux.batch import Bools, FieldType, Int64s

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tinyflux.columnar.base import Values

_NUMBERS: Final = frozenset([FieldType.FLOAT, FieldType.INTEGER])
DTYPES: Final = {
    FieldType.NONE: np.float64,
    FieldType.FLOAT: np.float64,
    FieldType.INTEGER: np.int64,
    FieldType.BOOLEAN: np.bool_,
    FieldType.STRING: np.object_,
}


@dataclass(frozen=True, slots=True, eq=False)
class Axis:
    """The rows of a query.

    Attributes:
        groups: int64[n], the group of each row; equal ones stand together.
        times: int64[n] ns, in the order of the query within a group.
        in_range: bool[n]; false for rows that were only read for a transformation.
        interval_ns: The GROUP BY interval, be it of the query around: the default unit of a
            derivative; 0 is a second.
    """

    groups: Int64s
    times: Int64s
    in_range: Bools
    interval_ns: int = 0

    def __len__(self) -> int:
        return len(self.groups)


@dataclass(frozen=True, slots=True, eq=False)
class Col:
    """One value a row.

    Attributes:
        type: NONE when no row has a value.
        values: float64[n], int64[n], bool[n] or object[n] (str); anything where not valid.
        valid: bool[n].
        emits: bool[n], the rows that this column gives.
    """

    type: FieldType
    values: Values
    valid: Bools
    emits: Bools

    @staticmethod
    def nothing(size: int) -> Col:
        """Return a column without values."""
        nowhere = np.zeros(size, np.bool_)
        return Col(FieldType.NONE, np.zeros(size), nowhere, nowhere)

    def take(self, rows: Int64s | Bools | slice) -> Col:
        """Return the chosen rows."""
        return Col(self.type, self.values[rows], self.valid[rows], self.emits[rows])

    def cast(self, kind: FieldType) -> Col:
        """Return the column read as another type: numbers convert, other kinds give nothing."""
        if kind is self.type:
            return self
        if {kind, self.type} <= _NUMBERS:
            known = np.where(self.valid, self.values, 0)
            return Col(kind, known.astype(DTYPES[kind]), self.valid, self.emits)
        return Col.nothing(len(self.valid))


def evaluate(
    expr: ast.Expr,
    axis: Axis,
    leaves: Mapping[ast.Expr, Col],
    inner: Mapping[ast.Expr, Col] | None = None,
) -> Col:
    """Return the column of an expression.

    Args:
        expr: Checked by the planner. A call that is no leaf is math or a transformation.
        axis: The rows.
        leaves: The columns that were read or aggregated, by the expression they stand for.
        inner: The leaves inside of transformations that read a window more; None where they are the
            same.
    """
    leaf = leaves.get(expr)
    if leaf is not None:
        return leaf
    match expr:
        case ast.ParenExpr(nested):
            return evaluate(nested, axis, leaves, inner)
        case ast.IntegerLiteral(value) | ast.NumberLiteral(value) | ast.BooleanLiteral(value):
            return _constant(value, len(axis))
        case ast.BinaryExpr(op, lhs, rhs):
            left = evaluate(lhs, axis, leaves, inner)
            return _operate(op, left, evaluate(rhs, axis, leaves, inner))
        case ast.Call(name, args) if name in TRANSFORMS:
            if inner is not None and name in READS_ONE_WINDOW_BEFORE:
                leaves = inner
            return _transform(name, args, axis, evaluate(args[0], axis, leaves, inner))
        case ast.Call(name, args):
            return _apply_math(name, [evaluate(arg, axis, leaves, inner) for arg in args])
    return Col.nothing(len(axis))


def _constant(value: float | int | bool, size: int) -> Col:
    kind = FieldType.FLOAT
    if isinstance(value, bool):
        kind = FieldType.BOOLEAN
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        kind = FieldType.INTEGER
    values: Values = np.full(size, value, DTYPES[kind])
    return Col(kind, values, np.ones(size, np.bool_), np.zeros(size, np.bool_))


# --- operators ------------------------------------------------------------------------------------
_UFUNCS: Final[dict[str, np.ufunc]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "&": np.bitwise_and,
    "|": np.bitwise_or,
    "^": np.bitwise_xor,
}


def _operate(op: str, left: Col, right: Col) -> Col:
    valid = left.valid & right.valid
    emits = left.emits | right.emits
    kinds = {left.type, right.type}
    if kinds == {FieldType.BOOLEAN} and op in {"&", "|", "^"}:
        return Col(FieldType.BOOLEAN, _compute(op, left.values, right.values), valid, emits)
    if not kinds <= _NUMBERS:
        return Col(FieldType.NONE, np.zeros(len(valid)), np.zeros_like(valid), emits)
    if kinds == {FieldType.INTEGER} and op != "/":
        return Col(FieldType.INTEGER, _compute(op, left.values, right.values), valid, emits)
    floats = left.values.astype(np.float64), right.values.astype(np.float64)
    return Col(FieldType.FLOAT, _compute(op, *floats), valid, emits)


def _compute(op: str, left: Values, right: Values) -> Values:
    """Return an operator over two columns of one type; integers wrap."""
    values: Values
    with np.errstate(all="ignore"):
        if op in _UFUNCS:
            values = _UFUNCS[op](left, right)
        elif op == "/" or left.dtype.kind == "i":  # influxd: x / 0 = 0, and integer % 0 = 0
            ufunc = np.divide if op == "/" else np.fmod  # Go: the sign of the dividend
            values = ufunc(left, right, out=np.zeros_like(left), where=right != 0)
        else:
            values = np.fmod(left, right)
    return values


# --- functions ------------------------------------------------------------------------------------
def _apply_math(name: str, args: list[Col]) -> Col:
    first = args[0]
    valid, emits = first.valid, first.emits
    for other in args[1:]:
        valid, emits = valid & other.valid, emits | other.emits
    if name == "count_hll" and first.type is FieldType.STRING:
        counts, valid = count_hll(first.values, valid)
        return Col(FieldType.INTEGER, counts, valid, emits)
    if any(arg.type not in _NUMBERS for arg in args) or name == "count_hll":
        return Col(FieldType.NONE, np.zeros(len(valid)), np.zeros_like(valid), emits)
    if first.type is FieldType.INTEGER and name in KEEPS_INTEGERS:
        values = np.abs(first.values) if name == "abs" else first.values
        return Col(FieldType.INTEGER, values, valid, emits)
    floats = [arg.values.astype(np.float64) for arg in args]
    with np.errstate(all="ignore"):
        result = UNARY[name](floats[0]) if name in UNARY else BINARY[name](floats[0], floats[1])
    return Col(FieldType.FLOAT, result, valid, emits)


def _transform(name: str, args: tuple[ast.Expr, ...], axis: Axis, source: Col) -> Col:
    size = len(axis)
    is_ordered = source.type in _NUMBERS or name == "elapsed"
    rows = np.flatnonzero(source.valid)
    if not is_ordered or not len(rows):
        return Col.nothing(size)
    kernel = TRANSFORMS[name]
    chosen, results = kernel(
        axis.groups[rows], axis.times[rows], source.values[rows], _arguments(name, args, axis)
    )
    positions = rows[chosen]
    kind = FieldType.INTEGER if results.dtype.kind == "i" else FieldType.FLOAT
    values: Values = np.zeros(size, DTYPES[kind])
    values[positions] = results
    valid = np.zeros(size, np.bool_)
    valid[positions] = True
    return Col(kind, values, valid, valid & axis.in_range)


def _arguments(name: str, args: tuple[ast.Expr, ...], axis: Axis) -> list[Argument]:
    """Return what follows the first argument of a transformation; its default unit if nothing."""
    given: list[Argument] = []
    for arg in args[1:]:
        match arg:
            case ast.DurationLiteral(ns):
                given.append(ns)
            case ast.IntegerLiteral(value) | ast.NumberLiteral(value) | ast.StringLiteral(value):
                given.append(value)
    if given or name == "elapsed":
        return given or [1]
    return [axis.interval_ns or 1_000_000_000]
