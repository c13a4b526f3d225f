"""The tree of an InfluxQL text: one frozen dataclass a rule, named as the rule.

Nothing here knows a schema, a clock or an engine. Durations are int nanoseconds. Bound parameters
are gone: the parser put their values in. `grammar.printer.to_influxql` turns every node back into
text.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias


# --- expressions ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class IntegerLiteral:
    """`42`, also beyond int64 (InfluxDB then calls it unsigned)."""

    value: int


@dataclass(frozen=True, slots=True)
class NumberLiteral:
    """`4.2`."""

    value: float


@dataclass(frozen=True, slots=True)
class StringLiteral:
    """`'text'`, unescaped."""

    value: str


@dataclass(frozen=True, slots=True)
class BooleanLiteral:
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class DurationLiteral:
    """`1h30m`."""

    ns: int


@dataclass(frozen=True, slots=True)
class CalendarDuration:
    """`1y`, `3mo`, `1mo14d`: months, never 0, and nanoseconds of the same sign. Not InfluxDB's."""

    months: int
    ns: int = 0


@dataclass(frozen=True, slots=True)
class RegexLiteral:
    r"""`/pattern/`; only `\/` has lost its backslash."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`*`, `*::field` or `*::tag`; kind is "", "field" or "tag"."""

    kind: str = ""


@dataclass(frozen=True, slots=True)
class VarRef:
    """A name and its cast.

    The cast is "", "float", "integer", "unsigned", "string", "boolean", "field" or "tag".
    """

    name: str
    cast: str = ""


@dataclass(frozen=True, slots=True)
class Distinct:
    """`DISTINCT name`, without parentheses."""

    name: str


@dataclass(frozen=True, slots=True)
class Call:
    """`name(args)`; the name is in lower case."""

    name: str
    args: tuple[Expr, ...] = ()
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        """Return what is worked out once: columns are looked up by their calls all the time."""
        if not self._hash:
            object.__setattr__(self, "_hash", hash((self.name, self.args)))
        return self._hash


@dataclass(frozen=True, slots=True)
class BinaryExpr:
    """`lhs op rhs`; op as written but AND, OR in capitals and `<>` as `!=`.

    A minus before a name, call or parenthesis is `-1 * x`, itself in a ParenExpr behind `*` and its
    like; before a number it is part of the literal. Long AND and OR chains are balanced trees.
    """

    op: str
    lhs: Expr
    rhs: Expr


@dataclass(frozen=True, slots=True)
class ParenExpr:
    """`(expr)`."""

    expr: Expr


@dataclass(frozen=True, slots=True)
class NotExpr:
    """`NOT expr`; not InfluxDB's."""

    expr: Expr


@dataclass(frozen=True, slots=True)
class InExpr:
    """`expr [NOT] IN (values)`, values are literals; not InfluxDB's."""

    expr: Expr
    values: tuple[Expr, ...]
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class LikeExpr:
    r"""`expr [NOT] LIKE pattern`; not InfluxDB's.

    In the pattern `%` is any text, `_` one character; a backslash stands only before one of these
    or before another backslash, and takes its meaning.
    """

    expr: Expr
    pattern: str
    is_negated: bool = False


Literal: TypeAlias = (
    IntegerLiteral
    | NumberLiteral
    | StringLiteral
    | BooleanLiteral
    | DurationLiteral
    | CalendarDuration
    | RegexLiteral
)
Expr: TypeAlias = (
    Literal
    | Wildcard
    | VarRef
    | Distinct
    | Call
    | BinaryExpr
    | ParenExpr
    | NotExpr
    | InExpr
    | LikeExpr
)


# --- SELECT ---------------------------------------------------------------------------------------
class Fill(StrEnum):
    """What `fill()` does with empty windows."""

    NULL = "null"
    NONE = "none"
    PREVIOUS = "previous"
    LINEAR = "linear"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Field:
    """One column: an expression and its alias, "" without.

    `keeps_names` marks `mean(*) AS *`: its columns are called as the fields, not `mean_<field>`.
    """

    expr: Expr
    alias: str = ""
    keeps_names: bool = False


@dataclass(frozen=True, slots=True)
class Measurement:
    """`"db"."rp"."name"`; "" where a part is not given, `db..m` included.

    Either name or regex is set. `is_target_name` marks `:MEASUREMENT` of an INTO target.
    """

    name: str = ""
    retention_policy: str = ""
    database: str = ""
    regex: RegexLiteral | None = None
    is_target_name: bool = False


@dataclass(frozen=True, slots=True)
class SubQuery:
    """`(SELECT ...)` as a source."""

    select: Select


@dataclass(frozen=True, slots=True)
class NamedSource:
    """`source AS name`: a side of a join; its columns are called `name.column`. Not InfluxDB's."""

    source: Measurement | SubQuery
    name: str


Source: TypeAlias = Measurement | SubQuery | NamedSource


@dataclass(frozen=True, slots=True)
class SortField:
    """`name [ASC | DESC]`, a key of ORDER BY; or `call [ASC | DESC]`, which has no name."""

    name: str
    descending: bool = False
    call: Call | None = None


@dataclass(frozen=True, slots=True)
class Select:
    """A SELECT. `fill` is None when not written or null; limits are 0 when not written.

    `fill_age_ns` is how far `fill(previous, 1h)` looks back before the range, 0 does not; `having`
    and `sort_fields`, the keys of an ORDER BY by more than time: all three are not InfluxDB's.
    """

    fields: tuple[Field, ...]
    sources: tuple[Source, ...]
    target: Measurement | None = None
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    fill: Fill | None = None
    fill_value: int | float = 0
    descending: bool = False
    is_ordered: bool = False  # an ORDER BY was written whose first key is time
    limit: int = 0
    offset: int = 0
    slimit: int = 0
    soffset: int = 0
    timezone: str = ""
    fill_age_ns: int = 0
    having: Expr | None = None
    sort_fields: tuple[SortField, ...] = ()
    _bare: Select | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def bare(self) -> Select:
        """The statement without its WHERE; one object for all that `where` makes of a statement."""
        found = self._bare or replace(self, condition=None)
        if self._bare is None:
            object.__setattr__(self, "_bare", found)
        return found

    def where(self, condition: Expr) -> Select:
        """Return the statement with another WHERE."""
        made = replace(self, condition=condition)
        object.__setattr__(made, "_bare", self.bare)
        return made


@dataclass(frozen=True, slots=True)
class Explain:
    """`EXPLAIN [VERBOSE] [ANALYZE] SELECT ...`."""

    select: Select
    analyze: bool = False
    verbose: bool = False


# --- databases and retention policies -------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class PolicyOptions:
    """The options of a retention policy; None where not written. INF is 0 ns."""

    duration_ns: int | None = None
    replication: int | None = None
    shard_duration_ns: int | None = None
    future_limit_ns: int | None = None
    past_limit_ns: int | None = None
    is_default: bool = False


@dataclass(frozen=True, slots=True)
class CreateDatabase:
    """`CREATE DATABASE name [WITH ... [NAME policy]]`."""

    name: str
    options: PolicyOptions | None = None
    policy: str = ""


@dataclass(frozen=True, slots=True)
class DropDatabase:
    """`DROP DATABASE name`."""

    name: str


@dataclass(frozen=True, slots=True)
class CreateRetentionPolicy:
    """`CREATE RETENTION POLICY name ON database ...`."""

    name: str
    database: str
    options: PolicyOptions


@dataclass(frozen=True, slots=True)
class AlterRetentionPolicy:
    """`ALTER RETENTION POLICY name ON database ...`."""

    name: str
    database: str
    options: PolicyOptions


@dataclass(frozen=True, slots=True)
class DropRetentionPolicy:
    """`DROP RETENTION POLICY name ON database`."""

    name: str
    database: str


# --- deletes --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Delete:
    """`DELETE [FROM ...] [WHERE ...]`."""

    sources: tuple[Measurement, ...] = ()
    condition: Expr | None = None


@dataclass(frozen=True, slots=True)
class DropSeries:
    """`DROP SERIES [FROM ...] [WHERE ...]`."""

    sources: tuple[Measurement, ...] = ()
    condition: Expr | None = None


@dataclass(frozen=True, slots=True)
class DropMeasurement:
    """`DROP MEASUREMENT name`."""

    name: str


@dataclass(frozen=True, slots=True)
class DropShard:
    """`DROP SHARD id`."""

    id: int


# --- not InfluxDB's -------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class DropField:
    """`DROP FIELD name FROM measurement`."""

    name: str
    measurement: str


@dataclass(frozen=True, slots=True)
class UndropDatabase:
    """`UNDROP DATABASE name [AS new_name]`."""

    name: str
    new_name: str = ""


@dataclass(frozen=True, slots=True)
class UndropRetentionPolicy:
    """`UNDROP RETENTION POLICY name ON database [AS new_name]`."""

    name: str
    database: str
    new_name: str = ""


@dataclass(frozen=True, slots=True)
class UndropMeasurement:
    """`UNDROP MEASUREMENT name [AS new_name]`."""

    name: str
    new_name: str = ""


@dataclass(frozen=True, slots=True)
class RenameMeasurement:
    """`ALTER MEASUREMENT name RENAME TO new_name`."""

    name: str
    new_name: str


@dataclass(frozen=True, slots=True)
class ShowTrash:
    """`SHOW TRASH`."""


@dataclass(frozen=True, slots=True)
class PurgeTrash:
    """`PURGE TRASH`."""


# --- users ----------------------------------------------------------------------------------------
class Privilege(StrEnum):
    """A right on a database."""

    READ = "READ"
    WRITE = "WRITE"
    ALL = "ALL PRIVILEGES"


@dataclass(frozen=True, slots=True)
class CreateUser:
    """`CREATE USER name WITH PASSWORD 'p' [WITH ALL PRIVILEGES]`. Prints [REDACTED]."""

    name: str
    password: str
    is_admin: bool = False


@dataclass(frozen=True, slots=True)
class SetPassword:
    """`SET PASSWORD FOR name = 'p'`. Prints [REDACTED]."""

    name: str
    password: str


@dataclass(frozen=True, slots=True)
class DropUser:
    """`DROP USER name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Grant:
    """`GRANT privilege ON database TO user`; database "" makes an admin."""

    privilege: Privilege
    user: str
    database: str = ""


@dataclass(frozen=True, slots=True)
class Revoke:
    """`REVOKE privilege ON database FROM user`; database "" takes the admin right."""

    privilege: Privilege
    user: str
    database: str = ""


# --- continuous queries and subscriptions ---------------------------------------------------------
@dataclass(frozen=True, slots=True)
class CreateContinuousQuery:
    """`CREATE CONTINUOUS QUERY name ON database [RESAMPLE [EVERY] [FOR] [LATE]] BEGIN select END`.

    The durations are 0 where not written.
    """

    name: str
    database: str
    select: Select
    every_ns: int = 0
    for_ns: int = 0
    late_ns: int = 0


@dataclass(frozen=True, slots=True)
class DropContinuousQuery:
    """`DROP CONTINUOUS QUERY name ON database`."""

    name: str
    database: str


@dataclass(frozen=True, slots=True)
class RunContinuousQuery:
    """`RUN CONTINUOUS QUERY name ON database FROM time TO time`; times as in a WHERE clause."""

    name: str
    database: str
    start: Expr
    end: Expr


@dataclass(frozen=True, slots=True)
class CreateSubscription:
    """`CREATE SUBSCRIPTION name ON db.rp DESTINATIONS mode urls`; mode ALL or ANY."""

    name: str
    database: str
    retention_policy: str
    mode: str
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class DropSubscription:
    """`DROP SUBSCRIPTION name ON db.rp`."""

    name: str
    database: str
    retention_policy: str


@dataclass(frozen=True, slots=True)
class KillQuery:
    """`KILL QUERY id [ON host]`."""

    id: int
    host: str = ""


# --- SHOW -----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ShowDatabases:
    """`SHOW DATABASES`."""


@dataclass(frozen=True, slots=True)
class ShowRetentionPolicies:
    """`SHOW RETENTION POLICIES [ON database]`."""

    database: str = ""


@dataclass(frozen=True, slots=True)
class ShowUsers:
    """`SHOW USERS`."""


@dataclass(frozen=True, slots=True)
class ShowGrants:
    """`SHOW GRANTS FOR user`."""

    user: str


@dataclass(frozen=True, slots=True)
class ShowContinuousQueries:
    """`SHOW CONTINUOUS QUERIES`."""


@dataclass(frozen=True, slots=True)
class ShowSubscriptions:
    """`SHOW SUBSCRIPTIONS`."""


@dataclass(frozen=True, slots=True)
class ShowQueries:
    """`SHOW QUERIES`."""


@dataclass(frozen=True, slots=True)
class ShowShards:
    """`SHOW SHARDS`."""


@dataclass(frozen=True, slots=True)
class ShowShardGroups:
    """`SHOW SHARD GROUPS`."""


@dataclass(frozen=True, slots=True)
class ShowStats:
    """`SHOW STATS [FOR 'module']`."""

    module: str = ""


@dataclass(frozen=True, slots=True)
class ShowDiagnostics:
    """`SHOW DIAGNOSTICS [FOR 'module']`."""

    module: str = ""


@dataclass(frozen=True, slots=True)
class NameFilter:
    """A choice of names: op is `=`, `!=` or IN with names, `=~` or `!~` with a regex."""

    op: str
    names: tuple[str, ...] = ()
    regex: RegexLiteral | None = None


@dataclass(frozen=True, slots=True)
class ShowMeasurements:
    """`SHOW MEASUREMENTS [ON db[.rp]] [WITH MEASUREMENT ...] [WHERE ...] [LIMIT] [OFFSET]`.

    A part of ON that is a star is "*". The measurement filter is `=` with one name or `=~`.
    """

    database: str = ""
    retention_policy: str = ""
    measurement: NameFilter | None = None
    condition: Expr | None = None
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowTagKeys:
    """`SHOW TAG KEYS [ON] [FROM] [WITH KEY ...] [WHERE] [LIMIT] [OFFSET] [SLIMIT] [SOFFSET]`."""

    database: str = ""
    sources: tuple[Measurement, ...] = ()
    key: NameFilter | None = None
    condition: Expr | None = None
    limit: int = 0
    offset: int = 0
    slimit: int = 0
    soffset: int = 0


@dataclass(frozen=True, slots=True)
class ShowTagValues:
    """`SHOW TAG VALUES [ON] [FROM] WITH KEY ... [WHERE] [ORDER BY time] [LIMIT] [OFFSET]`."""

    key: NameFilter
    database: str = ""
    sources: tuple[Measurement, ...] = ()
    condition: Expr | None = None
    descending: bool = False
    is_ordered: bool = False
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowFieldKeys:
    """`SHOW FIELD KEYS [ON] [FROM] [WHERE] [LIMIT] [OFFSET]`; InfluxDB's has no WHERE."""

    database: str = ""
    sources: tuple[Measurement, ...] = ()
    condition: Expr | None = None
    limit: int = 0
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ShowSeries:
    """`SHOW SERIES [ON] [FROM] [WHERE] [ORDER BY time] [LIMIT] [OFFSET]`."""

    database: str = ""
    sources: tuple[Measurement, ...] = ()
    condition: Expr | None = None
    descending: bool = False
    is_ordered: bool = False
    limit: int = 0
    offset: int = 0


class Countable(StrEnum):
    """What a `SHOW ... CARDINALITY` counts."""

    SERIES = "SERIES"
    MEASUREMENT = "MEASUREMENT"
    TAG_KEY = "TAG KEY"
    TAG_VALUES = "TAG VALUES"
    FIELD_KEY = "FIELD KEY"


@dataclass(frozen=True, slots=True)
class ShowCardinality:
    """`SHOW <what> [EXACT] CARDINALITY [ON] [FROM] [WITH KEY] [WHERE] [GROUP BY] [LIMIT] ...`."""

    what: Countable
    is_exact: bool = False
    database: str = ""
    sources: tuple[Measurement, ...] = ()
    key: NameFilter | None = None
    condition: Expr | None = None
    dimensions: tuple[Expr, ...] = ()
    limit: int = 0
    offset: int = 0


Statement: TypeAlias = (
    Select
    | Explain
    | CreateDatabase
    | DropDatabase
    | CreateRetentionPolicy
    | AlterRetentionPolicy
    | DropRetentionPolicy
    | Delete
    | DropSeries
    | DropMeasurement
    | DropShard
    | DropField
    | UndropDatabase
    | UndropRetentionPolicy
    | UndropMeasurement
    | RenameMeasurement
    | ShowTrash
    | PurgeTrash
    | CreateUser
    | SetPassword
    | DropUser
    | Grant
    | Revoke
    | CreateContinuousQuery
    | DropContinuousQuery
    | RunContinuousQuery
    | CreateSubscription
    | DropSubscription
    | KillQuery
    | ShowDatabases
    | ShowRetentionPolicies
    | ShowUsers
    | ShowGrants
    | ShowContinuousQueries
    | ShowSubscriptions
    | ShowQueries
    | ShowShards
    | ShowShardGroups
    | ShowStats
    | ShowDiagnostics
    | ShowMeasurements
    | ShowTagKeys
    | ShowTagValues
    | ShowFieldKeys
    | ShowSeries
    | ShowCardinality
)
