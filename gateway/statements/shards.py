"""SHOW SHARDS, SHOW SHARD GROUPS, DROP SHARD. A group has one shard here, and its number."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from gateway import shards
from gateway.statements.table import table
from grammar import ast

if TYPE_CHECKING:
    from gateway.results import Series
    from gateway.session import Session
    from gateway.shards import NumberedShard
    from gateway.statements.table import Runner

_TIMES: Final = ["start_time", "end_time", "expiry_time"]
_SHARD_COLUMNS: Final = ["id", "database", "retention_policy", "shard_group", *_TIMES, "owners"]
_GROUP_COLUMNS: Final = ["id", "database", "retention_policy", *_TIMES]
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def show_shards(_: ast.ShowShards, session: Session) -> list[Series]:
    """List the shards that have points, a table for each database."""
    rows: dict[str, list[tuple[object, ...]]] = {name: [] for name in session.catalog.databases}
    for shard in shards.shards_of(session.catalog):
        head = shard.number, shard.database, shard.policy, shard.number
        rows.setdefault(shard.database, []).append((*head, *_times(shard, session), ""))
    return [table(_SHARD_COLUMNS, found, name) for name, found in rows.items()]


def show_shard_groups(_: ast.ShowShardGroups, session: Session) -> list[Series]:
    """List the shards of all databases in one table."""
    rows = [
        (shard.number, shard.database, shard.policy, *_times(shard, session))
        for shard in shards.shards_of(session.catalog)
    ]
    return [table(_GROUP_COLUMNS, rows, "shard groups")]


def drop_shard(statement: ast.DropShard, session: Session) -> list[Series]:
    """Delete a shard with its points; an unknown one is no error."""
    shards.drop_shard(session.catalog, statement.id)
    return []


def _times(shard: NumberedShard, session: Session) -> tuple[str, str, str]:
    """Return when a shard begins, ends, and may be removed: influxd shows its end for never."""
    end_ns = shard.bounds.last_ns + 1
    kept_ns = session.catalog.database(shard.database).policy(shard.policy).duration_ns
    return _text(shard.bounds.first_ns), _text(end_ns), _text(end_ns + kept_ns)


def _text(time_ns: int) -> str:
    """Return a time as influxd shows those of shards: whole seconds, also beyond int64."""
    moment = _EPOCH + timedelta(seconds=time_ns // 1_000_000_000)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {
    ast.ShowShards: show_shards,
    ast.ShowShardGroups: show_shard_groups,
    ast.DropShard: drop_shard,
}
