"""A crash at any step of DROP, UNDROP, RENAME: points are where they were, or where they should be.

What a process left on the disk is copied at each step, and a catalog opened on the copy.
"""

from __future__ import annotations

import shutil
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from gateway import catalogfile, measurements, retention
from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.errors import StatementError
from gateway.policies import PolicyChange
from tinyflux.batch import BatchBuilder, series_key
from tinyflux.columnar.base import ScanRequest
from tinyflux.columnar.files import OsFiles
from tinyflux.columnar.parquet import ParquetStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

POLICIES = ("autogen", "p", "q")
EXPECTED = {policy: [1.0] for policy in POLICIES}


def write(catalog: Catalog, database: str, name: str = "cpu", value: object = 1.0) -> None:
    for policy in catalog.database(database).policies:
        builder = BatchBuilder()
        builder.add(series_key(name, [("host", "a")]), 7, [("v", value)])  # type: ignore[list-item]
        catalog.storage(database, policy.name).append_batch(builder.build())


def read(catalog: Catalog, database: str, name: str = "cpu") -> dict[str, list[float]]:
    """Policy to its values, for those that have some."""
    found: dict[str, list[float]] = {}
    for policy in catalog.database(database).policies:
        frames = catalog.storage(database, policy.name).scan(ScanRequest(name))
        if values := [value for frame in frames for value in frame.columns["v"].values.tolist()]:
            found[policy.name] = values
    return found


class Photographer:
    """Copies a data directory before and after each change of its files."""

    def __init__(self, data: Path, copies: Path, patched: pytest.MonkeyPatch) -> None:
        self._data = data
        self._root = copies
        self.copies: list[Path] = []
        for owner, name in (
            (catalogfile, "write"),
            (OsFiles, "replace"),
            (ParquetStorage, "rename_measurement"),
            (ParquetStorage, "drop_measurement"),
            (shutil, "rmtree"),
        ):
            patched.setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, step: Callable[..., object]) -> Callable[..., object]:
        def watched(*args: object) -> object:
            self._copy()
            result = step(*args)
            self._copy()
            return result

        return watched

    def _copy(self) -> None:
        self.copies.append(self._root / str(len(self.copies)))
        shutil.copytree(self._data, self.copies[-1])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a database `t` of three policies that has points of `cpu`."""
    catalog = Catalog(tmp_path / "data", Settings())
    catalog.create_database("t")
    for name in POLICIES[1:]:
        catalog.create_policy("t", name, PolicyChange(0))
    write(catalog, "t")
    catalog.storage("t", "p").flush()
    catalog.close()
    return tmp_path / "data"


def after_crashes(
    data: Path, what: Callable[[Catalog], object], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Catalog]:
    """Do something, and yield what is found after a crash at each of its steps."""
    catalog = Catalog(data, Settings())
    catalog.storages("t") if "t" in catalog.databases else None
    with monkeypatch.context() as patched:
        photographer = Photographer(data, data.parent / "copies", patched)
        what(catalog)
    catalog.close()
    assert len(photographer.copies) > 2
    for copy in [*photographer.copies, data]:
        found = Catalog(copy, Settings())
        yield found
        found.close()
        Catalog(copy, Settings()).close()  # and again


def reopened(data: Path, what: Callable[[Catalog], object]) -> None:
    catalog = Catalog(data, Settings())
    what(catalog)
    catalog.close()


def test_a_database_is_there_or_in_the_trash_after_a_crash_of_its_drop(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    for catalog in after_crashes(data, lambda c: c.drop_database("t"), monkeypatch):
        seen.add("t" in catalog.databases)
        if "t" not in catalog.databases:
            catalog.create_database("t")  # it is not taken for the old one
            assert read(catalog, "t") == {}
            catalog.undrop_database("t", "u")
            assert read(catalog, "u") == EXPECTED
        else:
            assert (read(catalog, "t"), catalog.trash) == (EXPECTED, ())
    assert seen == {False, True}


@pytest.mark.parametrize("name", ["t", "u"])
def test_a_database_is_there_or_in_the_trash_after_a_crash_of_its_undrop(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    reopened(data, lambda catalog: catalog.drop_database("t"))
    seen = set()
    for catalog in after_crashes(data, lambda c: c.undrop_database("t", name), monkeypatch):
        seen.add(name in catalog.databases)
        if name not in catalog.databases:
            catalog.create_database(name)
            assert read(catalog, name) == {}
            catalog.undrop_database("t", "again")
            assert read(catalog, "again") == EXPECTED
        else:
            assert (read(catalog, name), catalog.trash) == (EXPECTED, ())
    assert seen == {False, True}


def test_a_policy_is_there_or_in_the_trash_after_a_crash_of_drop_and_undrop(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop_and_undrop(catalog: Catalog) -> None:
        catalog.drop_policy("t", "p")
        catalog.undrop_policy("t", "p")

    seen = set()
    for catalog in after_crashes(data, drop_and_undrop, monkeypatch):
        seen.add(catalog.database("t").has_policy("p"))
        if not catalog.database("t").has_policy("p"):
            catalog.undrop_policy("t", "p")
        assert (read(catalog, "t"), catalog.trash) == (EXPECTED, ())
    assert seen == {False, True}


def undropped(catalog: Catalog) -> None:
    """Bring back whatever is in the trash."""
    for _ in catalog.trash:
        # The crash may have come before anything was hidden.
        with suppress(StatementError):
            measurements.undrop(catalog, "t", "cpu")


def test_a_measurement_comes_back_whole_after_a_crash_of_drop_and_undrop(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drop_and_undrop(catalog: Catalog) -> None:
        measurements.drop(catalog, "t", "cpu")
        measurements.undrop(catalog, "t", "cpu")

    seen = set()
    for catalog in after_crashes(data, drop_and_undrop, monkeypatch):
        seen.add(len(read(catalog, "t")))
        undropped(catalog)
        assert read(catalog, "t") == EXPECTED
    assert seen == {0, 1, 2, 3}


def test_a_drop_is_done_again_after_a_crash(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for catalog in after_crashes(data, lambda c: measurements.drop(c, "t", "cpu"), monkeypatch):
        measurements.drop(catalog, "t", "cpu")
        assert read(catalog, "t") == {}
        undropped(catalog)
        assert read(catalog, "t") == EXPECTED


def test_a_rename_is_done_again_after_a_crash(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rename(catalog: Catalog) -> None:
        measurements.rename(catalog, "t", "cpu", "load")

    for catalog in after_crashes(data, rename, monkeypatch):
        old, new = read(catalog, "t"), read(catalog, "t", "load")
        assert {**old, **new} == EXPECTED
        assert not old.keys() & new.keys()
        if old:
            rename(catalog)
        assert read(catalog, "t", "load") == EXPECTED


def drop_two(catalog: Catalog) -> None:
    write(catalog, "t", "kept")
    measurements.drop(catalog, "t", "cpu")
    catalog.create_database("u")
    write(catalog, "u")
    catalog.drop_database("u")


def purge(catalog: Catalog) -> int:
    return retention.purge_trash(catalog, 1 << 63)


def test_nothing_is_left_after_a_crash_of_a_purge(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopened(data, drop_two)
    for catalog in after_crashes(data, purge, monkeypatch):
        purge(catalog)
        assert catalog.trash == ()
        stores = catalog.storages("t")
        assert [len(store._state.index) for store in stores] == [1, 1, 1]  # type: ignore[attr-defined]
        assert read(catalog, "t", "kept") == EXPECTED


def test_what_a_crash_of_a_purge_left_comes_back_whole_or_not_at_all(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reopened(data, drop_two)
    came_back = []
    for catalog in after_crashes(data, purge, monkeypatch):
        try:
            catalog.undrop_database("u")
        except StatementError:
            came_back.append(False)
        else:
            came_back.append(True)
            assert read(catalog, "u") == {"autogen": [1.0]}
    assert set(came_back) == {False, True}
    assert came_back == sorted(came_back, reverse=True)


def test_points_written_while_a_measurement_is_renamed_are_in_one_of_its_names(
    tmp_path: Path,
) -> None:
    store = ParquetStorage(tmp_path, overwrite=True, flush_bytes=2000, sync="off")
    done = threading.Event()
    written = 0

    def write_on() -> None:
        nonlocal written
        while not done.is_set():
            builder = BatchBuilder()
            for host in "abc":
                builder.add(series_key("cpu", [("host", host)]), written, [("v", 1.0)])
            assert store.append_batch(builder.build()).stored == 3
            written += 1

    thread = threading.Thread(target=write_on)
    thread.start()
    names = [f"cpu{number}" for number in range(30)]
    try:
        for name in names:
            before = written
            while written < before + 3:
                done.wait(0.001)
            assert store.rename_measurement("cpu", name)
    finally:
        done.set()
        thread.join()
    for _ in range(2):
        found = [
            frame.times.tolist()
            for name in ["cpu", *names]
            for frame in store.scan(ScanRequest(name))
        ]
        assert sorted(time for times in found for time in times) == sorted([*range(written)] * 3)
        store.close()
        store = ParquetStorage(tmp_path, overwrite=True)
    store.close()
