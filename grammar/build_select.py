"""What the rules of influxql.lark for SELECT and for expressions make.

`RULES` maps a rule or alias to a function of the list of its children: what the rules below it
made, and `Token`s; names and strings come as str. A function may refuse what influxd refuses: it
raises `Refused`, and `grammar.parser` adds the place.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast
from zoneinfo import ZoneInfo

from grammar import ast
from grammar.durations import parse_calendar_duration
from grammar.refusals import Place, Refused, Unexpected
from grammar.regexes import check_regex
from grammar.words import always_quoted, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from grammar.lexer import Token

INT64_MAX = 2**63 - 1
UINT64_MAX = 2**64 - 1
_MAX_SEGMENTS = 50  # read before three are too many, so that the error can show them
_CHAIN = 64  # AND and OR chains above this become balanced trees, so that no tree is deep
_ARITHMETIC = frozenset("+-*/%&|^")
_ONLY_TIME = "only ORDER BY time supported at this time"
_IN_PATTERN = re.compile(r"\\(.?)", re.DOTALL)
_CASTS = ("float", "integer", "unsigned", "string", "boolean", "field", "tag")


# --- SELECT ---------------------------------------------------------------------------------------
_Filling = tuple[ast.Fill | None, int | float, int]  # how, the number, how far back in ns
_SortFields = tuple[ast.SortField, ...]
Order = tuple[bool, bool]  # an ORDER BY was written, it says DESC


def _select(
    fields: tuple[ast.Field, ...],
    target: ast.Measurement | None,
    sources: tuple[ast.Source, ...],
    condition: ast.Expr | None,
    dimensions: tuple[ast.Expr, ...],
    filling: _Filling,
    having: ast.Expr | None,
    sorting: _SortFields,
    limit: int,
    offset: int,
    slimit: int,
    soffset: int,
    timezone: str,
) -> ast.Select:
    sorting = _each_once(sorting)
    is_ordered = bool(sorting) and sorting[0].name == "time"
    return ast.Select(
        fields=fields,
        sources=sources,
        target=target,
        condition=condition,
        dimensions=dimensions,
        fill=filling[0],
        fill_value=filling[1],
        fill_age_ns=filling[2],
        is_ordered=is_ordered,
        descending=is_ordered and sorting[0].descending,
        limit=limit,
        offset=offset,
        slimit=slimit,
        soffset=soffset,
        timezone=timezone,
        having=having,
        sort_fields=() if is_ordered and len(sorting) == 1 else sorting,
    )


def _explain(mode: frozenset[str], select: ast.Select) -> ast.Explain:
    return ast.Explain(select, analyze="ANALYZE" in mode, verbose="VERBOSE" in mode)


def _explain_mode(*words: Token) -> frozenset[str]:
    return frozenset(word.type for word in words)


def _field(expr: ast.Expr, alias: str | Token) -> ast.Field:
    # influxd names the last of several wrong operators, and the outer one of two nested ones.
    for node in walk(expr):
        if _is_calendar(node):
            raise Refused("invalid duration")
        if isinstance(node, ast.BinaryExpr) and node.op not in _ARITHMETIC:
            raise Refused(
                f"invalid operator {node.op} in SELECT clause",
                Place.FIELD,
                "; operator is intended for WHERE clause",
            )
    if isinstance(alias, str):
        return ast.Field(expr, alias)
    if not isinstance(expr, ast.Call) or not any(map(_is_wildcard, walk(expr))):
        raise Unexpected("identifier", Place.LAST)
    return ast.Field(expr, keeps_names=True)


def _is_wildcard(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.Wildcard | ast.RegexLiteral)


def walk(expr: ast.Expr) -> Iterator[ast.Expr]:
    """Yield an expression and everything in it, from right to left, a node before its parts."""
    todo = [expr]
    while todo:
        node = todo.pop()
        yield node
        if isinstance(node, ast.BinaryExpr):
            todo += (node.lhs, node.rhs)
        elif isinstance(node, ast.Call):
            todo += node.args
        elif isinstance(node, ast.ParenExpr):
            todo.append(node.expr)


_Segments = tuple[str, ...]  # the names between the dots, "" between two dots


def _segments(name: str) -> _Segments:
    return (name,)


def _more_segments(segments: _Segments, n_dots: int, name: str) -> _Segments:
    if len(segments) > _MAX_SEGMENTS:
        _checked(segments)
    return (*segments, *[""] * (n_dots - 1), name)


def _checked(segments: _Segments) -> _Segments:
    if len(segments) > 3:
        *first, last = segments
        text = ".".join([*(always_quoted(name) if name else "" for name in first), quoted(last)])
        raise Refused(f"too many segments in {text}", Place.START)
    return segments


def _measurement(segments: _Segments) -> ast.Measurement:
    database, policy, name = ("", "", *_checked(segments))[-3:]
    return ast.Measurement(name, policy, database)


def _regex_measurement(regex: ast.RegexLiteral) -> ast.Measurement:
    return ast.Measurement(regex=regex)


def _prefixed_regex_measurement(
    segments: _Segments, n_dots: int, regex: ast.RegexLiteral
) -> ast.Measurement:
    return replace(_measurement(_more_segments(segments, n_dots, "")), regex=regex)


def _target_name(segments: _Segments, n_dots: int) -> ast.Measurement:
    return replace(_measurement(_more_segments(segments, n_dots, "")), is_target_name=True)


def _fill(arguments: tuple[ast.Expr, ...] | None = None) -> _Filling:
    match arguments:
        case None | (ast.VarRef("null", ""),):
            return None, 0, 0
        case (ast.VarRef("none" | "previous" | "linear" as name, ""),):
            return ast.Fill(name), 0, 0
        case (ast.IntegerLiteral(value) | ast.NumberLiteral(value),):
            return ast.Fill.NUMBER, value, 0
        case (_,):
            raise Refused("expected number argument in fill()")
        case (ast.VarRef("previous", ""), ast.DurationLiteral(age_ns)) if age_ns > 0:
            return ast.Fill.PREVIOUS, 0, age_ns
        case (ast.VarRef("previous", ""), _):
            raise Refused("fill(previous, ..) takes how old a value may be, e.g.: 1h or 30d")
    raise Refused("fill requires an argument, e.g.: 0, null, none, previous, linear")


def _timezone(arguments: tuple[ast.Expr, ...] | None = None) -> str:
    if arguments is None:
        return ""
    if len(arguments) != 1:
        raise Refused("tz requires exactly one argument")
    match arguments[0]:
        case ast.StringLiteral(name):
            return _zone(name or "UTC")
    raise Refused("expected string argument in tz()")


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        raise Refused(f"unable to find time zone {name}") from None
    return name


def _sort_field(key: str | ast.Call, direction: Token | None = None) -> ast.SortField:
    descending = direction is not None and direction.type == "DESC"
    return _by_name(key, descending) if isinstance(key, str) else ast.SortField("", descending, key)


def _by_name(name: str, descending: bool) -> ast.SortField:
    if name.lower() == "time" and name != "time":
        raise Refused(_ONLY_TIME)
    return ast.SortField(name, descending)


def _each_once(fields: _SortFields) -> _SortFields:
    """Return keys without those that come again, which sort nothing."""
    first: dict[str | ast.Call, ast.SortField] = {}
    for field in fields:
        first.setdefault(field.call or field.name, field)
    return tuple(first.values())


def _order_by(*fields: ast.SortField) -> Order:
    """Return the order of a SHOW."""
    if not fields:
        return False, False
    if len(fields) > 1:
        raise Refused(_ONLY_TIME)
    return True, fields[0].descending


def _time_field(name: str, direction: Token | None = None) -> ast.SortField:
    if name != "time":
        raise Refused(_ONLY_TIME)
    return _sort_field(name, direction)


def _limit(word: Token | None = None, number: Token | None = None) -> int:
    if word is None or number is None:
        return 0
    value = int_of(number)
    if value < 0:
        raise Refused(f"{word.type} must be >= 0", Place.LAST)
    return min(value, INT64_MAX)


# --- expressions ----------------------------------------------------------------------------------
def _chain(op: str, terms: Sequence[ast.Expr]) -> ast.Expr:
    """Return the tree of `term op term ...`, from left to right, or balanced where it is long."""
    if len(terms) > _CHAIN:
        middle = len(terms) // 2
        return ast.BinaryExpr(op, _chain(op, terms[:middle]), _chain(op, terms[middle:]))
    expr, *others = terms
    for other in others:
        expr = ast.BinaryExpr(op, expr, other)
    return expr


def _operators(items: Sequence[ast.Expr | Token]) -> ast.Expr:
    """Return the tree of `operand op operand op ...`, from left to right."""
    expr, *operands = cast("Sequence[ast.Expr]", items[::2])
    for op, operand in zip(cast("Sequence[Token]", items[1::2]), operands, strict=True):
        is_shift = op.type in ("ADD", "SUB")
        if _is_calendar(expr) or (_is_calendar(operand) and not is_shift):
            raise Refused("invalid duration")
        expr = ast.BinaryExpr(op.value, expr, operand)
    return expr


def _is_calendar(expr: ast.Expr) -> bool:
    return isinstance(expr, ast.CalendarDuration)


def _not_expr(_word: Token, expr: ast.Expr) -> ast.NotExpr:
    return ast.NotExpr(expr)


def _in_expr(expr: ast.Expr, word: Token, *others: Token | ast.Expr) -> ast.InExpr:
    is_negated = word.type == "NOT"
    values = cast("Sequence[ast.Expr]", others[is_negated:])
    if any(map(_is_calendar, values)):
        raise Refused("invalid duration")
    return ast.InExpr(expr, tuple(values), is_negated)


def _like_expr(expr: ast.Expr, word: Token, *others: Token | str) -> ast.LikeExpr:
    pattern = cast("str", others[-1])
    return ast.LikeExpr(expr, _IN_PATTERN.sub(_needed_escape, pattern), word.type == "NOT")


def _needed_escape(match: re.Match[str]) -> str:
    """Return an escape of a LIKE pattern as it is in the tree; a bound value may have others."""
    escaped = match[1] or "\\"
    return f"\\{escaped}" if escaped in "%_\\" else escaped


def _product(items: Sequence[ast.Expr | Token]) -> ast.Expr:
    # A sign binds closer than the operator before it: `a / -b` is a / (-1 * b), and prints so.
    # Differs from influxd: it prints `a / -1 * b`, which reads as something else.
    first, *others = items
    return _operators(
        [first, *(ast.ParenExpr(x) if isinstance(x, ast.BinaryExpr) else x for x in others)]
    )


def _signed(sign: Token, operand: ast.Expr) -> ast.Expr:
    is_minus = sign.type == "SUB"
    match operand:
        case ast.IntegerLiteral(value):
            if is_minus and value > INT64_MAX + 1:
                raise Refused(f"constant -{value} underflows int64")
            return ast.IntegerLiteral(-value) if is_minus else operand
        case ast.NumberLiteral(value):
            return ast.NumberLiteral(-value) if is_minus else operand
        case ast.DurationLiteral(ns):
            return ast.DurationLiteral(-ns) if is_minus else operand
        case ast.CalendarDuration(months, ns):
            return ast.CalendarDuration(-months, -ns) if is_minus else operand
    return ast.BinaryExpr("*", ast.IntegerLiteral(-1 if is_minus else 1), operand)


def _var_ref(segments: _Segments, cast: str | Token = "") -> ast.VarRef:
    kind = (cast if isinstance(cast, str) else cast.value).lower()
    if kind and kind not in _CASTS:
        raise Unexpected(", ".join(_CASTS))
    return ast.VarRef(".".join(_checked(segments)), kind)


def _call(name: Token, arguments: tuple[ast.Expr, ...]) -> ast.Call:
    return ast.Call(name.value.lower(), arguments)


def _wildcard(_star: Token, kind: Token | None = None) -> ast.Wildcard:
    return ast.Wildcard(kind.value.lower() if kind else "")


def _boolean(word: Token) -> ast.BooleanLiteral:
    return ast.BooleanLiteral(word.type == "TRUE")


def _number(number: Token) -> ast.NumberLiteral:
    return ast.NumberLiteral(float(number.value))


def _integer(number: Token) -> ast.IntegerLiteral:
    value = int_of(number)
    if value > UINT64_MAX:
        raise Refused("unable to parse integer", Place.LAST)
    return ast.IntegerLiteral(value)


def int_of(number: Token) -> int:
    """Return the value of an INTEGER; what is far above uint64 is all the same to InfluxQL."""
    return int(number.value) if len(number.value) <= 20 else 10**20


def _duration(number: Token) -> ast.DurationLiteral | ast.CalendarDuration:
    try:
        months, ns = parse_calendar_duration(number.value)
    except ValueError as exc:
        raise Refused(str(exc)) from None
    return ast.CalendarDuration(months, ns) if months else ast.DurationLiteral(ns)


def _regex(pattern: Token) -> ast.RegexLiteral:
    try:
        check_regex(pattern.value)
    except ValueError as exc:
        raise Refused(str(exc), Place.LAST) from None
    return ast.RegexLiteral(pattern.value)


# --- the table ------------------------------------------------------------------------------------
def spread(function: Callable[..., object]) -> Callable[[list[object]], object]:
    """Return a function of a list from one of as many arguments."""
    return lambda children: function(*children)


def only(children: list[object]) -> object:
    """Return the one child, None without."""
    return children[0] if children else None


def last(children: list[object]) -> object:
    """Return the last child, None without."""
    return children[-1] if children else None


def text(children: list[str]) -> str:
    """Return the one child, "" without."""
    return children[0] if children else ""


_FROM_ARGUMENTS: dict[str, Callable[..., object]] = {
    "select": _select,
    "explain": _explain,
    "explain_mode": _explain_mode,
    "field": _field,
    "segments": _segments,
    "more_segments": _more_segments,
    "measurement": _measurement,
    "regex_measurement": _regex_measurement,
    "prefixed_regex_measurement": _prefixed_regex_measurement,
    "target": _measurement,
    "target_name": _target_name,
    "subquery": ast.SubQuery,
    "named_source": ast.NamedSource,
    "fill": _fill,
    "timezone": _timezone,
    "order_by": _order_by,
    "sort_field": _sort_field,
    "sort_direction": partial(_sort_field, "time"),
    "time_field": _time_field,
    "limit": _limit,
    "offset": _limit,
    "slimit": _limit,
    "soffset": _limit,
    "not_expr": _not_expr,
    "in_expr": _in_expr,
    "like_expr": _like_expr,
    "signed": _signed,
    "paren": ast.ParenExpr,
    "wildcard": _wildcard,
    "distinct": ast.Distinct,
    "var_ref": _var_ref,
    "call": _call,
    "string": ast.StringLiteral,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "duration": _duration,
    "regex": _regex,
}

RULES: dict[str, Callable[..., object]] = {
    **{name: spread(function) for name, function in _FROM_ARGUMENTS.items()},
    "fields": tuple,
    "alias": text,
    "into": only,
    "from": tuple,
    "dots": len,
    "where": only,
    "having": last,
    "sorting": tuple,
    "group_by": tuple,
    "arguments": tuple,
    "disjunction": partial(_chain, "OR"),
    "conjunction": partial(_chain, "AND"),
    "comparison": _operators,
    "sum": _operators,
    "product": _product,
}
