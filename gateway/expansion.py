"""Names of a SELECT against a schema: wildcards become columns, columns get their names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from gateway.errors import StatementError
from gateway.functions.registry import FUNCTIONS
from gateway.regexes import Regex
from grammar import ast
from tinyflux.batch import FieldType

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


# Where measurements of one query disagree on a type, influxd reads the first of these.
_TYPE_ORDER: Final = (
    FieldType.FLOAT,
    FieldType.INTEGER,
    FieldType.STRING,
    FieldType.BOOLEAN,
    FieldType.NONE,
)


@dataclass(frozen=True, slots=True)
class Schema:
    """The names of what a query reads: fields with their types, and tag keys."""

    fields: Mapping[str, FieldType]
    tags: frozenset[str]

    @staticmethod
    def union(schemas: Iterable[Schema]) -> Schema:
        """Return a schema that has everything of all of them."""
        fields: dict[str, FieldType] = {}
        tags: set[str] = set()
        for schema in schemas:
            for name, kind in schema.fields.items():
                known = fields.get(name, kind)
                fields[name] = min(known, kind, key=_TYPE_ORDER.index)
            tags |= schema.tags
        return Schema(fields, frozenset(tags))

    def is_field(self, ref: ast.VarRef) -> bool:
        """Return whether a reference reads a field; else it reads a tag, maybe a missing one."""
        return ref.cast != "tag" and ref.name in self.fields


def expand_dimensions(dimensions: Iterable[ast.Expr], schema: Schema) -> tuple[str, ...]:
    """Return the tag keys of GROUP BY, sorted, each once."""
    keys: set[str] = set()
    for dimension in dimensions:
        match dimension:
            case ast.VarRef(name):
                keys.add(name)
            case ast.Wildcard():
                keys |= schema.tags
            case ast.RegexLiteral(pattern):
                regex = Regex(pattern)
                keys |= {key for key in schema.tags if regex(key)}
    return tuple(sorted(keys))


def expand_fields(
    fields: Iterable[ast.Field], tag_dimensions: Sequence[ast.Expr], schema: Schema
) -> list[ast.Field]:
    """Return the fields of a statement with wildcards and regexes replaced by what they match.

    They match the tags that GROUP BY does not name, and none where it has a wildcard or regex
    itself. Source: measured on influxd 1.6.7.

    Raises:
        StatementError: A wildcard where none can stand.
    """
    expanded: list[ast.Field] = []
    names_tags = all(isinstance(dimension, ast.VarRef) for dimension in tag_dimensions)
    named = {dimension.name for dimension in tag_dimensions if isinstance(dimension, ast.VarRef)}
    columns = schema.tags - named if names_tags else frozenset[str]()
    for item in fields:
        match item.expr:
            case ast.Wildcard() | ast.RegexLiteral():
                names = _matching(item.expr, schema.fields, columns)
                expanded += [ast.Field(ast.VarRef(name, cast)) for name, cast in names]
            case ast.Call(name, args):
                expanded += _expand_call(item, schema)
                if name in {"top", "bottom"}:  # the tags it looks at become columns beside it
                    expanded += [ast.Field(arg) for arg in args[1:-1]]
            case _:
                _refuse_inner_wildcards(item.expr)
                expanded.append(replace(item, expr=_plain_distinct(item.expr)))
    return expanded


def _matching(
    expr: ast.Wildcard | ast.RegexLiteral, fields: Iterable[str], tags: Iterable[str]
) -> list[tuple[str, str]]:
    """Return the names, sorted, with the cast that tells a tag from a field of the same name."""
    kind = expr.kind if isinstance(expr, ast.Wildcard) else ""
    names = []
    if kind != "tag":
        names += [(name, "field") for name in fields]
    if kind != "field":
        names += [(name, "tag") for name in tags]
    if isinstance(expr, ast.RegexLiteral):
        regex = Regex(expr.pattern)
        names = [(name, cast) for name, cast in names if regex(name)]
    return sorted(names)


def _expand_call(item: ast.Field, schema: Schema) -> Iterator[ast.Field]:
    """Replace the wildcard in the innermost argument of nested calls by each field it matches."""
    assert isinstance(item.expr, ast.Call)
    chain = [item.expr]
    while chain[-1].args and isinstance(chain[-1].args[0], ast.Call):
        chain.append(chain[-1].args[0])
    target = chain[-1].args[0] if chain[-1].args else None
    if not isinstance(target, ast.Wildcard | ast.RegexLiteral):
        _refuse_inner_wildcards(item.expr)
        yield replace(item, expr=_plain_distinct(item.expr))
        return
    if isinstance(target, ast.Wildcard) and target.kind == "tag":
        raise StatementError(f"unable to use tag wildcard in {chain[-1].name}()")
    accepted = frozenset.intersection(*(FUNCTIONS[call.name].accepts for call in chain))
    for name, _ in _matching(target, schema.fields, ()):
        if schema.fields[name] not in accepted:
            continue
        expr: ast.Expr = ast.VarRef(name)
        for call in reversed(chain):
            expr = ast.Call(call.name, (expr, *call.args[1:]))
        alias = name if item.keeps_names else f"{item.alias or chain[0].name}_{name}"
        yield ast.Field(expr, alias)


def _refuse_inner_wildcards(expr: ast.Expr) -> None:
    match expr:
        case ast.ParenExpr(inner):
            _refuse_inner_wildcards(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            for side in (lhs, rhs):
                if isinstance(side, ast.Wildcard | ast.RegexLiteral):
                    raise StatementError("unable to use wildcard in a binary expression")
                _refuse_inner_wildcards(side)
        case ast.Call(name, args):
            for arg in args:
                if isinstance(arg, ast.Wildcard | ast.RegexLiteral):
                    raise StatementError(f"unsupported expression with wildcard: {name}()")
                _refuse_inner_wildcards(arg)


def _plain_distinct(expr: ast.Expr) -> ast.Expr:
    """Write `count(DISTINCT f)` as the function it means, `count_distinct` of the engine."""
    match expr:
        case ast.Call("count", (ast.Call("distinct", (ast.VarRef() as ref,)),)):
            return ast.Call("count_distinct", (ref,))
        case ast.Call(name, args):
            return ast.Call(name, tuple(map(_plain_distinct, args)))
        case ast.ParenExpr(inner):
            return ast.ParenExpr(_plain_distinct(inner))
        case ast.BinaryExpr(op, lhs, rhs):
            return ast.BinaryExpr(op, _plain_distinct(lhs), _plain_distinct(rhs))
    return expr


# --- names ----------------------------------------------------------------------------------------
def column_names(fields: Sequence[ast.Field]) -> list[str]:
    """Return the name of each column: its alias, else a unique name made from its expression."""
    used = {item.alias: 1 for item in fields if item.alias}
    names = []
    for item in fields:
        if item.alias:
            names.append(item.alias)
            continue
        name = expression_name(item.expr)
        unique, count = name, used.get(name, 0)
        while unique in used:
            unique = f"{name}_{count}"
            count += 1
        used[name] = max(count, 1)
        used.setdefault(unique, 1)
        names.append(unique)
    return names


def expression_name(expr: ast.Expr) -> str:
    """Return the name that a column of this expression gets without an alias."""
    return "_".join(_name_parts(expr))


def _name_parts(expr: ast.Expr) -> list[str]:
    match expr:
        case ast.VarRef(name):
            return [name]
        case ast.Call("count_distinct"):
            return ["count"]
        case ast.Call(name):
            return [name]
        case ast.ParenExpr(inner):
            return _name_parts(inner)
        case ast.BinaryExpr(_, lhs, rhs):
            return _name_parts(lhs) + _name_parts(rhs)
    return []
