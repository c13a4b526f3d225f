"""The same random operations on every storage and on a list of Points that asks each one: all that
can be observed must be equal.
"""

from __future__ import annotations

import copy
import operator
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tinyflux import (
    CSVStorage,
    FieldQuery,
    MeasurementQuery,
    MemoryStorage,
    ParquetStorage,
    Point,
    Storage,
    TagQuery,
    TimeQuery,
    TinyFlux,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tinyflux.queries import Query

START = datetime(2024, 1, 1, tzinfo=UTC)
NAMES = ["a", "b", ""]
TAG_KEYS = ["host", "dc"]
TAG_VALUES = ["x", "y", "", None]
FIELD_KEYS = ["f", "g"]
FIELD_VALUES = [0, 1, 2, -1.5, 1.0, 2.5, 1e300, 2**40, None]

times = st.one_of(
    st.integers(0, 8).map(lambda n: START + timedelta(seconds=n)),
    st.sampled_from([START + timedelta(microseconds=1), datetime(1700, 2, 3, 4, 5, 6, 7, UTC)]),
)
tags = st.dictionaries(st.sampled_from(TAG_KEYS), st.sampled_from(TAG_VALUES))
fields = st.dictionaries(st.sampled_from(FIELD_KEYS), st.sampled_from(FIELD_VALUES))
points = st.builds(Point, time=times, measurement=st.sampled_from(NAMES), tags=tags, fields=fields)


def _time_query(comparison: str, time: datetime) -> Query:
    query: Query = getattr(TimeQuery(), comparison)(time)
    return query


def _tag_query(comparison: str, key: str, value: str | None) -> Query:
    query: Query = getattr(TagQuery()[key], comparison)(value)
    return query


def _field_query(comparison: str, key: str, value: float | None) -> Query:
    query: Query = getattr(FieldQuery()[key], comparison)(value)
    return query


OPERATORS = st.sampled_from(["__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"])
leaves: st.SearchStrategy[Query] = st.one_of(
    st.builds(_time_query, OPERATORS, times),
    st.builds(_tag_query, OPERATORS, st.sampled_from(TAG_KEYS), st.sampled_from(TAG_VALUES)),
    st.builds(_field_query, OPERATORS, st.sampled_from(FIELD_KEYS), st.sampled_from(FIELD_VALUES)),
    st.sampled_from(
        [
            MeasurementQuery() == "a",
            MeasurementQuery() != "b",
            TagQuery().host.exists(),
            FieldQuery().f.exists(),
            TagQuery().noop(),
            FieldQuery().noop(),
            TagQuery().host.search("x|y"),
            MeasurementQuery().matches("[ab]"),
            TagQuery().host.test(lambda value: value is None),
            FieldQuery().f.test(lambda value, limit: (value or 0) > limit, 1),
            FieldQuery().f.map(abs) > 1,
            FieldQuery().map(len) == 2,
            FieldQuery().map(dict).f == 1,
            TagQuery().map(lambda tags: tags.get("dc")) == "y",
            TimeQuery().map(lambda time: time + timedelta(seconds=1)) == START,
            TimeQuery().test(lambda time: time.second > 4),
            TimeQuery() == None,  # noqa: E711
            TimeQuery() != None,  # noqa: E711
        ]
    ),
)
pairs: st.SearchStrategy[Query] = st.one_of(
    st.builds(operator.and_, leaves, leaves),
    st.builds(operator.or_, leaves, leaves),
    st.builds(operator.invert, leaves),
)
queries: st.SearchStrategy[Query] = st.one_of(
    leaves,
    pairs,
    st.builds(operator.and_, pairs, pairs),
    st.builds(operator.or_, pairs, leaves),
    st.builds(operator.invert, pairs),
)
changes: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"time": START + timedelta(seconds=4)},
        {"time": lambda time: time + timedelta(seconds=1)},
        {"measurement": "b"},
        {"measurement": lambda name: name + "a" if len(name) < 2 else "a"},
        {"tags": {"dc": "z"}},
        {"tags": lambda tags: {"host": tags.get("dc")}},
        {"fields": {"g": 7.0}},
        {"fields": lambda fields: {"f": (fields.get("f") or 0) + 1}},
        {"unset_tags": "host"},
        {"unset_fields": ["f", "g"]},
        {"fields": {"f": 1, "g": None}, "unset_tags": ("dc",), "tags": {"host": "y"}},
    ]
)


class ListStorage(Storage):
    """A storage as a third party writes it: the item contract and no more."""

    def __init__(self) -> None:
        self._items: list[tuple[str, ...]] = []
        self._temp: list[tuple[str, ...]] = []

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(list(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def append(self, points: Sequence[tuple[str, ...]], temporary: bool = False) -> None:
        (self._temp if temporary else self._items).extend(points)

    def read(self) -> list[Point]:
        return [self._deserialize_storage_item(item) for item in self._items]

    def reset(self) -> None:
        self._items = []

    def _deserialize_measurement(self, item: tuple[str, ...]) -> str:
        return item[1]

    def _deserialize_timestamp(self, item: tuple[str, ...]) -> datetime:
        return datetime.fromisoformat(item[0])

    def _deserialize_storage_item(self, item: tuple[str, ...]) -> Point:
        return Point()._deserialize_from_list(item)

    def _serialize_point(self, point: Point, *args: Any, **kwargs: Any) -> tuple[str, ...]:
        return point._serialize_to_list()

    def _swap_temp_with_primary(self) -> None:
        self._items, self._temp = self._temp, []

    def _write(self, items: Sequence[tuple[str, ...]]) -> None:
        self._items = list(items)


class Model:
    """A list of Points."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def search(self, query: Query, measurement: str | None) -> list[Point]:
        return [p for p in self.points if _named(p, measurement) and query(p)]

    def update(self, query: Query, measurement: str | None, change: dict[str, Any]) -> int:
        changed = 0
        for point in self.search(query, measurement):
            before = copy.deepcopy(point)
            for name in ("time", "measurement"):
                if name in change:
                    new = change[name]
                    old = getattr(point, name)
                    setattr(point, name, new(old) if callable(new) else new)
            for name in ("tags", "fields"):
                merged = dict(getattr(point, name))
                if name in change:
                    new = change[name]
                    merged.update(new(dict(merged)) if callable(new) else new)
                unset = change.get("unset_" + name, ())
                for key in [unset] if isinstance(unset, str) else unset:
                    merged.pop(key, None)
                setattr(point, name, merged)
            changed += point != before
        return changed

    def remove(self, query: Query, measurement: str | None) -> int:
        gone = {id(point) for point in self.search(query, measurement)}
        self.points = [point for point in self.points if id(point) not in gone]
        return len(gone)


def _named(point: Point, measurement: str | None) -> bool:
    return not measurement or point.measurement == measurement


def _row(point: Point) -> tuple[Any, ...]:
    # A measurement "" comes back as "_none" from a row form; that is the format.
    name = point.measurement or "_none"
    tags = sorted(point.tags.items(), key=str)
    fields = [(k, v if v is None else float(v)) for k, v in sorted(point.fields.items())]
    return point.time, name, tags, fields


def _rows(points: Sequence[Point]) -> list[tuple[Any, ...]]:
    return [_row(point) for point in points]


def _unordered(values: Sequence[Any]) -> list[str]:
    return sorted(map(repr, values))


class Storages(RuleBasedStateMachine):
    """Each database gets the same operations; `ordered` ones promise insertion order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name)
        self.openers: dict[str, Callable[[], TinyFlux]] = {
            "memory": lambda: TinyFlux(storage=MemoryStorage),
            "memory without index": lambda: TinyFlux(storage=MemoryStorage, auto_index=False),
            "csv": lambda: TinyFlux(path / "a.csv", storage=CSVStorage, flush_on_insert=False),
            "csv without index": lambda: TinyFlux(
                path / "b.csv", auto_index=False, flush_on_insert=False
            ),
            "third party": lambda: TinyFlux(storage=ListStorage),
            "parquet in memory": lambda: TinyFlux(storage=ParquetStorage),
            "parquet": lambda: TinyFlux(path / "p", storage=ParquetStorage),
        }
        self.dbs = {name: opener() for name, opener in self.openers.items()}
        self.model = Model()

    def teardown(self) -> None:
        for db in self.dbs.values():
            db.close()
        self.folder.cleanup()

    @initialize(first=st.lists(points, max_size=6))
    def begin(self, first: list[Point]) -> None:
        self.insert(first)

    @rule(new=st.lists(points, min_size=1, max_size=5))
    def insert(self, new: list[Point]) -> None:
        for point in new:
            point.measurement = point.measurement or "_none"
        for db in self.dbs.values():
            assert db.insert_multiple(copy.deepcopy(new), batch_size=2) == len(new)
        self.model.points += copy.deepcopy(new)

    @rule(point=points, name=st.sampled_from(["a", None]))
    def insert_one(self, point: Point, name: str | None) -> None:
        point.measurement = point.measurement or "_none"
        for db in self.dbs.values():
            assert db.insert(copy.deepcopy(point), name) == 1
        stored = copy.deepcopy(point)
        stored.measurement = name or stored.measurement
        self.model.points.append(stored)

    @rule(query=queries, name=st.sampled_from(["a", "b", None]), change=changes)
    def update(self, query: Query, name: str | None, change: dict[str, Any]) -> None:
        expected = self.model.update(query, name, change)
        for label, db in self.dbs.items():
            assert db.update(query, _measurement=name, **change) == expected, label

    @rule(query=queries, name=st.sampled_from(["a", "b", None]))
    def remove(self, query: Query, name: str | None) -> None:
        expected = self.model.remove(query, name)
        for label, db in self.dbs.items():
            assert db.remove(query, name) == expected, label

    @rule(name=st.sampled_from(["a", "b", "nobody"]))
    def drop(self, name: str) -> None:
        expected = self.model.remove(MeasurementQuery() == name, None)
        for label, db in self.dbs.items():
            assert db.drop_measurement(name) == expected, label

    @rule()
    def remove_all(self) -> None:
        self.model.points = []
        for db in self.dbs.values():
            db.remove_all()

    @rule(label=st.sampled_from(["csv", "csv without index", "parquet"]))
    def reopen(self, label: str) -> None:
        self.dbs[label].close()
        self.dbs[label] = self.openers[label]()

    @rule(label=st.sampled_from(["memory without index", "csv without index"]))
    def reindex(self, label: str) -> None:
        if not self.dbs[label].index.valid:
            self.dbs[label].reindex()
            assert self.dbs[label].index.valid

    @rule(query=queries, name=st.sampled_from(["a", "b", "nobody", None]))
    def ask(self, query: Query, name: str | None) -> None:
        expected = self.model.search(query, name)
        by_time = sorted(expected, key=lambda point: point.time)  # type: ignore[arg-type,return-value]
        keys = ["time", "measurement", "tags.host", "fields.f"]
        selected = [
            (p.time, p.measurement, p.tags.get("host"), p.fields.get("f")) for p in expected
        ]
        for label, db in self.dbs.items():
            found = db.search(query, name, sorted=False)
            first = db.get(query, name)
            assert db.count(query, name) == len(expected), label
            assert db.contains(query, name) is bool(expected), label
            if "parquet" not in label:
                assert _rows(found) == _rows(expected), label
                assert _rows(db.search(query, name)) == _rows(by_time), label
                assert db.select(keys, query, name) == selected, label
                assert first == (expected[0] if expected else None), label
            else:
                assert _unordered(_rows(found)) == _unordered(_rows(expected)), label
                times = [point.time for point in db.search(query, name)]
                assert times == [point.time for point in by_time], label
                assert len(db.select(keys, query, name)) == len(selected), label
                assert set(_unordered([row[:3] for row in db.select(keys, query, name)])) == set(
                    _unordered([row[:3] for row in selected])
                ), label
                assert (first is None) is (not expected), label

    @rule(name=st.sampled_from(["a", "b", "nobody", None]))
    def describe(self, name: str | None) -> None:
        mine = [point for point in self.model.points if _named(point, name)]
        tag_values: dict[str, set[Any]] = {}
        for point in mine:
            for key, value in point.tags.items():
                tag_values.setdefault(key, set()).add(value)
        values = [point.fields["f"] for point in mine if "f" in point.fields]
        for label, db in self.dbs.items():
            assert db.get_measurements() == sorted({p.measurement for p in self.model.points}), (
                label
            )
            assert db.get_tag_keys(name) == sorted(tag_values), label
            assert db.get_field_keys(name) == sorted({k for p in mine for k in p.fields}), label
            assert {k: set(v) for k, v in db.get_tag_values((), name).items()} == tag_values, label
            assert db.get_tag_values(["host"], name).keys() == {"host"}, label
            found, stamps = db.get_field_values("f", name), db.get_timestamps(name)
            if "parquet" in label:
                found.sort(key=lambda value: (value is None, value or 0))
                values = sorted(values, key=lambda value: (value is None, value or 0))
                assert sorted(stamps) == sorted(p.time for p in mine if p.time), label
            else:
                assert stamps == [p.time for p in mine], label
            assert found == values, label

    @invariant()
    def equal(self) -> None:
        expected = _rows(self.model.points)
        for label, db in self.dbs.items():
            assert len(db) == len(expected), label
            if "parquet" in label:
                assert _unordered(_rows(list(db))) == _unordered(expected), label
            else:
                assert _rows(list(db)) == expected, label
            if "without" not in label:
                db.all()
                assert db.index.valid, label
                assert len(db.index) == len(expected), label


Storages.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_storages_agree_on_everything_observable = Storages.TestCase


class TestStoragesAgreeForLong(Storages.TestCase):  # type: ignore[misc, valid-type]
    """The same, for the nightly run."""

    settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
    pytestmark = pytest.mark.slow
