"""Conditions as trees: what is in them, and what they become under NOT.

NOT turns each comparison around, so that it never needs an operator of its own: `NOT (a < 1 AND h =
'x')` is `a >= 1 OR h != 'x'`. A comparison with a missing field is false, and so is its opposite,
as in SQL; a missing tag is the empty text, and differs from 'x'.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from grammar import ast

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAX_ALTERNATIVES: Final = 1000
_OPPOSITES: Final = {
    "=": "!=",
    "!=": "=",
    "<": ">=",
    ">=": "<",
    ">": "<=",
    "<=": ">",
    "=~": "!~",
    "!~": "=~",
}


def walk(expr: ast.Expr) -> Iterator[ast.Expr]:
    """Yield an expression and everything in it, outermost first."""
    yield expr
    match expr:
        case ast.ParenExpr(inner) | ast.NotExpr(inner) | ast.LikeExpr(inner):
            yield from walk(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            yield from walk(lhs)
            yield from walk(rhs)
        case ast.Call(_, args):
            for arg in args:
                yield from walk(arg)
        case ast.InExpr(inner, values):
            yield from walk(inner)
            yield from values


def calls_of(expr: ast.Expr) -> Iterator[ast.Call]:
    """Yield the calls in an expression, outermost first."""
    return (part for part in walk(expr) if isinstance(part, ast.Call))


def has_interval(select: ast.Select) -> bool:
    """Return whether a statement says GROUP BY time(..), whatever is in it."""
    return any(isinstance(dim, ast.Call) and dim.name == "time" for dim in select.dimensions)


def is_time(expr: ast.Expr) -> bool:
    """Return whether an expression is the time of a point."""
    return isinstance(expr, ast.VarRef) and expr.name.lower() == "time"


def bounds_time(condition: ast.Expr) -> bool:
    """Return whether a condition compares with time."""
    match condition:
        case ast.ParenExpr(inner) | ast.NotExpr(inner):
            return bounds_time(inner)
        case ast.BinaryExpr("AND" | "OR", lhs, rhs):
            return bounds_time(lhs) or bounds_time(rhs)
        case ast.BinaryExpr(_, lhs, rhs):
            return is_time(lhs) or is_time(rhs)
        case ast.InExpr(inner) | ast.LikeExpr(inner):
            return is_time(inner)
    return False


def times_alone(condition: ast.Expr | None) -> ast.Expr | None:
    """Return what of a condition, joined by AND, looks at time and nothing else; None for none."""
    match condition:
        case ast.BinaryExpr("AND", lhs, rhs):
            left, right = times_alone(lhs), times_alone(rhs)
            return both(left, right)
        case None:
            return None
    is_alone = bounds_time(condition) and all(
        is_time(part) for part in walk(condition) if isinstance(part, ast.VarRef)
    )
    return condition if is_alone else None


def both(left: ast.Expr | None, right: ast.Expr | None) -> ast.Expr | None:
    """Return two conditions joined by AND; None is none."""
    if left is None or right is None:
        return right if left is None else left
    return ast.BinaryExpr("AND", _parenthesised(left), _parenthesised(right))


def _parenthesised(condition: ast.Expr) -> ast.Expr:
    is_or = isinstance(condition, ast.BinaryExpr) and condition.op == "OR"
    return ast.ParenExpr(condition) if is_or else condition


def disjuncts(condition: ast.Expr) -> Iterator[ast.Expr]:
    """Yield what is joined by OR, through parentheses."""
    match condition:
        case ast.ParenExpr(inner):
            yield from disjuncts(inner)
        case ast.BinaryExpr("OR", lhs, rhs):
            yield from disjuncts(lhs)
            yield from disjuncts(rhs)
        case _:
            yield condition


def negated(condition: ast.Expr) -> ast.Expr:
    """Return the opposite of a condition; what is no condition stays as it is."""
    match condition:
        case ast.ParenExpr(inner):
            opposite = negated(inner)
            return opposite if isinstance(opposite, ast.ParenExpr) else ast.ParenExpr(opposite)
        case ast.NotExpr(inner):
            return inner
        case ast.BooleanLiteral(value):
            return ast.BooleanLiteral(not value)
        case ast.BinaryExpr("AND", lhs, rhs):
            return ast.ParenExpr(ast.BinaryExpr("OR", negated(lhs), negated(rhs)))
        case ast.BinaryExpr("OR", lhs, rhs):
            return ast.BinaryExpr("AND", negated(lhs), negated(rhs))
        case ast.BinaryExpr("=" | "!=" as op, lhs, rhs) if is_time(lhs) or is_time(rhs):
            return condition if op == "!=" else _another_time(lhs, rhs)  # != is refused anyway
        case ast.BinaryExpr(op, lhs, rhs) if op in _OPPOSITES:
            return ast.BinaryExpr(_OPPOSITES[op], lhs, rhs)
        case ast.InExpr(inner, values, is_negated):
            return ast.InExpr(inner, values, not is_negated)
        case ast.LikeExpr(inner, pattern, is_negated):
            return ast.LikeExpr(inner, pattern, not is_negated)
    return condition


def _another_time(lhs: ast.Expr, rhs: ast.Expr) -> ast.Expr:
    before, after = ast.BinaryExpr("<", lhs, rhs), ast.BinaryExpr(">", lhs, rhs)
    return ast.ParenExpr(ast.BinaryExpr("OR", before, after))


def alternatives(condition: ast.Expr) -> list[ast.Expr]:
    """Return conditions of which one has to hold, each with no time under an OR or NOT.

    Args:
        condition: With its times in ns, as `gateway.timerange.split_condition` leaves it.

    Raises:
        StatementError: They are too many.
    """
    found = [condition]
    match condition:
        case _ if not bounds_time(condition):
            pass
        case ast.ParenExpr(inner):
            found = alternatives(inner)
        case ast.NotExpr(inner):
            found = alternatives(negated(inner))
        case ast.InExpr(_, values, is_negated):
            found = _each_time(values, is_negated=is_negated)
        case ast.BinaryExpr("OR", lhs, rhs):
            found = alternatives(lhs) + alternatives(rhs)
        case ast.BinaryExpr("AND", lhs, rhs):
            left, right = alternatives(lhs), list(map(_parenthesised, alternatives(rhs)))
            _check_alternatives(len(left) * len(right))
            found = [ast.BinaryExpr("AND", a, b) for a in map(_parenthesised, left) for b in right]
    _check_alternatives(len(found))
    return found


def _check_alternatives(count: int) -> None:
    if count > _MAX_ALTERNATIVES:
        raise StatementError(f"condition on time has more than {_MAX_ALTERNATIVES} alternatives")


def _each_time(values: Sequence[ast.Expr], *, is_negated: bool) -> list[ast.Expr]:
    """Return a comparison for each of some times in ns, or for each gap between them."""
    time = ast.VarRef("time")
    if not is_negated:
        return [ast.BinaryExpr("=", time, value) for value in values]
    times = sorted({value.value for value in values if isinstance(value, ast.IntegerLiteral)})
    literals = list(map(ast.IntegerLiteral, times))
    starts = [None, *(ast.BinaryExpr(">", time, literal) for literal in literals)]
    ends = [*(ast.BinaryExpr("<", time, literal) for literal in literals), None]
    gaps = (both(start, end) for start, end in zip(starts, ends, strict=True))
    return [gap for gap in gaps if gap is not None]
