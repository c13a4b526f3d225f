"""A WHERE clause without its time bounds becomes a TinyFlux query: only the engine filters.

InfluxQL and TinyFlux differ in what a missing tag is. In InfluxQL it is the empty text: `host !=
'a'` matches a series without `host`; in TinyFlux a missing key fails every comparison. So `!=` on a
tag compiles to `~(tag == ..)`, and an operator that the empty text passes also takes the series
that lack the tag. A missing field fails every comparison in both.

Not InfluxDB's: NOT, IN and LIKE (`gateway.logic` says what NOT means), and times that stand in the
condition because no interval can say them (`gateway.timerange`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeAlias

import numpy as np

from gateway.errors import StatementError
from gateway.functions.math import BINARY, KEEPS_INTEGERS, UNARY
from gateway.logic import disjuncts, is_time, negated
from gateway.regexes import Regex, like_regex
from grammar import ast
from grammar.printer import to_influxql
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, FieldType
from tinyflux.membership import OneOf, OneTime, TimeSpan
from tinyflux.queries import (
    BaseQuery,
    CompoundQuery,
    MeasurementQuery,
    SimpleQuery,
    TagQuery,
    TimeQuery,
    TypedFieldQuery,
)

Query: TypeAlias = SimpleQuery | CompoundQuery
Fields: TypeAlias = Mapping[str, FieldType]

_COMPARISONS: Final = frozenset(["=", "!=", "<", "<=", ">", ">=", "=~", "!~"])
_FLIPPED: Final = {"<": ">", "<=": ">=", ">": "<", ">=": "<="}
_ORDERINGS: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_EVERYTHING: Final[Query] = TagQuery().noop()
_NOTHING: Final[Query] = ~_EVERYTHING


def compile_condition(condition: ast.Expr | None, fields: Fields) -> Query | None:
    """Return the query for a condition on one measurement; None matches every point.

    Args:
        condition: A WHERE clause without time (`gateway.timerange.split_condition`).
        fields: The fields of the measurement. Any other name is a tag, maybe one that no series
            has.

    Raises:
        StatementError: Something that is no condition, in InfluxDB's words.
    """
    if condition is None:
        return None
    query = _compile(condition, fields)
    return None if query is _EVERYTHING else query


def check_condition(condition: ast.Expr | None) -> None:
    """Refuse what is no condition whatever the schema.

    Raises:
        StatementError: In InfluxDB's words.
    """
    match condition:
        case None | ast.BooleanLiteral():
            return
        case ast.ParenExpr(inner) | ast.NotExpr(inner):
            check_condition(inner)
        case ast.InExpr(operand) | ast.LikeExpr(operand):
            _check_operand(operand)
        case ast.BinaryExpr("AND" | "OR", lhs, rhs):
            check_condition(lhs)
            check_condition(rhs)
        case ast.BinaryExpr(op, lhs, rhs) if op in _COMPARISONS:
            _check_operand(lhs)
            _check_operand(rhs)
        case _:
            raise StatementError(f"invalid condition expression: {to_influxql(condition)}")


def _check_operand(expr: ast.Expr) -> None:
    match expr:
        case ast.Call(name, args):
            if name not in MATH_IN_CONDITIONS:
                raise StatementError(f"invalid function call in condition: {to_influxql(expr)}")
            for arg in args:
                _check_operand(arg)
        case ast.CalendarDuration():
            raise StatementError(f"invalid condition expression: {to_influxql(expr)}")
        case ast.ParenExpr(inner):
            _check_operand(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            _check_operand(lhs)
            _check_operand(rhs)


# Functions of one row may stand in a condition; aggregates may not.
MATH_IN_CONDITIONS: Final = frozenset([*UNARY, *BINARY])


def _compile(expr: ast.Expr, fields: Fields) -> Query:
    match expr:
        case ast.ParenExpr(inner):
            return _compile(inner, fields)
        case ast.NotExpr(inner):
            return _compile(negated(inner), fields)
        case ast.BooleanLiteral(value):
            return _EVERYTHING if value else _NOTHING
        case ast.BinaryExpr(op, lhs, ast.IntegerLiteral(ns)) if is_time(lhs):
            return TimeQuery().test(_time_span(op, ns))
        case ast.BinaryExpr("AND", lhs, rhs):
            return _and(_compile(lhs, fields), _compile(rhs, fields))
        case ast.BinaryExpr("OR", lhs, rhs):
            if (choice := _choice_of_tag(expr, fields)) is not None:
                return choice
            return _or(_compile(lhs, fields), _compile(rhs, fields))
        case ast.BinaryExpr(op, lhs, rhs) if op in _COMPARISONS:
            return _compile_comparison(op, _plain(lhs), _plain(rhs), fields)
        case ast.InExpr(lhs, values, is_negated) if is_time(lhs):
            times = frozenset(v.value for v in values if isinstance(v, ast.IntegerLiteral))
            return TimeQuery().test(OneTime(times, is_negated))
        case ast.InExpr() | ast.LikeExpr():
            return _compile_choice(expr, fields)
    raise StatementError(f"invalid condition expression: {to_influxql(expr)}")


def _choice_of_tag(expr: ast.BinaryExpr, fields: Fields) -> Query | None:
    """Return `host = 'a' OR host = 'b' OR ...`, which dashboards ask, as one test of the tag.

    None when it is anything else.
    """
    name, texts = "", list[str]()
    for part in disjuncts(expr):
        match part:
            case ast.BinaryExpr("=", ast.VarRef(tag) as ref, ast.StringLiteral(text)) if (
                text and tag in {name, name or tag} and tag != "_name"
            ):
                if is_time(ref) or _is_field(ref, fields):
                    return None
                name = tag
                texts.append(text)
            case _:
                return None
    return TagQuery()[name].test(OneOf.of(texts))


def _and(left: Query, right: Query) -> Query:
    if left is _NOTHING or right is _NOTHING:
        return _NOTHING
    if left is _EVERYTHING:
        return right
    return left if right is _EVERYTHING else left & right


def _or(left: Query, right: Query) -> Query:
    if left is _EVERYTHING or right is _EVERYTHING:
        return _EVERYTHING
    if left is _NOTHING:
        return right
    return left if right is _NOTHING else left | right


def _plain(expr: ast.Expr) -> ast.Expr:
    while isinstance(expr, ast.ParenExpr):
        expr = expr.expr
    return expr


def _time_span(op: str, time_ns: int) -> TimeSpan:
    match op:
        case "<":
            return TimeSpan(MIN_TIME_NS, time_ns - 1)
        case "<=":
            return TimeSpan(MIN_TIME_NS, time_ns)
        case ">":
            return TimeSpan(time_ns + 1, MAX_TIME_NS)
        case ">=":
            return TimeSpan(time_ns, MAX_TIME_NS)
    return TimeSpan(time_ns, time_ns)


_LITERALS: Final = (
    ast.IntegerLiteral,
    ast.NumberLiteral,
    ast.StringLiteral,
    ast.BooleanLiteral,
    ast.RegexLiteral,
    ast.DurationLiteral,
)


def _compile_comparison(op: str, lhs: ast.Expr, rhs: ast.Expr, fields: Fields) -> Query:
    if isinstance(lhs, _LITERALS) and isinstance(rhs, ast.VarRef):
        op, lhs, rhs = _FLIPPED.get(op, op), rhs, lhs
    if not isinstance(lhs, ast.VarRef) or not isinstance(rhs, _LITERALS):
        return _compile_computed(ast.BinaryExpr(op, lhs, rhs), fields)
    value = rhs.pattern if isinstance(rhs, ast.RegexLiteral) else _literal_value(rhs)
    is_regex = isinstance(rhs, ast.RegexLiteral)
    if is_regex != (op in {"=~", "!~"}):
        return _NOTHING
    if lhs.name == "_name":
        return _compile_name(op, str(value))
    if _is_field(lhs, fields):
        return _compile_field(op, lhs.name, value)
    return _compile_tag(op, lhs.name, value)


def _is_field(ref: ast.VarRef, fields: Fields) -> bool:
    return ref.cast != "tag" and (ref.name in fields or ref.cast != "")


def _literal_value(expr: ast.Expr) -> float | int | str | bool:
    match expr:
        case ast.DurationLiteral(ns):
            return ns
        case (
            ast.IntegerLiteral(value)
            | ast.NumberLiteral(value)
            | ast.StringLiteral(value)
            | ast.BooleanLiteral(value)
        ):
            return value
    raise StatementError(f"invalid condition expression: {to_influxql(expr)}")


def _compile_name(op: str, text: str) -> Query:
    is_equal = op in {"=", "=~"}
    query = (
        MeasurementQuery() == text if op in {"=", "!="} else MeasurementQuery().test(Regex(text))
    )
    return query if is_equal else ~query


def _compile_field(op: str, name: str, value: float | int | str | bool) -> Query:
    target = TypedFieldQuery()[name]
    if op in {"=~", "!~"}:
        regex = Regex(str(value))
        return target.test(TextMatch(regex, is_negated=op == "!~"))
    if op == "=":
        return target == value
    if op == "!=":
        return target != value
    return _order(target, op, value)


def _order(target: BaseQuery, op: str, value: float | int | str | bool) -> Query:
    if isinstance(value, (str, bool)):
        return _NOTHING
    match op:
        case "<":
            return target < value
        case "<=":
            return target <= value
        case ">":
            return target > value
        case _:
            return target >= value


def _compile_tag(op: str, name: str, value: float | int | str | bool) -> Query:
    if not isinstance(value, str) or op in _ORDERINGS:
        return _NOTHING
    tag = TagQuery()[name]
    if op in {"=~", "!~"}:
        return _compile_tag_test(name, Regex(value), is_negated=op == "!~")
    matches = (tag == value) if value else _is_missing(name)
    return matches if op == "=" else ~matches


def _compile_tag_test(name: str, test: Callable[[object], bool], *, is_negated: bool) -> Query:
    matches: Query = TagQuery()[name].test(test)
    if test(""):
        matches = matches | _is_missing(name)
    return ~matches if is_negated else matches


def _is_missing(name: str) -> Query:
    return ~TagQuery()[name].test(bool)


# --- IN and LIKE ----------------------------------------------------------------------------------
def _compile_choice(expr: ast.InExpr | ast.LikeExpr, fields: Fields) -> Query:
    ref = _plain(expr.expr)
    if not isinstance(ref, ast.VarRef):
        return _compile_computed(expr, fields)
    if ref.name != "_name" and _is_field(ref, fields):
        return TypedFieldQuery()[ref.name].test(_field_choice(expr))
    test = _text_choice(expr)
    if test is None:
        return _NOTHING
    if ref.name != "_name":
        return _compile_tag_test(ref.name, test, is_negated=expr.is_negated)
    query = MeasurementQuery().test(test)
    return ~query if expr.is_negated else query


def _text_choice(expr: ast.InExpr | ast.LikeExpr) -> OneOf | Regex | None:
    """Return the test of a tag, NOT aside; None when there is no text to choose from."""
    if isinstance(expr, ast.LikeExpr):
        return like_regex(expr.pattern)
    chosen = _one_of(expr.values, is_negated=False)
    return chosen if chosen.texts else None


def _field_choice(expr: ast.InExpr | ast.LikeExpr) -> OneOf | TextMatch:
    """Return the test of a field value; what is of another type fails it, negated or not."""
    if isinstance(expr, ast.LikeExpr):
        return TextMatch(like_regex(expr.pattern), expr.is_negated)
    return _one_of(expr.values, is_negated=expr.is_negated)


@lru_cache(maxsize=64)  # a computed condition asks for every row
def _one_of(literals: tuple[ast.Expr, ...], *, is_negated: bool) -> OneOf:
    return OneOf.of(map(_literal_value, literals), is_negated=is_negated)


@dataclass(frozen=True, slots=True)
class TextMatch:
    """The test of a string field by a regex; other types fail it, negated or not."""

    regex: Regex
    is_negated: bool

    def __call__(self, value: object) -> bool:
        """Return whether a field value passes."""
        return isinstance(value, str) and self.regex(value) != self.is_negated


Computed: TypeAlias = ast.BinaryExpr | ast.InExpr | ast.LikeExpr


def _compile_computed(expr: Computed, fields: Fields) -> Query:
    """Compare what has to be computed for each row: two names, arithmetic, functions, constants."""
    names = sorted(_names(expr))
    if not names:
        return _EVERYTHING if evaluate(expr, {}) is True else _NOTHING
    if not any(name in fields for name in names):
        return TagQuery().map(TagCondition(expr)).test(bool)
    if any(name not in fields for name in names):
        return _NOTHING  # tags and fields together: influxd matches nothing
    return TypedFieldQuery().map(RowCondition(expr)).test(bool)


@dataclass(frozen=True, slots=True)
class RowCondition:
    """A comparison over the field set of one point."""

    expr: Computed

    def __call__(self, fields: Mapping[str, object]) -> bool:
        """Return whether the fields of a point pass."""
        return evaluate(self.expr, fields) is True


@dataclass(frozen=True, slots=True)
class TagCondition:
    """A comparison over the tag set of one point.

    A missing tag is the empty text, but where two are compared: it equals none, not even another
    missing one, and differs from all. So `host = "a"`, which means a tag a, finds nothing.
    """

    expr: Computed

    def __call__(self, tags: Mapping[str, str | None]) -> bool:
        """Return whether the tags of a point pass."""
        known = {name: tags.get(name) or "" for name in _names(self.expr)}
        match self.expr:
            case ast.BinaryExpr("=" | "!=" as op, ast.VarRef(left), ast.VarRef(right)):
                is_equal = known[left] == known[right] != ""
                return is_equal is (op == "=")
        return evaluate(self.expr, known) is True


def _names(expr: ast.Expr) -> set[str]:
    match expr:
        case ast.VarRef(name):
            return {name}
        case ast.ParenExpr(inner) | ast.InExpr(inner) | ast.LikeExpr(inner):
            return _names(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            return _names(lhs) | _names(rhs)
        case ast.Call(_, args):
            return set().union(*map(_names, args))
    return set()


def evaluate(expr: ast.Expr, fields: Mapping[str, object]) -> object:
    """Return the value of an expression for one row; None where a field is missing or misfits."""
    match expr:
        case ast.ParenExpr(inner):
            return evaluate(inner, fields)
        case ast.VarRef(name):
            return fields.get(name)
        case ast.RegexLiteral(pattern):
            return Regex(pattern)
        case ast.BinaryExpr(op, lhs, rhs):
            return _apply(op, evaluate(lhs, fields), evaluate(rhs, fields))
        case ast.Call(name, args):
            return _call(name, [evaluate(arg, fields) for arg in args])
        case ast.InExpr(inner) | ast.LikeExpr(inner):
            value = evaluate(inner, fields)
            return None if value is None else _field_choice(expr)(value)
    return _literal_value(expr)


def _call(name: str, args: list[object]) -> float | int | None:
    numbers = [arg for arg in args if isinstance(arg, (int, float)) and not isinstance(arg, bool)]
    if len(numbers) != len(args):
        return None
    if name in KEEPS_INTEGERS and isinstance(numbers[0], int):
        return abs(numbers[0]) if name == "abs" else numbers[0]
    arrays = [np.array([number], np.float64) for number in numbers]
    with np.errstate(all="ignore"):
        result = UNARY[name](*arrays) if name in UNARY else BINARY[name](*arrays)
    return float(result[0])


def _apply(op: str, left: object, right: object) -> object:
    if left is None or right is None:
        return None
    if isinstance(right, Regex):
        return isinstance(left, str) and right(left) == (op == "=~")
    if isinstance(left, (str, bool)) or isinstance(right, (str, bool)):
        if type(left) is not type(right) or op not in {"=", "!="}:
            return None
        return (left == right) == (op == "=")
    if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
        return None
    if op in _ORDERINGS:
        return _ORDERINGS[op](left, right)
    if op in {"=", "!="}:
        return (left == right) == (op == "=")
    return _arithmetic(op, left, right)


def _arithmetic(op: str, left: float, right: float) -> float | int | None:
    match op:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/" if isinstance(left, int) and isinstance(right, int):
            return int(left / right) if right else 0  # influxd: of integers, in conditions only
        case "/":
            return left / right if right else 0
        case "%":
            return left - right * int(left / right) if right else 0
    if isinstance(left, int) and isinstance(right, int):
        return {"&": left & right, "|": left | right, "^": left ^ right}.get(op)
    return None
