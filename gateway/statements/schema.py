"""What is in a database: measurements, tag keys, tag values, field keys, series; from the index.

All but SHOW FIELD KEYS look at every retention policy of the database, as influxd's in-memory index
does. Conditions are on tags; a condition on a field is taken as true. A bound on time is honoured
exactly (influxd: whole shards): only series with a point in the interval count, which reads times.
Source: influxd 1.6 measured; tests/conformance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.errors import StatementError
from gateway.logic import bounds_time, walk
from gateway.planner import where
from gateway.regexes import Regex
from gateway.statements.table import database_of, page, table
from gateway.statements.tagkeys import chosen_keys, of_series
from grammar import ast
from tinyflux.columnar.base import ScanRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gateway.results import Series
    from gateway.session import Session
    from gateway.statements.table import Runner
    from tinyflux.batch import FieldType
    from tinyflux.columnar.base import Reader, SeriesSet

_ORDERINGS: Final = frozenset({"<", "<=", ">", ">="})
_MEASUREMENT_ESCAPES: Final = str.maketrans({",": "\\,", " ": "\\ "})
_TAG_ESCAPES: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})


@dataclass(frozen=True, slots=True)
class Scope:
    """Which series a SHOW looks at.

    Attributes:
        readers: Snapshots of the stores, one a retention policy.
        sources: The measurements of FROM; () is all.
        condition: The WHERE clause.
        now_ns: What `now()` is.
    """

    readers: Sequence[Reader]
    sources: Sequence[ast.Measurement]
    condition: ast.Expr | None
    now_ns: int

    def measurements(self) -> list[str]:
        """Return the names in scope, sorted."""
        names = {name for reader in self.readers for name in reader.measurements()}
        return sorted(name for name in names if self._is_named(name))

    def series(self, measurement: str) -> list[SeriesSet]:
        """Return the matching series of a measurement, one set a store that has any.

        Raises:
            StatementError: A condition influxd refuses.
        """
        sets = [self._matching(reader, measurement) for reader in self.readers]
        return [found for found in sets if len(found)]

    def _is_named(self, measurement: str) -> bool:
        return not self.sources or any(is_source(measurement, source) for source in self.sources)

    def _matching(self, reader: Reader, measurement: str) -> SeriesSet:
        fields = reader.field_keys(measurement)
        query, start_ns, end_ns = where(self.condition, fields, self.now_ns)
        found = reader.series(measurement, query)
        if not len(found) or self.condition is None or not bounds_time(self.condition):
            return found
        request = ScanRequest(measurement, query, start_ns, end_ns, fields=())
        with_points = [frame.series.ids for frame in reader.scan(request)]
        ids = np.concatenate(with_points) if with_points else np.zeros(0, np.int64)
        return found.take(np.isin(found.ids, ids))


def is_source(measurement: str, source: ast.Measurement) -> bool:
    """Return whether a FROM item names a measurement."""
    if isinstance(source.regex, ast.RegexLiteral):
        return Regex(source.regex.pattern)(measurement)
    return source.name == measurement


def all_policies(session: Session, database: str) -> list[Reader]:
    """Return snapshots of all stores of a database.

    Raises:
        DatabaseNotFound: There is none of this name.
    """
    entry = session.catalog.database(database)
    stores = [session.catalog.storage(database, policy.name) for policy in entry.policies]
    return [store.snapshot() for store in stores]


def one_policy(session: Session, database: str, policy: str) -> list[Reader]:
    """Return a snapshot of one store: of the policy written, of the request, or the default one.

    Raises:
        DatabaseNotFound, RetentionPolicyNotFound: It does not exist.
    """
    if not policy and database == session.database:
        policy = session.retention_policy
    return [session.catalog.storage(database, policy).snapshot()]


def check_tag_condition(condition: ast.Expr | None) -> None:
    """Refuse an ordering of anything but time: tags know equality and regexes only.

    Raises:
        StatementError: `invalid tag comparison operator`.
    """
    for expr in walk(condition) if condition is not None else ():
        if isinstance(expr, ast.BinaryExpr) and expr.op in _ORDERINGS and not has_time(expr):
            raise StatementError("invalid tag comparison operator")


def has_time(condition: ast.Expr | None) -> bool:
    """Return whether `time` occurs in a condition."""
    if condition is None:
        return False
    return any(isinstance(expr, ast.VarRef) and expr.name == "time" for expr in walk(condition))


def name_matches(name: str, choice: ast.NameFilter | None) -> bool:
    """Return whether a name is in a WITH choice; None chooses all."""
    if choice is None:
        return True
    if isinstance(choice.regex, ast.RegexLiteral):
        return Regex(choice.regex.pattern)(name) is (choice.op == "=~")
    return (name in choice.names) is (choice.op != "!=")


def tag_values(series: Iterable[SeriesSet], key: str) -> set[str]:
    """Return the values of a tag on series."""
    values: set[str | None] = set()
    for found in series:
        column = found.columns.get(key)
        if column is not None:
            used = np.flatnonzero(np.bincount(column.codes + 1)[1:])  # -1, no tag, counts as 0
            values.update(map(column.values.__getitem__, used.tolist()))
    return {value for value in values if value is not None}


def tag_keys(series: Iterable[SeriesSet], choice: ast.NameFilter | None = None) -> set[str]:
    """Return the tag keys of a WITH choice that at least one of the series has."""
    return {
        key
        for found in series
        for key, column in found.columns.items()
        if name_matches(key, choice) and (column.codes >= 0).any()
    }


def show_measurements(statement: ast.ShowMeasurements, session: Session) -> list[Series]:
    """List measurements; with `ON db.rp` or stars, where each of them is."""
    check_tag_condition(statement.condition)
    if statement.retention_policy or statement.database == "*":
        return _measurements_by_policy(statement, session)
    database = database_of(session, statement.database)
    if database not in session.catalog.databases:
        return []
    names = _measurement_names(statement, all_policies(session, database), session.now_ns)
    rows = page([(name,) for name in names], statement.limit, statement.offset)
    return [table(["name"], rows, "measurements")] if rows else []


def _measurement_names(
    statement: ast.ShowMeasurements, readers: Sequence[Reader], now_ns: int
) -> Iterator[str]:
    scope = Scope(readers, (), statement.condition, now_ns)
    for name in scope.measurements():
        if name_matches(name, statement.measurement) and (
            statement.condition is None or scope.series(name)
        ):
            yield name


def _measurements_by_policy(statement: ast.ShowMeasurements, session: Session) -> list[Series]:
    """Source: influxd 1.12, `SHOW MEASUREMENTS ON db.rp`, `ON db.*`, `ON *.*`."""
    catalog = session.catalog
    rows: list[tuple[str, str, str]] = []
    for database in catalog.databases.values():
        if statement.database not in {"*", database.name}:
            continue
        for policy in database.policies:
            chosen = statement.retention_policy or database.default_policy
            if chosen not in {"*", policy.name}:
                continue
            readers = [catalog.storage(database.name, policy.name).snapshot()]
            names = _measurement_names(statement, readers, session.now_ns)
            rows += [(name, database.name, policy.name) for name in names]
    paged = page(sorted(rows), statement.limit, statement.offset)
    columns = ["name", "database", "retention policy"]
    return [table(columns, paged, "measurements")] if paged else []


def show_tag_keys(statement: ast.ShowTagKeys, session: Session) -> list[Series]:
    """List the tag keys of each measurement: those on the matching series."""
    tables: list[Series] = []
    for name, found in _matching(statement, session):
        keys = sorted(tag_keys(found, statement.key))
        rows = page([(key,) for key in keys], statement.limit, statement.offset)
        if rows:
            tables.append(table(["tagKey"], rows, name))
    return tables


def show_tag_values(statement: ast.ShowTagValues, session: Session) -> list[Series]:
    """List the values of the chosen tag keys for each measurement, by key and value."""
    tables: list[Series] = []
    for name, found in _matching(statement, session):
        keys = chosen_keys(tag_keys(found, statement.key), statement.condition)
        pairs = [(key, value) for key in keys for value in sorted(tag_values(found, key))]
        rows = page(pairs, statement.limit, statement.offset)
        if rows:
            tables.append(table(["key", "value"], rows, name))
    return tables


def show_field_keys(statement: ast.ShowFieldKeys, session: Session) -> list[Series]:
    """List the fields of each measurement of one retention policy, with their types.

    Under a WHERE, which InfluxDB does not have: those that have a value in a matching point.
    """
    check_tag_condition(statement.condition)
    tables: list[Series] = []
    for name, fields in _fields(statement, session):
        named = [(key, kind.name.lower()) for key, kind in fields.items()]
        rows = page(named, statement.limit, statement.offset)
        if rows:
            tables.append(table(["fieldKey", "fieldType"], rows, name))
    return tables


def _fields(
    statement: ast.ShowFieldKeys, session: Session
) -> Iterator[tuple[str, dict[str, FieldType]]]:
    sources = statement.sources or (ast.Measurement(),)
    found: dict[str, dict[str, FieldType]] = {}
    for source in sources:
        database = database_of(session, source.database or statement.database)
        [reader] = one_policy(session, database, source.retention_policy)
        for name in reader.measurements():
            if not statement.sources or is_source(name, source):
                found.setdefault(name, _fields_of(reader, name, statement.condition, session))
    yield from sorted(found.items())


def _fields_of(
    reader: Reader, measurement: str, condition: ast.Expr | None, session: Session
) -> dict[str, FieldType]:
    fields = reader.field_keys(measurement)
    if condition is None:
        return fields
    query, start_ns, end_ns = where(condition, fields, session.now_ns)
    used: set[str] = set()
    for frame in reader.scan(ScanRequest(measurement, query, start_ns, end_ns)):
        session.interrupt.check()
        used.update(key for key, column in frame.columns.items() if column.mask().any())
        if len(used) == len(fields):
            break
    return {key: kind for key, kind in fields.items() if key in used}


def show_series(statement: ast.ShowSeries, session: Session) -> list[Series]:
    """List the series keys as line protocol writes them, sorted."""
    for source in statement.sources:  # influxd knows the policy, and then looks at all of them
        database = database_of(session, source.database or statement.database)
        session.catalog.database(database).policy(source.retention_policy)
    if not statement.sources:
        database = database_of(session, statement.database)
        session.catalog.database(database).policy(session.retention_policy)
    keys = {
        key
        for name, sets in _matching(statement, session)
        for found in sets
        for key in series_keys(name, found)
    }
    rows = page([(key,) for key in sorted(keys)], statement.limit, statement.offset)
    return [table(["key"], rows)] if rows else []


def series_keys(measurement: str, series: SeriesSet) -> list[str]:
    """Return each series as line protocol writes it: measurement and tags, escaped."""
    columns = [[measurement.translate(_MEASUREMENT_ESCAPES)] * len(series)]
    for key, column in sorted(series.columns.items()):
        head = "," + key.translate(_TAG_ESCAPES) + "="
        texts = [head + (value or "").translate(_TAG_ESCAPES) for value in column.values]
        texts.append("")  # code -1: the series lacks the tag
        columns.append([texts[code] for code in column.codes.tolist()])
    return ["".join(parts) for parts in zip(*columns, strict=True)]


def _matching(
    statement: ast.ShowTagKeys | ast.ShowTagValues | ast.ShowSeries, session: Session
) -> Iterator[tuple[str, list[SeriesSet]]]:
    """Yield the measurements in scope that have matching series, with these."""
    databases = {statement.database}
    if isinstance(statement, ast.ShowSeries) and statement.sources:
        databases = {source.database or statement.database for source in statement.sources}
    databases = {database_of(session, name) for name in databases}
    check_tag_condition(statement.condition)
    readers = [reader for name in sorted(databases) for reader in all_policies(session, name)]
    scope = Scope(readers, statement.sources, of_series(statement.condition), session.now_ns)
    for name in scope.measurements():
        session.interrupt.check()
        found = scope.series(name)
        if found:
            yield name, found


RUNNERS: Final[dict[type[ast.Statement], Runner]] = {
    ast.ShowMeasurements: show_measurements,
    ast.ShowTagKeys: show_tag_keys,
    ast.ShowTagValues: show_tag_values,
    ast.ShowFieldKeys: show_field_keys,
    ast.ShowSeries: show_series,
}
