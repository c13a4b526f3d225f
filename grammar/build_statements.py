"""What the rules of influxql.lark for all statements but SELECT make; see `build_select`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from grammar import ast
from grammar.build_select import INT64_MAX, UINT64_MAX, Order, int_of, only, spread, text, walk
from grammar.durations import format_duration, longest_ns, parse_duration
from grammar.refusals import Place, Refused, Unexpected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from grammar.lexer import Token


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


def _finite_span(number: Token) -> int:
    if number.type == "INF":
        raise Refused("invalid duration INF for shard duration", Place.LAST)
    return _span(number)


def _replication_option(_word: Token, number: Token) -> _Option:
    value = int_of(number)
    if value > INT64_MAX:
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
    value = int_of(number)
    if value < 0:
        raise Refused(f'strconv.ParseUint: parsing "{value}": invalid syntax', Place.LAST)
    if value > UINT64_MAX:
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
    name: str, database: str, resample: Mapping[str, int], select: ast.Select
) -> ast.CreateContinuousQuery:
    every_ns, for_ns = resample.get("every_ns", 0), resample.get("for_ns", 0)
    least_ns = max(every_ns, _group_by_interval(select))
    if for_ns and for_ns < least_ns:
        raise Refused(
            "FOR duration must be >= GROUP BY time duration: must be a minimum of "
            f"{format_duration(least_ns)}, got {format_duration(for_ns)}"
        )
    late_ns = resample.get("late_ns", 0)
    return ast.CreateContinuousQuery(name, database, select, every_ns, for_ns, late_ns)


def _continuous_select(select: ast.Select) -> ast.Select:
    has_calls = any(
        isinstance(node, ast.Call) for field in select.fields for node in walk(field.expr)
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
        if isinstance(interval, ast.CalendarDuration):
            return longest_ns(interval.months)
        if not isinstance(interval, ast.DurationLiteral):
            raise Unexpected("GROUP BY time(...), time dimension must have duration argument")
        return interval.ns
    return 0


def _resample_option(name: str, number: Token) -> tuple[str, int]:
    return name, _span(number)


def _resample(*options: tuple[str, int]) -> Mapping[str, int]:
    if not all(ns for _, ns in options):
        raise Unexpected("EVERY, FOR", Place.NEXT)
    return dict(options)


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
    _order: Order,
    limit: int,
    offset: int,
) -> ast.ShowMeasurements:
    return ast.ShowMeasurements(*on, measurement, condition, limit, offset)


def _show_tag_keys(
    database: str,
    sources: _Names,
    key: ast.NameFilter | None,
    condition: ast.Expr | None,
    _order: Order,
    *limits: int,
) -> ast.ShowTagKeys:
    return ast.ShowTagKeys(database, sources, key, condition, *limits)


def _show_tag_values(
    database: str,
    sources: _Names,
    key: ast.NameFilter,
    condition: ast.Expr | None,
    order: Order,
    limit: int,
    offset: int,
) -> ast.ShowTagValues:
    is_ordered, descending = order
    return ast.ShowTagValues(
        key, database, sources, condition, descending, is_ordered, limit, offset
    )


def _show_field_keys(
    database: str,
    sources: _Names,
    condition: ast.Expr | None,
    _order: Order,
    limit: int,
    offset: int,
) -> ast.ShowFieldKeys:
    return ast.ShowFieldKeys(database, sources, condition, limit, offset)


def _show_series(
    database: str,
    sources: _Names,
    condition: ast.Expr | None,
    order: Order,
    limit: int,
    offset: int,
) -> ast.ShowSeries:
    is_ordered, descending = order
    return ast.ShowSeries(database, sources, condition, descending, is_ordered, limit, offset)


# --- the table ------------------------------------------------------------------------------------
_FROM_ARGUMENTS: dict[str, Callable[..., object]] = {
    "create_database": _create_database,
    "drop_database": ast.DropDatabase,
    "create_retention_policy": _create_retention_policy,
    "alter_retention_policy": ast.AlterRetentionPolicy,
    "drop_retention_policy": ast.DropRetentionPolicy,
    "duration_option": partial(_option, "duration_ns"),
    "replication_option": _replication_option,
    "shard_option": partial(_option, "shard_duration_ns"),
    "finite_shard_option": partial(_option, "shard_duration_ns"),
    "future_option": partial(_option, "future_limit_ns"),
    "past_option": partial(_option, "past_limit_ns"),
    "default_name": lambda _word: "default",
    "default_option": partial(_option, "is_default"),
    "name_option": partial(_option, "policy"),
    "span": _span,
    "finite_span": _finite_span,
    "delete": ast.Delete,
    "drop_series": ast.DropSeries,
    "victims": _victims,
    "drop_measurement": ast.DropMeasurement,
    "drop_shard": _drop_shard,
    "drop_field": ast.DropField,
    "undrop_database": ast.UndropDatabase,
    "undrop_retention_policy": ast.UndropRetentionPolicy,
    "undrop_measurement": ast.UndropMeasurement,
    "rename_measurement": ast.RenameMeasurement,
    "show_trash": ast.ShowTrash,
    "purge_trash": ast.PurgeTrash,
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
    "every": partial(_resample_option, "every_ns"),
    "for": partial(_resample_option, "for_ns"),
    "late": partial(_resample_option, "late_ns"),
    "drop_continuous_query": ast.DropContinuousQuery,
    "run_continuous_query": ast.RunContinuousQuery,
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
    "show_series_cardinality": partial(ast.ShowCardinality, ast.Countable.SERIES),
    "show_measurement_cardinality": partial(ast.ShowCardinality, ast.Countable.MEASUREMENT),
    "show_tag_key_cardinality": partial(ast.ShowCardinality, ast.Countable.TAG_KEY),
    "show_tag_values_cardinality": partial(ast.ShowCardinality, ast.Countable.TAG_VALUES),
    "show_field_key_cardinality": partial(ast.ShowCardinality, ast.Countable.FIELD_KEY),
}

RULES: dict[str, Callable[..., object]] = {
    **{name: spread(function) for name, function in _FROM_ARGUMENTS.items()},
    "start": tuple,
    "alter_options": _policy_options,
    "measurements": tuple,
    "nothing": only,
    "on": text,
    "new_name": text,
    "exact": bool,
    "with_key": only,
}
