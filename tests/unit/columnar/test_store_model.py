"""Whatever is done to a store, it holds what a list of dicts would hold. Both overwrite modes, in
memory and on disk.

Memtables tidy and merge here at a few rows already.
"""

from __future__ import annotations

import operator
import shutil
import tempfile
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tinyflux.batch import BatchBuilder, FieldValue, PointBatch, series_key
from tinyflux.columnar import memtable
from tinyflux.columnar.base import DeleteRequest, Frame, Replacement, ScanRequest
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.points import field_dicts
from tinyflux.errors import QueryError
from tinyflux.queries import FieldQuery, TagQuery

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tinyflux.columnar.base import Reader

Tags: TypeAlias = tuple[tuple[str, str], ...]
Row: TypeAlias = tuple[str, Tags, int, dict[str, FieldValue]]

MEASUREMENTS = ("cpu", "mem")
# Each field keeps one type until it is dropped, so that nothing is refused: conflicts have tests of
# their own. "x" comes back with another type.
VALUES: dict[str, st.SearchStrategy[FieldValue]] = {
    "f": st.one_of(st.floats(allow_nan=False), st.none()),
    "i": st.integers(-(2**63), 2**63 - 1),
    "s": st.text(max_size=3),
    "b": st.booleans(),
    "x": st.integers(0, 9),
}


@pytest.fixture(autouse=True, scope="module")
def _small_runs() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memtable, "_FAN", 3)
        patch.setattr(memtable, "_BY_READERS", (0, 2, 4))
        patch.setattr(memtable, "_BY_WRITER", (4, 8, 16))
        patch.setattr(memtable, "_TIDY_POINTS", 2)
        patch.setattr(memtable, "_TIDY_POINTS_A_TABLE", 1)
        yield


@st.composite
def a_row(draw: st.DrawFn) -> Row:
    tags: dict[str, str] = {}
    for key in ("host", "dc"):
        if value := draw(st.sampled_from(["", "a", "b"])):
            tags[key] = value
    fields = {key: draw(VALUES[key]) for key in draw(st.sets(st.sampled_from(sorted(VALUES))))}
    measurement = draw(st.sampled_from(MEASUREMENTS))
    return measurement, tuple(sorted(tags.items())), draw(st.integers(-3, 3)), fields


ROWS = st.lists(a_row(), max_size=8)
TIMES = st.integers(-4, 4)


def batch_of(rows: Iterable[Row]) -> PointBatch:
    builder = BatchBuilder()
    for measurement, tags, time, fields in rows:
        builder.add(series_key(measurement, tags), time, fields.items())
    return builder.build()


def normal(value: FieldValue) -> tuple[str, object]:
    """Tell 1 from True and from 1.0, and -0.0 from 0.0."""
    return type(value).__name__, repr(value)


def comparable(rows: Iterable[Row]) -> list[object]:
    return [(m, t, time, sorted((k, normal(v)) for k, v in f.items())) for m, t, time, f in rows]


def rows_of(reader: Reader) -> list[Row]:
    """All rows by measurement, tag set and time; twins in the order of the store."""
    rows: list[Row] = []
    for name in reader.measurements():
        for frame in reader.scan(ScanRequest(name)):
            rows += rows_of_frame(name, frame)
    return sorted(rows, key=operator.itemgetter(0, 1, 2))


def rows_of_frame(name: str, frame: Frame) -> list[Row]:
    assert len(frame)
    assert (np.diff(frame.offsets) > 0).all()
    tags = [tuple(frame.series.tags(i).items()) for i in range(len(frame.series))]
    fields = field_dicts(frame, np.arange(len(frame)))
    return [
        (name, tags[i], time, f)
        for i, time, f in zip(frame.series_rows(), frame.times.tolist(), fields, strict=True)
    ]


class Model:
    """The naive store."""

    def __init__(self, *, overwrite: bool) -> None:
        self.overwrite = overwrite
        self.rows: list[Row] = []
        self.hidden: list[Row] = []

    def rename(self, measurement: str, name: str) -> None:
        self.rows = [(name, *row[1:]) if row[0] == measurement else row for row in self.rows]

    def append(self, rows: Iterable[Row]) -> None:
        for row in rows:
            measurement, tags, time, fields = row
            for old in self.rows if self.overwrite else ():
                if old[:3] == (measurement, tags, time):
                    old[3].update(fields)
                    break
            else:
                self.rows.append((measurement, tags, time, dict(fields)))

    def sorted(self) -> list[Row]:
        return sorted(self.rows, key=operator.itemgetter(0, 1, 2))


class StoreMachine(RuleBasedStateMachine):
    """Random operations on a store and on the model."""

    on_disk = False

    @initialize(overwrite=st.booleans(), bare=st.booleans())
    def open(self, overwrite: bool, bare: bool) -> None:
        self.bare = bare  # whether points without fields come, as only the TinyFlux API has them
        self.type_of_x: dict[str, type[int | str]] = dict.fromkeys(MEASUREMENTS, int)
        self.path = tempfile.mkdtemp() if self.on_disk else None
        self.model = Model(overwrite=overwrite)
        self.store = self._open()
        self.snapshots: list[tuple[Reader, list[object]]] = []

    def _open(self) -> ParquetStorage:
        return ParquetStorage(
            self.path, overwrite=self.model.overwrite, sync="off", shard_duration_ns=3
        )

    @rule(rows=ROWS)
    def append(self, rows: list[Row]) -> None:
        rows = [self._typed(row) for row in rows if row[3] or self.bare]
        assert self.store.append_batch(batch_of(rows)).stored == len(rows)
        self.model.append(rows)

    def _typed(self, row: Row) -> Row:
        measurement, tags, time, fields = row
        if (x := fields.get("x")) is not None:
            fields = {**fields, "x": self.type_of_x[measurement](x)}
        return measurement, tags, time, fields

    @rule(name=st.sampled_from(MEASUREMENTS), field=st.sampled_from(sorted(VALUES)))
    def drop_field(self, name: str, field: str) -> None:
        if self.bare and self.model.overwrite:
            return  # is a point that was merged from one without fields left without fields?
        is_there = any(row[0] == name and field in row[3] for row in self.model.rows)
        assert self.store.drop_field(name, field) or not is_there
        assert field not in self.store.field_keys(name)
        stay = []
        for row in self.model.rows:
            if row[0] != name or row[3].pop(field, self) is self or row[3]:
                stay.append(row)
        self.model.rows = stay
        if field == "x":
            self.type_of_x[name] = str if self.type_of_x[name] is int else int

    @rule(limit=st.integers(-2, 2), start=TIMES, host=st.sampled_from(["a", None]))
    def delete_by_field(self, limit: int, start: int, host: str | None) -> None:
        by_field, by_tag = FieldQuery().i > limit, TagQuery().host == host
        query = by_field if host is None else by_field | by_tag
        self.store.delete(DeleteRequest("cpu", query, start))

        def matches(row: Row) -> bool:
            value = row[3].get("i")
            is_hit = isinstance(value, int) and value > limit
            is_hit |= host is not None and dict(row[1]).get("host") == host
            return row[0] == "cpu" and row[2] >= start and is_hit

        self.model.rows = [row for row in self.model.rows if not matches(row)]

    @rule(start=TIMES, end=TIMES, host=st.sampled_from(["a", "b", "c", None]))
    def delete(self, start: int, end: int, host: str | None) -> None:
        query = None if host is None else TagQuery().host == host
        self.store.delete(DeleteRequest("cpu", query, start, end))
        self.model.rows = [
            row
            for row in self.model.rows
            if not (row[0] == "cpu" and start <= row[2] <= end)
            or (host is not None and dict(row[1]).get("host") != host)
        ]

    @rule()
    def drop(self) -> None:
        existed = any(row[0] == "mem" for row in self.model.rows)
        assert self.store.drop_measurement("mem") == existed
        self.model.rows = [row for row in self.model.rows if row[0] != "mem"]

    @rule(names=st.permutations(MEASUREMENTS))
    def rename(self, names: list[str]) -> None:
        exists = [any(row[0] == name for row in self.model.rows) for name in names]
        if all(exists):
            with pytest.raises(QueryError, match=f"measurement already exists: {names[1]}"):
                self.store.rename_measurement(*names)
        else:
            assert self.store.rename_measurement(*names) == exists[0]
            self.model.rename(*names)
            if exists[0]:
                self.type_of_x[names[1]] = self.type_of_x[names[0]]

    @rule()
    def hide(self) -> None:
        if not self.model.hidden:
            self.store.rename_measurement("mem", "\0mem")
            self.type_of_x["\0mem"] = self.type_of_x["mem"]
            self.model.hidden = [row for row in self.model.rows if row[0] == "mem"]
            self.model.rows = [row for row in self.model.rows if row[0] != "mem"]

    @rule()
    def show(self) -> None:
        if not any(row[0] == "mem" for row in self.model.rows):
            assert self.store.rename_measurement("\0mem", "mem") == bool(self.model.hidden)
            if self.model.hidden:
                self.type_of_x["mem"] = self.type_of_x["\0mem"]
            self.model.rows += self.model.hidden
            self.model.hidden = []

    @rule(limit=st.integers(-2, 2), shift=st.sampled_from([0, 1]))
    def move(self, limit: int, shift: int) -> None:
        """Move the points with i > limit in time, and drop their other fields."""

        def change(frame: Frame) -> Replacement:
            rows = rows_of_frame("cpu", frame)
            moved = [(m, t, time + shift, {"i": f["i"]}) for m, t, time, f in rows]
            return Replacement(np.ones(len(frame), np.bool_), batch_of(moved))

        n = self.store.rewrite([ScanRequest("cpu", FieldQuery().i > limit)], change)

        def matches(row: Row) -> bool:
            value = row[3].get("i")
            return row[0] == "cpu" and isinstance(value, int) and value > limit

        gone = [row for row in self.model.rows if matches(row)]
        assert n == len(gone)
        self.model.rows = [row for row in self.model.rows if not matches(row)]
        # The store sorts by series and time, so that is the order in which `change` saw them.
        order = {tags: i for i, tags in enumerate(self._series_order())}
        gone.sort(key=lambda row: (order[row[1]], row[2]))
        self.model.append([(m, t, time + shift, {"i": f["i"]}) for m, t, time, f in gone])

    def _series_order(self) -> list[Tags]:
        series = self.store.series("cpu")
        tags = [tuple(series.tags(i).items()) for i in range(len(series))]
        known = dict.fromkeys(tags)  # ascending ids
        return list(dict.fromkeys([*known, *(row[1] for row in self.model.rows)]))  # type: ignore[list-item]

    @rule()
    def look_at_mem_only(self) -> None:
        list(self.store.scan(ScanRequest("mem")))

    @rule()
    def take_snapshot(self) -> None:
        self.snapshots.append((self.store.snapshot(), comparable(self.model.sorted())))

    @invariant()
    def snapshots_keep_their_rows(self) -> None:
        for snapshot, rows in getattr(self, "snapshots", [])[-2:]:
            assert comparable(rows_of(snapshot)) == rows

    @invariant()
    def names_are_those_of_the_rows(self) -> None:
        if hasattr(self, "store"):
            assert self.store.measurements() == sorted({row[0] for row in self.model.rows})
            assert self.store.series_count() == len({row[:2] for row in self.model.rows})

    def teardown(self) -> None:
        if hasattr(self, "store"):
            assert comparable(rows_of(self.store)) == comparable(self.model.sorted())
            assert len(self.store) == len(self.model.rows)
            self.store.close()
            if self.path is not None:
                shutil.rmtree(self.path)


class DiskStoreMachine(StoreMachine):
    """The same with a log, segments and reopening."""

    on_disk = True

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = self._open()
        self.snapshots = []  # theirs was closed: what only they knew is swept away

    @rule()
    def flush(self) -> None:
        self.store.flush()

    @rule()
    def compact(self) -> None:
        self.store.compact()


TestStoreInMemory = StoreMachine.TestCase
TestStoreInMemory.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestStoreOnDisk = DiskStoreMachine.TestCase
TestStoreOnDisk.settings = settings(
    max_examples=40, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
