"""Databases and retention policies, and what a crash or a second process may do to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.errors import DatabaseNotFound, RetentionPolicyNotFound, StatementError
from gateway.policies import (
    DAY_NS,
    HOUR_NS,
    PolicyChange,
    RetentionPolicy,
    directory_name,
    shard_duration,
)
from tinyflux.batch import BatchBuilder, series_key
from tinyflux.columnar.files import OsFiles
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import CorruptionError, StorageClosed, StorageError, StorageLocked

if TYPE_CHECKING:
    from pathlib import Path


def test_database_starts_with_an_infinite_policy_named_autogen(catalog: Catalog) -> None:
    catalog.create_database("t")
    database = catalog.database("t")
    assert database.policies == (RetentionPolicy("autogen", 0, 7 * DAY_NS, 1),)
    assert database.default_policy == "autogen"


def test_databases_are_listed_in_the_order_they_were_created(catalog: Catalog) -> None:
    for name in ("z", "a", "m"):
        catalog.create_database(name)
    assert list(catalog.databases) == ["z", "a", "m"]


def test_catalog_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("t", PolicyChange(2 * DAY_NS, replication=2), "short")
    catalog.create_policy("t", "long", PolicyChange(0, is_default=True))
    before = dict(catalog.databases)
    catalog.close()
    again = Catalog(tmp_path, Settings())
    assert again.databases == before
    assert again.database("t").default_policy == "long"
    again.close()


@pytest.mark.parametrize(
    ("duration_ns", "wanted_ns", "shard_ns"),
    [  # measured on influxd 1.6.7
        (HOUR_NS, None, HOUR_NS),
        (47 * HOUR_NS, None, HOUR_NS),
        (48 * HOUR_NS, None, DAY_NS),
        (179 * DAY_NS, None, DAY_NS),
        (180 * DAY_NS, None, 7 * DAY_NS),
        (0, None, 7 * DAY_NS),
        (2 * HOUR_NS, HOUR_NS // 2, HOUR_NS),
        (50 * DAY_NS, 3 * HOUR_NS, 3 * HOUR_NS),
    ],
)
def test_shard_duration_follows_the_policy_duration(
    duration_ns: int, wanted_ns: int | None, shard_ns: int
) -> None:
    assert shard_duration(duration_ns, wanted_ns) == shard_ns


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            PolicyChange(HOUR_NS // 2),
            "retention policy duration must be at least 1h0m0s",
        ),
        (
            PolicyChange(2 * HOUR_NS, 3 * HOUR_NS),
            "retention policy duration must be greater than the shard duration",
        ),
    ],
)
def test_policy_with_impossible_durations_is_refused(
    catalog: Catalog, change: PolicyChange, text: str
) -> None:
    catalog.create_database("t")
    with pytest.raises(StatementError, match=text):
        catalog.create_policy("t", "p", change)
    with pytest.raises(StatementError, match=text):
        catalog.create_database("u", change)
    assert list(catalog.databases) == ["t"]


def test_creating_again_what_exists_is_no_error_when_it_agrees(catalog: Catalog) -> None:
    catalog.create_database("t", PolicyChange(5 * DAY_NS), "p")
    catalog.create_database("t")
    catalog.create_database("t", PolicyChange(), "p")
    catalog.create_database("t", PolicyChange(5 * DAY_NS), "p")
    catalog.create_policy("t", "p", PolicyChange(5 * DAY_NS))
    assert len(catalog.database("t").policies) == 1


def test_creating_again_what_differs_is_refused(catalog: Catalog) -> None:
    catalog.create_database("t", PolicyChange(5 * DAY_NS), "p")
    conflict = "retention policy conflicts with an existing policy"
    with pytest.raises(StatementError, match=conflict):
        catalog.create_database("t", PolicyChange(6 * DAY_NS), "p")
    with pytest.raises(StatementError, match=conflict):
        catalog.create_database("t", PolicyChange(), "q")
    with pytest.raises(StatementError, match="retention policy already exists"):
        catalog.create_policy("t", "p", PolicyChange(6 * DAY_NS))
    catalog.create_policy("t", "q", PolicyChange(0))
    with pytest.raises(StatementError, match=conflict):
        catalog.create_policy("t", "q", PolicyChange(0, is_default=True))


def test_altering_a_policy_changes_only_what_is_said(catalog: Catalog) -> None:
    catalog.create_database("t", PolicyChange(2 * HOUR_NS), "p")
    catalog.alter_policy("t", "p", PolicyChange(50 * DAY_NS))
    assert catalog.database("t").policy("p") == RetentionPolicy("p", 50 * DAY_NS, HOUR_NS, 1)
    catalog.create_policy("t", "q", PolicyChange(0))
    catalog.alter_policy("t", "q", PolicyChange(replication=3, is_default=True))
    assert catalog.database("t").policy() == RetentionPolicy("q", 0, 7 * DAY_NS, 3)


@pytest.mark.parametrize("name", ["nope", ""])
def test_altering_an_unknown_policy_is_refused(catalog: Catalog, name: str) -> None:
    catalog.create_database("t")
    with pytest.raises(RetentionPolicyNotFound, match=f"retention policy not found: {name}"):
        catalog.alter_policy("t", name, PolicyChange(0))
    with pytest.raises(DatabaseNotFound, match="database not found: nodb"):
        catalog.alter_policy("nodb", name, PolicyChange(0))


def test_dropping_the_default_policy_leaves_a_default_that_does_not_exist(
    catalog: Catalog,
) -> None:
    catalog.create_database("t")
    assert catalog.drop_policy("t", "autogen")
    assert not catalog.drop_policy("t", "autogen")
    with pytest.raises(RetentionPolicyNotFound, match="retention policy not found: autogen"):
        catalog.storage("t")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a\\b", "a\tb", "a\0b", "x" * 256, "é" * 128]
)
def test_name_that_influxd_or_the_file_system_refuses_is_invalid(
    catalog: Catalog, name: str
) -> None:
    text = "name too long" if len(name) > 100 else "invalid name"
    with pytest.raises(StatementError, match=text):
        catalog.create_database(name)
    catalog.create_database("t")
    with pytest.raises(StatementError, match=text):
        catalog.create_policy("t", name, PolicyChange(0))


@pytest.mark.parametrize(
    "name", ["catalog.json", "catalog.lock", "a.b", "100%", "%2E", " é ü ", "a:b*"]
)
def test_database_of_any_other_name_has_a_directory_of_its_own(tmp_path: Path, name: str) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database(name)
    catalog.storage(name)
    catalog.close()
    assert (tmp_path / directory_name(name) / "autogen").is_dir()
    assert "." not in directory_name(name)
    again = Catalog(tmp_path, Settings())
    assert list(again.databases) == [name]
    again.close()


def test_directory_names_of_different_databases_differ() -> None:
    names = ["a.b", "a%2Eb", "a%252Eb", "a%b", "a%25b"]
    assert len({directory_name(name) for name in names}) == len(names)


def _write(catalog: Catalog, database: str) -> None:
    builder = BatchBuilder()
    builder.add(series_key("cpu", [("host", "a")]), 1, [("usage", 1.0)])
    catalog.storage(database).append_batch(builder.build())


def test_store_keeps_its_points_when_the_catalog_is_opened_again(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("t")
    _write(catalog, "t")
    catalog.close()
    again = Catalog(tmp_path, Settings())
    assert again.storage("t").measurements() == ["cpu"]
    again.close()


def test_segments_are_seen_before_a_store_is_opened(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("t")
    _write(catalog, "t")
    assert not catalog.has_segments
    store = catalog.storage("t")
    assert isinstance(store, ParquetStorage)
    store.flush()
    catalog.close()

    again = Catalog(tmp_path, Settings())
    assert again.has_segments
    assert not again.open_stores()
    again.close()


def test_dropped_database_leaves_neither_files_nor_points(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("t")
    _write(catalog, "t")
    assert catalog.drop_database("t")
    assert not catalog.drop_database("t")
    assert not (tmp_path / "t").exists()
    with pytest.raises(DatabaseNotFound):
        catalog.storage("t")
    catalog.create_database("t")
    assert catalog.storage("t").measurements() == []
    catalog.close()


def test_drop_that_a_crash_cut_short_is_finished_at_the_next_start(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    for name in ("t", "u"):
        catalog.create_database(name)
        _write(catalog, name)
    catalog.close()
    document = orjson.loads((tmp_path / "catalog.json").read_bytes())
    document["databases"] = [entry for entry in document["databases"] if entry["name"] != "t"]
    document["dropping"] = [["t", ""]]
    (tmp_path / "catalog.json").write_bytes(orjson.dumps(document))

    again = Catalog(tmp_path, Settings())
    assert list(again.databases) == ["u"]
    assert not (tmp_path / "t").exists()
    assert again.storage("u").measurements() == ["cpu"]
    assert orjson.loads((tmp_path / "catalog.json").read_bytes())["dropping"] == []
    again.close()


def test_name_is_not_given_again_while_its_files_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("t")
    _write(catalog, "t")

    def fail(_: OsFiles, source: Path, target: Path) -> None:
        raise PermissionError(13, "not yours", str(source))

    with monkeypatch.context() as patched:
        patched.setattr(OsFiles, "replace", fail)
        with pytest.raises(StorageError, match="dropped, but not removed"):
            catalog.drop_database("t")
        assert "t" not in catalog.databases
        with pytest.raises(StorageError, match="dropped, but not removed"):
            catalog.create_database("t")
    catalog.create_database("t")
    assert catalog.storage("t").measurements() == []
    catalog.drop_database("other")
    _write(catalog, "t")
    assert catalog.storage("t").measurements() == ["cpu"]
    catalog.close()


def test_files_that_cannot_be_deleted_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog(tmp_path, Settings(trash_hours=0))
    catalog.create_database("t")
    _write(catalog, "t")

    def fail(path: Path) -> None:
        raise PermissionError(13, "not yours", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", fail)
        catalog.drop_database("t")
    assert len(list((tmp_path / ".trash").iterdir())) == 1
    catalog.create_database("t")
    assert catalog.storage("t").measurements() == []
    catalog.close()
    Catalog(tmp_path, Settings()).close()
    assert list((tmp_path / ".trash").iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2, "databases": [], "dropping": []}',
        b'{"version": 1, "databases": [{"name": "t"}], "dropping": []}',
        b'{"version": 1, "databases": []}',
    ],
)
def test_damaged_catalog_is_an_error_and_never_an_empty_answer(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "catalog.json").write_bytes(content)
    with pytest.raises(CorruptionError, match=r"catalog\.json"):
        Catalog(tmp_path, Settings())
    assert (tmp_path / "catalog.json").read_bytes() == content


def test_directory_belongs_to_one_catalog_at_a_time(tmp_path: Path) -> None:
    first = Catalog(tmp_path, Settings())
    with pytest.raises(StorageLocked, match="another process owns this data directory"):
        Catalog(tmp_path, Settings())
    first.close()
    Catalog(tmp_path, Settings()).close()


def test_closed_catalog_opens_and_changes_nothing(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("t")
    catalog.close()
    catalog.close()
    with pytest.raises(StorageClosed):
        catalog.storage("t")
    with pytest.raises(StorageClosed):
        catalog.create_database("u")


def test_change_that_cannot_be_written_is_an_error_and_no_change(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("kept")
    (tmp_path / "catalog.tmp").mkdir()  # what the file is written to first
    with pytest.raises(StorageError, match="the catalog could not be written"):
        catalog.create_database("lost")
    assert list(catalog.databases) == ["kept"]
    (tmp_path / "catalog.tmp").rmdir()
    catalog.create_database("later")
    catalog.close()
    assert list(Catalog(tmp_path, Settings()).databases) == ["kept", "later"]
