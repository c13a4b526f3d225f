"""The type of an expression before any data is read, and operators that do not fit their types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from gateway.functions.registry import FUNCTIONS, INTERNAL, Kind
from grammar import ast
from grammar.printer import to_influxql
from tinyflux.batch import FieldType

if TYPE_CHECKING:
    from gateway.expansion import Schema

_F, _I, _S, _B, _NONE = (
    FieldType.FLOAT,
    FieldType.INTEGER,
    FieldType.STRING,
    FieldType.BOOLEAN,
    FieldType.NONE,
)
_BITWISE: Final = frozenset(["&", "|", "^"])
_WORDS: Final = {_F: "float", _I: "integer", _S: "string", _B: "boolean"}
CASTS: Final[dict[str, FieldType]] = {"float": _F, "integer": _I, "string": _S, "boolean": _B}


def type_of(expr: ast.Expr, schema: Schema) -> FieldType:
    """Return the type of an expression; NONE where it never has a value, STRING for a tag.

    Raises:
        StatementError: An operator or a function over a type that it does not take.
    """
    match expr:
        case ast.ParenExpr(inner):
            return type_of(inner, schema)
        case ast.IntegerLiteral():
            return _I
        case ast.NumberLiteral():
            return _F
        case ast.StringLiteral():
            return _S
        case ast.BooleanLiteral():
            return _B
        case ast.VarRef() as ref:
            if schema.is_field(ref):
                return cast_type(ref, schema.fields[ref.name])
            return _S if ref.name in schema.tags else _NONE
        case ast.Call():
            return _type_of_call(expr, schema)
        case ast.BinaryExpr():
            return _type_of_operation(expr, schema)
    return _NONE


def cast_type(ref: ast.VarRef, stored: FieldType) -> FieldType:
    """Return the type that a reference reads: numbers convert, other casts give NONE."""
    wanted = CASTS.get(ref.cast, stored)
    return wanted if wanted is stored or {wanted, stored} == {_F, _I} else _NONE


def _type_of_call(call: ast.Call, schema: Schema) -> FieldType:
    function = FUNCTIONS.get(call.name) or INTERNAL[call.name]
    target = call.args[0]
    given = type_of(target, schema)
    is_tag = isinstance(target, ast.VarRef) and not schema.is_field(target)
    if given is _NONE or is_tag:
        return _NONE
    if given not in function.accepts:
        if function.kind is Kind.MATH:
            return _NONE
        # influxd: derivatives share a reducer, and its names have blanks.
        name = call.name.removeprefix("non_negative_").replace("_", " ")
        raise StatementError(
            f"unsupported {name} iterator type: *query.{_WORDS[given]}InterruptIterator"
        )
    return function.output or given


def result_type(call: ast.Call, schema: Schema) -> FieldType:
    """Return the type of an aggregate or selector; NONE where only a field it lacks could say."""
    function = FUNCTIONS.get(call.name) or INTERNAL[call.name]
    target = call.args[0]
    if isinstance(target, ast.VarRef) and target.cast in CASTS:
        return function.output or CASTS[target.cast]
    return function.output or type_of(target, schema)


def _type_of_operation(expr: ast.BinaryExpr, schema: Schema) -> FieldType:
    left, right = type_of(expr.lhs, schema), type_of(expr.rhs, schema)
    kinds = {left, right}
    if _NONE in kinds:
        return _NONE
    if kinds == {_I} and (_is_unsigned(expr.lhs) or _is_unsigned(expr.rhs)):
        raise StatementError(
            f"type error: {_shown(expr, schema)}: cannot use {expr.op} with an integer and "
            "unsigned literal"
        )
    if expr.op in _BITWISE:
        if kinds in ({_I}, {_B}):
            return left
    elif kinds <= {_F, _I}:
        return _I if kinds == {_I} and expr.op != "/" else _F
    raise StatementError(
        f"type error: {_shown(expr, schema)}: incompatible types: "
        f"{_word(expr.lhs, left, schema)} and {_word(expr.rhs, right, schema)}"
    )


def _is_unsigned(expr: ast.Expr) -> bool:
    """Return whether an expression is a whole number too large for an integer."""
    while isinstance(expr, ast.ParenExpr):
        expr = expr.expr
    return isinstance(expr, ast.IntegerLiteral) and expr.value >= 2**63


def _word(expr: ast.Expr, kind: FieldType, schema: Schema) -> str:
    if _is_unsigned(expr):
        return "unsigned"
    is_tag = isinstance(expr, ast.VarRef) and not schema.is_field(expr)
    return "tag" if is_tag else _WORDS[kind]


def _shown(expr: ast.Expr, schema: Schema) -> str:
    """Return the text of an expression in which each name carries its type, as influxd does."""
    match expr:
        case ast.VarRef() as ref:
            kind = _WORDS.get(type_of(ref, schema), "") if schema.is_field(ref) else "tag"
            return f"{to_influxql(ast.VarRef(ref.name))}::{kind}"
        case ast.BinaryExpr(op, lhs, rhs):
            return f"{_shown(lhs, schema)} {op} {_shown(rhs, schema)}"
        case ast.ParenExpr(inner):
            return f"({_shown(inner, schema)})"
        case ast.Call(name, args):
            return f"{name}({', '.join(_shown(arg, schema) for arg in args)})"
    return to_influxql(expr)
