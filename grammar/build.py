"""What each rule of influxql.lark makes: `RULES` maps a rule or alias to a function of its children.

Children are what the rules below made, and `Token`s; names and strings come as str. A function may refuse what the
grammar takes and influxd does not: it raises `Refused`, and `grammar.parser` adds the place.
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from functools import partial
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from grammar import ast
from grammar.durations import format_duration, parse_duration
from grammar.regexes import check_regex
from grammar.words import always_quoted, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from grammar.lexer import Token

_INT64_MAX = 2**63 - 1
_UINT64_MAX = 2**64 - 1
_CHAIN = 64  # AND and OR chains above this become balanced trees, so that no tree is deep
_ARITHMETIC = frozenset("+-*/%&|^")
_CASTS = ("float", "integer", "unsigned", "string", "boolean", "field", "tag")


class Place(Enum):
    """Where influxd says an error is."""

    NOWHERE = "no place"
    START = "line 1, char 1"
    LAST = "the last token that was taken"
    NEXT = "the token behind it"
    FIELD = "the first token of the field"


class Refused(Exception):  # noqa: N818 - it never leaves the package
    """A clause that the grammar takes and influxd does not.

    Attributes:
        message: influxd's text.
        place: Where; a str means the last token of that type.
        tail: What follows the place in influxd's text.
    """

    def __init__(self, message: str, place: Place | str = Place.NOWHERE, tail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.tail = tail


class Unexpected(Refused):
    """A token that is the wrong one: the message is what was expected in its place."""

    def __init__(self, words: str, place: Place = Place.LAST) -> None:
        super().__init__(words, place)


# --- SELECT ---------------------------------------------------------------------------------------
_Filling = tuple[ast.Fill | None, int | float]
_Order = tuple[bool, bool]  # an ORDER BY was written, it says DESC


def _select(
    fields: tuple[ast.Field, ...],
    target: ast.Measurement | None,
    sources: tuple[ast.Source, ...],
    condition: ast.Expr | None,
    dimensions: tuple[ast.Expr, ...],
    filling: _Filling,
    order: _Order,
    limit: int,
    offset: int,
    slimit: int,
    soffset: int,
    timezone: str,
) -> ast.Select:
    return ast.Select(
        fields=fields,
        sources=sources,
        target=target,
        condition=condition,
        dimensions=dimensions,
        fill=filling[0],
        fill_value=filling[1],
        is_ordered=order[0],
        descending=order[1],
        limit=limit,
        offset=offset,
        slimit=slimit,
        soffset=soffset,
        timezone=timezone,
    )


def _explain(mode: frozenset[str], select: ast.Select) -> ast.Explain:
    return ast.Explain(select, analyze="ANALYZE" in mode, verbose="VERBOSE" in mode)


def _explain_mode(*words: Token) -> frozenset[str]:
    return frozenset(word.type for word in words)


def _field(expr: ast.Expr, alias: str) -> ast.Field:
    # influxd names the last of several wrong operators, and of two where one is inside the other the outer one.
    for node in _walk(expr):
        if isinstance(node, ast.BinaryExpr) and node.op not in _ARITHMETIC:
            raise Refused(
                f"invalid operator {node.op} in SELECT clause",
                Place.FIELD,
                "; operator is intended for WHERE clause",
            )
    return ast.Field(expr, alias)


def _walk(expr: ast.Expr) -> Iterator[ast.Expr]:
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


def _segments(*parts: Any) -> _Segments:
    if len(parts) == 1:
        return (parts[0],)
    segments, n_dots, name = parts
    return (*segments, *[""] * (n_dots - 1), name)


def _checked(segments: _Segments) -> _Segments:
    if len(segments) > 3:
        *first, last = segments
        text = ".".join([*(always_quoted(name) if name else "" for name in first), quoted(last)])
        raise Refused(f"too many segments in {text}", Place.START)
    return segments


def _measurement(segments: _Segments) -> ast.Measurement:
    *prefix, name = _checked(segments)
    return ast.Measurement(name, *reversed(prefix))


def _regex_measurement(*parts: Any) -> ast.Measurement:
    *prefix, regex = parts
    return replace(_nameless(*prefix), regex=regex)


def _target_name(segments: _Segments, n_dots: int) -> ast.Measurement:
    return replace(_nameless(segments, n_dots), is_target_name=True)


def _nameless(segments: _Segments = (), n_dots: int = 0) -> ast.Measurement:
    """Return what stands before a regex or `:MEASUREMENT`, with its dots, as a measurement without a name."""
    return _measurement(_segments(segments, n_dots, "") if segments else ("",))


def _fill(arguments: tuple[ast.Expr, ...] | None = None) -> _Filling:
    if arguments is None:
        return None, 0
    if len(arguments) != 1:
        raise Refused("fill requires an argument, e.g.: 0, null, none, previous, linear")
    match arguments[0]:
        case ast.VarRef("null", ""):
            return None, 0
        case ast.VarRef("none" | "previous" | "linear" as name, ""):
            return ast.Fill(name), 0
        case ast.IntegerLiteral(value) | ast.NumberLiteral(value):
            return ast.Fill.NUMBER, value
    raise Refused("expected number argument in fill()")


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


def _order_by(*fields: tuple[str, bool]) -> _Order:
    if not fields:
        return False, False
    if len(fields) > 1:
        raise Refused("only ORDER BY time supported at this time")
    return True, fields[0][1]


def _sort_field(name: str, direction: Token | None = None) -> tuple[str, bool]:
    if name != "time":
        raise Refused("only ORDER BY time supported at this time")
    return name, direction is not None and direction.type == "DESC"


def _limit(word: Token | None = None, number: Token | None = None) -> int:
    if word is None or number is None:
        return 0
    value = _int(number)
    if value < 0:
        raise Refused(f"{word.type} must be >= 0", Place.LAST)
    return min(value, _INT64_MAX)


# --- expressions ----------------------------------------------------------------------------------
def _chain(op: str, terms: Sequence[ast.Expr]) -> ast.Expr:
    """Return `term op term op ...`, as written from left to right, or balanced where that tree would be deep."""
    if len(terms) > _CHAIN:
        middle = len(terms) // 2
        return ast.BinaryExpr(op, _chain(op, terms[:middle]), _chain(op, terms[middle:]))
    expr, *others = terms
    for other in others:
        expr = ast.BinaryExpr(op, expr, other)
    return expr


def _operators(items: Sequence[ast.Expr | Token]) -> ast.Expr:
    expr, *others = items
    for op, operand in zip(others[::2], others[1::2], strict=True):
        expr = ast.BinaryExpr(op.value, expr, operand)
    return expr


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
            if is_minus and value > _INT64_MAX + 1:
                raise Refused(f"constant -{value} underflows int64")
            return ast.IntegerLiteral(-value) if is_minus else operand
        case ast.NumberLiteral(value):
            return ast.NumberLiteral(-value) if is_minus else operand
        case ast.DurationLiteral(ns):
            return ast.DurationLiteral(-ns) if is_minus else operand
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
    value = _int(number)
    if value > _UINT64_MAX:
        raise Refused("unable to parse integer", Place.LAST)
    return ast.IntegerLiteral(value)


def _int(number: Token) -> int:
    """Return the value of an INTEGER; everything far above uint64 is the same to InfluxQL."""
    return int(number.value) if len(number.value) <= 20 else 10**20


def _duration(number: Token) -> ast.DurationLiteral:
    try:
        return ast.DurationLiteral(parse_duration(number.value))
    except ValueError as exc:
        raise Refused(str(exc)) from None


def _regex(pattern: Token) -> ast.RegexLiteral:
    try:
        check_regex(pattern.value)
    except ValueError as exc:
        raise Refused(str(exc), Place.LAST) from None
    return ast.RegexLiteral(pattern.value)


# --- databases and retention policies -------------------------------------------------------------
_Option = tuple[str, int | str | bool]  # a field of PolicyOptions, or "policy"
_OPTION_WORDS = {
    "duration_ns": "DURATION",
    "replication": "REPLICATION",
    "shard_duration_ns": "SHARD",
    "future_limit_ns": "FUTURE",
    "past_limit_ns": "PAST",
    "is_default": "DEFAULT",
}


def _option(name: str, _word: Token, value: int | bool | str = True) -> _Option:
    return name, value


def _span(number: Token) -> int:
    if number.type == "INF":
        return 0
    try:
        return parse_duration(number.value)
    except ValueError as exc:
        raise Refused(str(exc), Place.LAST) from None


def _replication_option(_word: Token, number: Token) -> _Option:
    value = _int(number)
    if value > _INT64_MAX:
        raise Refused(f'strconv.Atoi: parsing "{number.value}": value out of range', Place.LAST)
    if not 1 <= value <= 2**31 - 1:
        raise Refused(f"invalid value {value}: must be 1 <= n <= 2147483647", Place.LAST)
    return "replication", value


def _policy_options(options: Sequence[_Option]) -> ast.PolicyOptions:
    given: dict[str, Any] = {}
    for name, value in options:
        if name in given:
            word = _OPTION_WORDS[name]
            raise Refused(f"found duplicate {word} option", word)
        given[name] = value
    return ast.PolicyOptions(**given)


def _create_database(name: str, *options: _Option) -> ast.CreateDatabase:
    if not options:
        return ast.CreateDatabase(name)
    *others, (last, value) = options
    if last != "policy":
        return ast.CreateDatabase(name, _policy_options(options))
    return ast.CreateDatabase(name, _policy_options(others), str(value))


def _create_retention_policy(
    name: str, database: str, *options: _Option
) -> ast.CreateRetentionPolicy:
    return ast.CreateRetentionPolicy(name, database, _policy_options(options))


# --- deletes --------------------------------------------------------------------------------------
def _victims(*sources: ast.Measurement) -> tuple[ast.Measurement, ...]:
    for source in sources:
        if source.retention_policy:
            raise Refused("retention policy not supported", Place.START)
        if source.database:
            raise Refused("database not supported", Place.START)
    return sources


def _id(number: Token) -> int:
    value = _int(number)
    if value > _UINT64_MAX:
        raise Refused(
            f'strconv.ParseUint: parsing "{number.value}": value out of range', Place.LAST
        )
    return value


def _drop_shard(number: Token) -> ast.DropShard:
    return ast.DropShard(_id(number))


def _kill_query(number: Token, host: str = "") -> ast.KillQuery:
    return ast.KillQuery(_id(number), host)


# --- users ----------------------------------------------------------------------------------------
def _create_user(name: str, password: str, privileges: Token | None = None) -> ast.CreateUser:
    return ast.CreateUser(name, password, is_admin=privileges is not None)


def _privilege(word: Token) -> ast.Privilege:
    return {"READ": ast.Privilege.READ, "WRITE": ast.Privilege.WRITE}.get(
        word.type, ast.Privilege.ALL
    )


def _grant(privilege: ast.Privilege, database: str, user: str) -> ast.Grant:
    return ast.Grant(privilege, user, database)


def _revoke(privilege: ast.Privilege, database: str, user: str) -> ast.Revoke:
    return ast.Revoke(privilege, user, database)


# --- continuous queries and subscriptions ---------------------------------------------------------
def _create_continuous_query(
    name: str, database: str, resample: tuple[int, int], select: ast.Select
) -> ast.CreateContinuousQuery:
    every_ns, for_ns = resample
    least_ns = max(every_ns, _group_by_interval(select))
    if for_ns and for_ns < least_ns:
        raise Refused(
            "FOR duration must be >= GROUP BY time duration: must be a minimum of "
            f"{format_duration(least_ns)}, got {format_duration(for_ns)}"
        )
    return ast.CreateContinuousQuery(name, database, select, every_ns, for_ns)


def _continuous_select(*clauses: Any) -> ast.Select:
    select = _select(*clauses)
    has_calls = any(
        isinstance(node, ast.Call) for field in select.fields for node in _walk(field.expr)
    )
    if has_calls and not _group_by_interval(select):
        raise Unexpected("GROUP BY time(...)")
    return select


def _group_by_interval(select: ast.Select) -> int:
    for dimension in select.dimensions:
        if not isinstance(dimension, ast.Call) or dimension.name != "time":
            continue
        if len(dimension.args) not in (1, 2):
            raise Unexpected("GROUP BY time(...), time dimension expected 1 or 2 arguments")
        interval = dimension.args[0]
        if not isinstance(interval, ast.DurationLiteral):
            raise Unexpected("GROUP BY time(...), time dimension must have duration argument")
        return interval.ns
    return 0


def _resample(every_ns: int | None = None, for_ns: int | None = None) -> tuple[int, int]:
    if every_ns == 0 or for_ns == 0:
        raise Unexpected("EVERY, FOR", Place.NEXT)
    return every_ns or 0, for_ns or 0


def _create_subscription(
    name: str, database: str, policy: str, mode: Token, *destinations: str
) -> ast.CreateSubscription:
    return ast.CreateSubscription(name, database, policy, mode.type, destinations)


# --- SHOW -----------------------------------------------------------------------------------------
_Names = tuple[ast.Measurement, ...]


def _on_policy(database: str | Token = "", policy: str | Token = "") -> tuple[str, str]:
    return (
        database if isinstance(database, str) else "*",
        policy if isinstance(policy, str) else "*",
    )


def _with_measurement(source: ast.Measurement | None = None) -> ast.NameFilter | None:
    # influxd looks at what stands there, not at the operator, and only at the last part of a name.
    if source is None:
        return None
    if source.regex is not None:
        return ast.NameFilter("=~", regex=source.regex)
    return ast.NameFilter("=", (source.name,))


def _key_filter(op: Token, *names: str | ast.RegexLiteral) -> ast.NameFilter:
    if isinstance(names[0], ast.RegexLiteral):
        return ast.NameFilter(op.value, regex=names[0])
    return ast.NameFilter(op.value, tuple(map(str, names)))


def _show_measurements(
    on: tuple[str, str],
    measurement: ast.NameFilter | None,
    condition: ast.Expr | None,
    _order: _Order,
    limit: int,
    offset: int,
) -> ast.ShowMeasurements:
    return ast.ShowMeasurements(*on, measurement, condition, limit, offset)


def _show_tag_keys(
    database: str,
    sources: _Names,
    key: ast.NameFilter | None,
    condition: ast.Expr | None,
    _order: _Order,
    *limits: int,
) -> ast.ShowTagKeys:
    return ast.ShowTagKeys(database, sources, key, condition, *limits)


def _show_tag_values(
    database: str,
    sources: _Names,
    key: ast.NameFilter,
    condition: ast.Expr | None,
    order: _Order,
    limit: int,
    offset: int,
) -> ast.ShowTagValues:
    is_ordered, descending = order
    return ast.ShowTagValues(
        key, database, sources, condition, descending, is_ordered, limit, offset
    )


def _show_field_keys(
    database: str, sources: _Names, _order: _Order, limit: int, offset: int
) -> ast.ShowFieldKeys:
    return ast.ShowFieldKeys(database, sources, limit, offset)


def _show_series(
    database: str,
    sources: _Names,
    condition: ast.Expr | None,
    order: _Order,
    limit: int,
    offset: int,
) -> ast.ShowSeries:
    is_ordered, descending = order
    return ast.ShowSeries(database, sources, condition, descending, is_ordered, limit, offset)


def _show_cardinality(what: ast.Countable, children: Sequence[Any]) -> ast.ShowCardinality:
    *exact, database, sources, key, condition, dimensions, limit, offset = children
    return ast.ShowCardinality(
        what, bool(exact), database, sources, key, condition, dimensions, limit, offset
    )


# --- the table ------------------------------------------------------------------------------------
_Children = list[Any]


def _spread(function: Callable[..., object]) -> Callable[[_Children], object]:
    return lambda children: function(*children)


def _only(children: _Children) -> object:
    return children[0] if children else None


def _text(children: _Children) -> object:
    return children[0] if children else ""


_FROM_ARGUMENTS: dict[str, Callable[..., object]] = {
    "select": _select,
    "explain": _explain,
    "explain_mode": _explain_mode,
    "field": _field,
    "segments": _segments,
    "measurement": _measurement,
    "regex_measurement": _regex_measurement,
    "target": _measurement,
    "target_name": _target_name,
    "subquery": ast.SubQuery,
    "fill": _fill,
    "timezone": _timezone,
    "order_by": _order_by,
    "sort_field": _sort_field,
    "sort_direction": partial(_sort_field, "time"),
    "limit": _limit,
    "offset": _limit,
    "slimit": _limit,
    "soffset": _limit,
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
    "create_database": _create_database,
    "drop_database": ast.DropDatabase,
    "create_retention_policy": _create_retention_policy,
    "alter_retention_policy": ast.AlterRetentionPolicy,
    "drop_retention_policy": ast.DropRetentionPolicy,
    "duration_option": partial(_option, "duration_ns"),
    "replication_option": _replication_option,
    "shard_option": partial(_option, "shard_duration_ns"),
    "future_option": partial(_option, "future_limit_ns"),
    "past_option": partial(_option, "past_limit_ns"),
    "default_name": lambda _word: "default",
    "default_option": partial(_option, "is_default"),
    "name_option": partial(_option, "policy"),
    "span": _span,
    "delete": ast.Delete,
    "drop_series": ast.DropSeries,
    "victims": _victims,
    "drop_measurement": ast.DropMeasurement,
    "drop_shard": _drop_shard,
    "create_user": _create_user,
    "set_password": ast.SetPassword,
    "drop_user": ast.DropUser,
    "grant": _grant,
    "grant_admin": partial(ast.Grant, ast.Privilege.ALL),
    "revoke": _revoke,
    "revoke_admin": partial(ast.Revoke, ast.Privilege.ALL),
    "privilege": _privilege,
    "create_continuous_query": _create_continuous_query,
    "continuous_select": _continuous_select,
    "resample": _resample,
    "every": _span,
    "for": _span,
    "drop_continuous_query": ast.DropContinuousQuery,
    "create_subscription": _create_subscription,
    "drop_subscription": ast.DropSubscription,
    "kill_query": _kill_query,
    "show_databases": ast.ShowDatabases,
    "show_retention_policies": ast.ShowRetentionPolicies,
    "show_users": ast.ShowUsers,
    "show_grants": ast.ShowGrants,
    "show_continuous_queries": ast.ShowContinuousQueries,
    "show_subscriptions": ast.ShowSubscriptions,
    "show_queries": ast.ShowQueries,
    "show_shards": ast.ShowShards,
    "show_shard_groups": ast.ShowShardGroups,
    "show_stats": ast.ShowStats,
    "show_diagnostics": ast.ShowDiagnostics,
    "show_measurements": _show_measurements,
    "show_tag_keys": _show_tag_keys,
    "show_tag_values": _show_tag_values,
    "show_field_keys": _show_field_keys,
    "show_series": _show_series,
    "on_policy": _on_policy,
    "with_measurement": _with_measurement,
    "key_filter": _key_filter,
}

# What a rule or alias makes of the list of its children. Terminals are here too: what a token becomes as a child.
RULES: dict[str, Callable[[_Children], object]] = {
    **{name: _spread(function) for name, function in _FROM_ARGUMENTS.items()},
    "start": tuple,
    "fields": tuple,
    "from": tuple,
    "group_by": tuple,
    "arguments": tuple,
    "measurements": tuple,
    "nothing": _only,
    "into": _only,
    "where": _only,
    "with_key": _only,
    "alias": _text,
    "on": _text,
    "dots": len,
    "disjunction": partial(_chain, "OR"),
    "conjunction": partial(_chain, "AND"),
    "comparison": _operators,
    "sum": _operators,
    "product": _product,
    "alter_options": _policy_options,
    "show_series_cardinality": partial(_show_cardinality, ast.Countable.SERIES),
    "show_measurement_cardinality": partial(_show_cardinality, ast.Countable.MEASUREMENT),
    "show_tag_key_cardinality": partial(_show_cardinality, ast.Countable.TAG_KEY),
    "show_tag_values_cardinality": partial(_show_cardinality, ast.Countable.TAG_VALUES),
    "show_field_key_cardinality": partial(_show_cardinality, ast.Countable.FIELD_KEY),
}


def _value(token: Token) -> str:
    return token.value


# The tokens that rules get as text.
TOKENS: dict[str, Callable[[Token], str]] = {"IDENT": _value, "STRING": _value}
