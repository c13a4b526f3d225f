"""Tree to InfluxQL text: `to_influxql`, the reverse of `grammar.parser.parse`.

The text is canonical, as influxd prints it: words in capitals, names quoted only where they must
be, durations in their largest unit, passwords hidden. Reading it again gives the same tree,
passwords aside.
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import singledispatch
from typing import TYPE_CHECKING

from grammar import ast
from grammar.durations import format_calendar_duration, format_duration
from grammar.words import quoted, quoted_pattern, quoted_string

if TYPE_CHECKING:
    from collections.abc import Iterable

_REDACTED = "[REDACTED]"


@singledispatch
def to_influxql(node: object) -> str:
    """Return the canonical text of a statement, an expression or a part of one.

    Raises:
        TypeError: It is no node of `grammar.ast`.
    """
    raise TypeError(f"not a node of InfluxQL: {node!r}")


# --- expressions ----------------------------------------------------------------------------------
@to_influxql.register
def _(node: ast.IntegerLiteral) -> str:
    return str(node.value)


@to_influxql.register
def _(node: ast.NumberLiteral) -> str:
    # Differs from influxd: it cuts to three decimals, which changes the number. Here they are the
    # least.
    text = _decimal(node.value)
    whole, _, decimals = text.partition(".")
    return f"{whole}.{decimals:0<3}"


@to_influxql.register
def _(node: ast.StringLiteral) -> str:
    return quoted_string(node.value)


@to_influxql.register
def _(node: ast.BooleanLiteral) -> str:
    return "true" if node.value else "false"


@to_influxql.register
def _(node: ast.DurationLiteral) -> str:
    return format_duration(node.ns)


@to_influxql.register
def _(node: ast.CalendarDuration) -> str:
    return format_calendar_duration(node.months, node.ns)


@to_influxql.register
def _(node: ast.RegexLiteral) -> str:
    pattern = node.pattern.replace("/", r"\/").replace("\n", r"\n")
    if pattern.endswith("\\"):  # before the slash it would escape that
        pattern = pattern[:-2] + r"\x5c"
    return f"/{pattern}/"


@to_influxql.register
def _(node: ast.Wildcard) -> str:
    return f"*::{node.kind}" if node.kind else "*"


@to_influxql.register
def _(node: ast.VarRef) -> str:
    return quoted(node.name) + (f"::{node.cast}" if node.cast else "")


@to_influxql.register
def _(node: ast.Distinct) -> str:
    return f"DISTINCT {quoted(node.name)}"


@to_influxql.register
def _(node: ast.Call) -> str:
    name = node.name if node.name == "distinct" else quoted(node.name)
    return f"{name}({_list(node.args)})"


@to_influxql.register
def _(node: ast.BinaryExpr) -> str:
    return f"{to_influxql(node.lhs)} {node.op} {to_influxql(node.rhs)}"


@to_influxql.register
def _(node: ast.ParenExpr) -> str:
    return f"({to_influxql(node.expr)})"


@to_influxql.register
def _(node: ast.NotExpr) -> str:
    return f"NOT {to_influxql(node.expr)}"


@to_influxql.register
def _(node: ast.InExpr) -> str:
    word = "NOT IN" if node.is_negated else "IN"
    return f"{to_influxql(node.expr)} {word} ({_list(node.values)})"


@to_influxql.register
def _(node: ast.LikeExpr) -> str:
    word = "NOT LIKE" if node.is_negated else "LIKE"
    return f"{to_influxql(node.expr)} {word} {quoted_pattern(node.pattern)}"


# --- SELECT ---------------------------------------------------------------------------------------
@to_influxql.register
def _(node: ast.Field) -> str:
    alias = "*" if node.keeps_names else quoted(node.alias) if node.alias else ""
    return to_influxql(node.expr) + (f" AS {alias}" if alias else "")


@to_influxql.register
def _(node: ast.Measurement) -> str:
    if node.regex is not None:
        name = to_influxql(node.regex)
    else:
        name = ":MEASUREMENT" if node.is_target_name else quoted(node.name)
    policy = quoted(node.retention_policy) if node.retention_policy else ""
    if node.database:
        return f"{quoted(node.database)}.{policy}.{name}"
    return f"{policy}.{name}" if policy else name


@to_influxql.register
def _(node: ast.SubQuery) -> str:
    return f"({to_influxql(node.select)})"


@to_influxql.register
def _(node: ast.NamedSource) -> str:
    return f"{to_influxql(node.source)} AS {quoted(node.name)}"


@to_influxql.register
def _(node: ast.Select) -> str:
    return _words(
        f"SELECT {_list(node.fields)}",
        f"INTO {to_influxql(node.target)}" if node.target else "",
        _from(node.sources),
        _where(node.condition),
        _group_by(node.dimensions),
        _fill(node),
        "" if node.having is None else f"HAVING {to_influxql(node.having)}",
        f"ORDER BY {_list(node.sort_fields)}"
        if node.sort_fields
        else _order_by(node.is_ordered, node.descending),
        _limits(node.limit, node.offset, node.slimit, node.soffset),
        f"TZ({quoted_string(node.timezone)})" if node.timezone else "",
    )


@to_influxql.register
def _(node: ast.SortField) -> str:
    key = quoted(node.name) if node.call is None else to_influxql(node.call)
    return f"{key} {'DESC' if node.descending else 'ASC'}"


@to_influxql.register
def _(node: ast.Explain) -> str:
    return _words(
        "EXPLAIN",
        "VERBOSE" if node.verbose else "",
        "ANALYZE" if node.analyze else "",
        to_influxql(node.select),
    )


# --- databases and retention policies -------------------------------------------------------------
@to_influxql.register
def _(node: ast.PolicyOptions) -> str:
    return _words(
        _option("DURATION", node.duration_ns),
        "" if node.replication is None else f"REPLICATION {node.replication}",
        _option("SHARD DURATION", node.shard_duration_ns),
        _option("FUTURE LIMIT", node.future_limit_ns),
        _option("PAST LIMIT", node.past_limit_ns),
        "DEFAULT" if node.is_default else "",
    )


@to_influxql.register
def _(node: ast.CreateDatabase) -> str:
    options = node.options
    if options is None:
        return f"CREATE DATABASE {quoted(node.name)}"
    return _words(
        f"CREATE DATABASE {quoted(node.name)} WITH",
        # Alone among all statements this one prints Go's durations.
        _go_option("DURATION", options.duration_ns),
        "" if options.replication is None else f"REPLICATION {options.replication}",
        _go_option("SHARD DURATION", options.shard_duration_ns),
        _go_option("FUTURE LIMIT", options.future_limit_ns),
        _go_option("PAST LIMIT", options.past_limit_ns),
        f"NAME {quoted(node.policy)}" if node.policy else "",
    )


@to_influxql.register
def _(node: ast.DropDatabase) -> str:
    return f"DROP DATABASE {quoted(node.name)}"


@to_influxql.register
def _(node: ast.CreateRetentionPolicy) -> str:
    return f"CREATE {_policy_on(node)} {to_influxql(node.options)}"


@to_influxql.register
def _(node: ast.AlterRetentionPolicy) -> str:
    return f"ALTER {_policy_on(node)} {to_influxql(node.options)}"


@to_influxql.register
def _(node: ast.DropRetentionPolicy) -> str:
    return f"DROP {_policy_on(node)}"


# --- deletes --------------------------------------------------------------------------------------
@to_influxql.register
def _(node: ast.Delete) -> str:
    return _words("DELETE", _from(node.sources), _where(node.condition))


@to_influxql.register
def _(node: ast.DropSeries) -> str:
    return _words("DROP SERIES", _from(node.sources), _where(node.condition))


@to_influxql.register
def _(node: ast.DropMeasurement) -> str:
    return f"DROP MEASUREMENT {quoted(node.name)}"


@to_influxql.register
def _(node: ast.DropShard) -> str:
    return f"DROP SHARD {node.id}"


# --- not InfluxDB's -------------------------------------------------------------------------------
@to_influxql.register
def _(node: ast.DropField) -> str:
    return f"DROP FIELD {quoted(node.name)} FROM {quoted(node.measurement)}"


@to_influxql.register
def _(node: ast.UndropDatabase) -> str:
    return _words(f"UNDROP DATABASE {quoted(node.name)}", _as(node.new_name))


@to_influxql.register
def _(node: ast.UndropRetentionPolicy) -> str:
    return _words(f"UNDROP {_policy_on(node)}", _as(node.new_name))


@to_influxql.register
def _(node: ast.UndropMeasurement) -> str:
    return _words(f"UNDROP MEASUREMENT {quoted(node.name)}", _as(node.new_name))


@to_influxql.register
def _(node: ast.RenameMeasurement) -> str:
    return f"ALTER MEASUREMENT {quoted(node.name)} RENAME TO {quoted(node.new_name)}"


# --- users ----------------------------------------------------------------------------------------
@to_influxql.register
def _(node: ast.CreateUser) -> str:
    rights = " WITH ALL PRIVILEGES" if node.is_admin else ""
    return f"CREATE USER {quoted(node.name)} WITH PASSWORD {_REDACTED}{rights}"


@to_influxql.register
def _(node: ast.SetPassword) -> str:
    return f"SET PASSWORD FOR {quoted(node.name)} = {_REDACTED}"


@to_influxql.register
def _(node: ast.DropUser) -> str:
    return f"DROP USER {quoted(node.name)}"


@to_influxql.register
def _(node: ast.Grant) -> str:
    return _words("GRANT", node.privilege, _on(node.database), f"TO {quoted(node.user)}")


@to_influxql.register
def _(node: ast.Revoke) -> str:
    return _words("REVOKE", node.privilege, _on(node.database), f"FROM {quoted(node.user)}")


# --- continuous queries and subscriptions ---------------------------------------------------------
@to_influxql.register
def _(node: ast.CreateContinuousQuery) -> str:
    return _words(
        f"CREATE CONTINUOUS QUERY {quoted(node.name)} ON {quoted(node.database)}",
        "RESAMPLE" if node.every_ns or node.for_ns or node.late_ns else "",
        f"EVERY {format_duration(node.every_ns)}" if node.every_ns else "",
        f"FOR {format_duration(node.for_ns)}" if node.for_ns else "",
        f"LATE {format_duration(node.late_ns)}" if node.late_ns else "",
        f"BEGIN {to_influxql(node.select)} END",
    )


@to_influxql.register
def _(node: ast.DropContinuousQuery) -> str:
    return f"DROP CONTINUOUS QUERY {quoted(node.name)} ON {quoted(node.database)}"


@to_influxql.register
def _(node: ast.RunContinuousQuery) -> str:
    return (
        f"RUN CONTINUOUS QUERY {quoted(node.name)} ON {quoted(node.database)} "
        f"FROM {to_influxql(node.start)} TO {to_influxql(node.end)}"
    )


@to_influxql.register
def _(node: ast.CreateSubscription) -> str:
    destinations = ", ".join(map(quoted_string, node.destinations))
    return f"CREATE {_subscription_on(node)} DESTINATIONS {node.mode} {destinations}"


@to_influxql.register
def _(node: ast.DropSubscription) -> str:
    return f"DROP {_subscription_on(node)}"


@to_influxql.register
def _(node: ast.KillQuery) -> str:
    return _words(f"KILL QUERY {node.id}", _on(node.host))


# --- SHOW -----------------------------------------------------------------------------------------
_BARE = (
    ast.ShowDatabases,
    ast.ShowUsers,
    ast.ShowContinuousQueries,
    ast.ShowSubscriptions,
    ast.ShowQueries,
    ast.ShowShards,
    ast.ShowShardGroups,
    ast.ShowTrash,
    ast.PurgeTrash,
)
_CAPITAL = re.compile(r"(?<=.)(?=[A-Z])")


def _name(node: object) -> str:
    """Return the text of a statement that says no more than its class is called."""
    return _CAPITAL.sub(" ", type(node).__name__).upper()


for _kind in _BARE:
    to_influxql.register(_kind, _name)


@to_influxql.register
def _(node: ast.ShowRetentionPolicies) -> str:
    return _words("SHOW RETENTION POLICIES", _on(node.database))


@to_influxql.register
def _(node: ast.ShowGrants) -> str:
    return f"SHOW GRANTS FOR {quoted(node.user)}"


@to_influxql.register
def _(node: ast.ShowStats) -> str:
    return _words("SHOW STATS", f"FOR {quoted_string(node.module)}" if node.module else "")


@to_influxql.register
def _(node: ast.ShowDiagnostics) -> str:
    return _words("SHOW DIAGNOSTICS", f"FOR {quoted_string(node.module)}" if node.module else "")


@to_influxql.register
def _(node: ast.NameFilter) -> str:
    if node.regex is not None:
        return f"{node.op} {to_influxql(node.regex)}"
    names = ", ".join(map(quoted, node.names))
    return f"IN ({names})" if node.op == "IN" else f"{node.op} {names}"


@to_influxql.register
def _(node: ast.ShowMeasurements) -> str:
    names = (node.database, node.retention_policy)
    on = ".".join(name if name == "*" else quoted(name) for name in names if name)
    return _words(
        "SHOW MEASUREMENTS",
        f"ON {on}" if on else "",
        f"WITH MEASUREMENT {to_influxql(node.measurement)}" if node.measurement else "",
        _where(node.condition),
        _limits(node.limit, node.offset),
    )


@to_influxql.register
def _(node: ast.ShowTagKeys) -> str:
    return _words(
        "SHOW TAG KEYS",
        _on(node.database),
        _from(node.sources),
        _with_key(node.key),
        _where(node.condition),
        _limits(node.limit, node.offset, node.slimit, node.soffset),
    )


@to_influxql.register
def _(node: ast.ShowTagValues) -> str:
    return _words(
        "SHOW TAG VALUES",
        _on(node.database),
        _from(node.sources),
        _with_key(node.key),
        _where(node.condition),
        _order_by(node.is_ordered, node.descending),
        _limits(node.limit, node.offset),
    )


@to_influxql.register
def _(node: ast.ShowFieldKeys) -> str:
    return _words(
        "SHOW FIELD KEYS",
        _on(node.database),
        _from(node.sources),
        _where(node.condition),
        _limits(node.limit, node.offset),
    )


@to_influxql.register
def _(node: ast.ShowSeries) -> str:
    return _words(
        "SHOW SERIES",
        _on(node.database),
        _from(node.sources),
        _where(node.condition),
        _order_by(node.is_ordered, node.descending),
        _limits(node.limit, node.offset),
    )


@to_influxql.register
def _(node: ast.ShowCardinality) -> str:
    return _words(
        f"SHOW {node.what}",
        "EXACT" if node.is_exact else "",
        "CARDINALITY",
        _on(node.database),
        _from(node.sources),
        _with_key(node.key),
        _where(node.condition),
        _group_by(node.dimensions),
        _limits(node.limit, node.offset),
    )


# --- clauses: their text, "" for a clause that is not there ---------------------------------------
def _words(*parts: str) -> str:
    return " ".join(filter(None, parts))


def _list(nodes: Iterable[object]) -> str:
    return ", ".join(map(to_influxql, nodes))


def _from(sources: tuple[ast.Source, ...]) -> str:
    return f"FROM {_list(sources)}" if sources else ""


def _where(condition: ast.Expr | None) -> str:
    return "" if condition is None else f"WHERE {to_influxql(condition)}"


def _group_by(dimensions: tuple[ast.Expr, ...]) -> str:
    return f"GROUP BY {_list(dimensions)}" if dimensions else ""


def _fill(node: ast.Select) -> str:
    if node.fill in (None, ast.Fill.NULL):
        return ""
    if node.fill_age_ns:
        return f"fill({node.fill}, {format_duration(node.fill_age_ns)})"
    if node.fill is not ast.Fill.NUMBER:
        return f"fill({node.fill})"
    value = node.fill_value
    is_whole = value == int(value) and abs(value) < 2**63
    return f"fill({int(value) if is_whole else _decimal(value)})"


def _order_by(is_ordered: bool, descending: bool) -> str:
    if not is_ordered:
        return ""
    return "ORDER BY time DESC" if descending else "ORDER BY time ASC"


def _limits(*numbers: int) -> str:
    words = ("LIMIT", "OFFSET", "SLIMIT", "SOFFSET")
    return _words(*(f"{word} {n}" for word, n in zip(words, numbers, strict=False) if n))


def _on(name: str) -> str:
    return f"ON {quoted(name)}" if name else ""


def _as(name: str) -> str:
    return f"AS {quoted(name)}" if name else ""


def _with_key(key: ast.NameFilter | None) -> str:
    return f"WITH KEY {to_influxql(key)}" if key else ""


def _policy_on(
    node: ast.CreateRetentionPolicy
    | ast.AlterRetentionPolicy
    | ast.DropRetentionPolicy
    | ast.UndropRetentionPolicy,
) -> str:
    return f"RETENTION POLICY {quoted(node.name)} ON {quoted(node.database)}"


def _subscription_on(node: ast.CreateSubscription | ast.DropSubscription) -> str:
    place = f"{quoted(node.database)}.{quoted(node.retention_policy)}"
    return f"SUBSCRIPTION {quoted(node.name)} ON {place}"


def _option(words: str, ns: int | None) -> str:
    return "" if ns is None else f"{words} {format_duration(ns)}"


def _go_option(words: str, ns: int | None) -> str:
    return "" if ns is None else f"{words} {_go_duration(ns)}"


def _go_duration(ns: int) -> str:
    """Return a duration as Go prints it: `1h30m0s`, `0s`; of parts of a second InfluxQL's way."""
    seconds, rest = divmod(ns, 1_000_000_000)
    if rest or not seconds:
        return format_duration(ns)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{hours}h{text}" if hours else text


def _decimal(value: float) -> str:
    """Return the shortest digits that read as this float, with a point and without an exponent."""
    text = repr(value)
    if "e" in text:
        text = format(Decimal(text), "f")
    return text if "." in text else f"{text}.0"
