"""Checking, counting and rebuilding a store from its files."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit.columnar_segments.test_quarantine import ALL, damage, times
from tests.unit.columnar_segments.test_segments_in_a_store import batch, parquet_files
from tinyflux.batch import BatchBuilder, FieldType, FieldValue, series_key
from tinyflux.columnar import segments
from tinyflux.columnar.base import DeleteRequest, FieldColumn, ScanRequest
from tinyflux.columnar.check import check_store
from tinyflux.columnar.files import OsFiles
from tinyflux.columnar.manifest import read_manifest, write_manifest
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.rebuild import rebuild
from tinyflux.columnar.scan import Run
from tinyflux.columnar.segmentfile import encode_segment
from tinyflux.columnar.summary import summarize
from tinyflux.errors import StorageLocked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tinyflux.columnar.manifest import Manifest

SHARD_NS = 100 * 10**9


def open_store(path: Path) -> ParquetStorage:
    return ParquetStorage(path, overwrite=True, shard_duration_ns=SHARD_NS)


@pytest.fixture
def store_path(tmp_path: Path) -> Path:
    """Return a store of two measurements, two shards, several segments, and points in the log."""
    path = tmp_path / "store"
    store = open_store(path)
    for start in (0, 50, 20, SHARD_NS):  # the third overwrites points of the first two
        store.append_batch(batch(range(start, start + 40)))
        store.flush()
    builder = BatchBuilder()
    for time in range(5):
        fields: list[tuple[str, FieldValue]] = [
            ("i", time),
            ("s", f"t{time % 2}"),
            ("b", time > 2),
            ("f", time / 2),
        ]
        key = series_key("mem", [("rack", "é"), *([("host", "a")] if time % 2 else [])])
        builder.add(key, time, fields[: 4 - time % 3])
    store.append_batch(builder.build())
    store.flush()
    store.delete(DeleteRequest("cpu", None, 3, 4))
    store.append_batch(batch(range(1000, 1003), "c"))
    store.close()
    return path


def content(path: Path) -> dict[str, list[object]]:
    """Return all rows of all measurements, by tags and time."""
    store = open_store(path)
    found: dict[str, list[object]] = {}
    for name in store.measurements():
        rows: list[object] = []
        for frame in store.scan(ScanRequest(name)):
            for row, series in enumerate(frame.series_rows().tolist()):
                fields = {
                    key: column.values[row].item()
                    if isinstance(column.values[row], np.generic)
                    else column.values[row]
                    for key, column in sorted(frame.columns.items())
                    if column.mask()[row]
                }
                rows.append((sorted(frame.series.tags(series).items()), frame.times[row], fields))
        found[name] = sorted(rows, key=repr)
    store.close()
    return found


def findings(path: Path) -> list[str]:
    return [f"{found.path.name}: {found.text}" for found in check_store(path) if found.is_error]


def test_a_store_in_order_has_no_findings_and_is_not_changed(store_path: Path) -> None:
    before = {path: path.read_bytes() for path in store_path.rglob("*") if path.is_file()}
    assert list(check_store(store_path)) == []
    assert {p: p.read_bytes() for p in store_path.rglob("*") if p.is_file()} == before
    assert list(check_store(store_path.parent / "nothing")) == []


@pytest.mark.parametrize("pattern", ["segments/*/*.parquet", "series/*", "manifest", "wal/*.wal"])
def test_every_flipped_bit_is_found(store_path: Path, pattern: str, tmp_path: Path) -> None:
    chance = random.Random(pattern)
    victims = [path.relative_to(store_path) for path in sorted(store_path.glob(pattern))]
    unseen = 0
    for flip in range(12):
        path = tmp_path / str(flip)
        shutil.copytree(store_path, path)
        victim = path / chance.choice(victims)
        data = bytearray(victim.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        victim.write_bytes(data)
        found = list(check_store(path))
        if found:
            assert {one.path for one in found} == {victim}
        else:
            unseen += 1  # the first magic of Parquet, one of two heads of a log, page headers
    assert unseen <= 4


def test_missing_files_are_found(store_path: Path) -> None:
    segment, series = parquet_files(store_path)[0], next((store_path / "series").iterdir())
    segment.unlink()
    series.unlink()
    assert findings(store_path) == [
        f"{series.name}: the file is missing",
        f"{segment.name}: the file is missing",
    ]


def test_traces_of_a_crash_are_no_errors(store_path: Path) -> None:
    (store_path / "segments" / "19700101T000000Z" / "000099.parquet").write_bytes(b"")
    log = max((store_path / "wal").glob("*.wal"))
    log.write_bytes(log.read_bytes() + b"\xf7LFW torn")
    (store_path / "wal" / "000001.wal").write_bytes(b"")
    found = list(check_store(store_path))
    assert len(found) == 3
    assert not any(one.is_error for one in found)


def changed(**values: object) -> Callable[[Manifest], Manifest]:
    """Return a change of the first segment of a manifest."""

    def change(manifest: Manifest) -> Manifest:
        first, *others = manifest.segments
        return replace(manifest, segments=(replace(first, **values), *others))  # type: ignore[arg-type]

    return change


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (changed(rows=7), "80 rows, the manifest says 7"),
        (changed(last_ns=5), "its times are not those of the manifest"),
        (changed(order=3), "two segments of a shard have the same order"),
        (lambda old: replace(old, next_file=3), "is not below 3"),
        (lambda old: replace(old, next_series=1), "series id 3 is not below 1"),
        (lambda old: replace(old, segments=(*old.segments, old.segments[0])), "used twice"),
    ],
)
def test_a_manifest_that_contradicts_the_files_is_found(
    store_path: Path, change: Callable[[Manifest], Manifest], text: str
) -> None:
    manifest = read_manifest(OsFiles(), store_path)
    assert manifest is not None
    write_manifest(OsFiles(), store_path, change(manifest))
    assert any(text in found for found in findings(store_path))


def test_rows_out_of_order_and_wrong_tags_are_found(store_path: Path) -> None:
    manifest = read_manifest(OsFiles(), store_path)
    assert manifest is not None
    info, store = manifest.segments[0], open_store(store_path)
    series = store.series("cpu").take(np.arange(2))
    store.close()
    run = Run(
        series.ids,
        np.array([0, 3, 6]),
        np.array([0, 2, 1, 5, 5, 39]),
        {"v": FieldColumn(FieldType.FLOAT, np.arange(6.0))},
    )
    swapped = series.take(np.array([1, 0]))
    wrong = replace(series, columns=swapped.columns)
    data, crc = encode_segment(run, wrong)
    parquet_files(store_path)[0].write_bytes(data)
    damaged = replace(info, rows=6, first_ns=0, last_ns=39, size_bytes=len(data), footer_crc=crc)
    write_manifest(
        OsFiles(), store_path, replace(manifest, segments=(damaged, *manifest.segments[1:]))
    )
    found = findings(store_path)
    assert f"{info.number:06d}.parquet: rows are not sorted by time" in found
    assert any("has other tags than the series file says" in text for text in found)


def test_gaps_are_found_until_their_file_is_removed(store_path: Path) -> None:
    damage(parquet_files(store_path)[0])
    assert len(findings(store_path)) == 1
    store = open_store(store_path)
    store.verify()
    assert len(store.gaps("cpu", *ALL)) == 1
    store.close()
    (found,) = check_store(store_path)
    assert found.path == store_path / "quarantine" / "000001.json"
    assert "points of cpu are missing" in found.text
    found.path.unlink()
    assert list(check_store(store_path)) == []


def test_a_summary_counts_what_is_there(store_path: Path) -> None:
    found = summarize(store_path)
    assert found.segments == 5
    assert found.points == 4 * 80 + 5
    # mem: 4, 3, 2, 4, 3 fields
    assert found.values == 4 * 80 + 16
    assert found.series == 2 + 2 + 1
    assert (found.log_points, found.log_values) == (3, 3)
    assert found.segment_bytes == sum(p.stat().st_size for p in parquet_files(store_path))
    assert found.log_bytes == sum(p.stat().st_size for p in (store_path / "wal").glob("*.wal"))
    assert (found.gaps, found.points_missing) == (0, 0)
    assert summarize(store_path.parent / "nothing").points == 0


@pytest.mark.parametrize("lost", ["manifest", "series", "both", "missing manifest"])
def test_a_store_is_rebuilt_from_its_segments(store_path: Path, lost: str) -> None:
    expected = content(store_path)
    files = [*(store_path / "series").iterdir()] if lost in {"series", "both"} else []
    files += [store_path / "manifest"] if lost in {"manifest", "both"} else []
    for path in files:
        path.write_bytes(path.read_bytes()[:-2])
    if lost == "missing manifest":
        (store_path / "manifest").unlink()
    rebuild(store_path, SHARD_NS)
    assert list(check_store(store_path)) == []
    assert content(store_path) == expected
    store = open_store(store_path)
    store.append_batch(batch(range(5, 6), "z"))
    store.flush()
    while store.compact(fully=True):
        pass
    assert store.stats()["segments"] == 3  # two shards of cpu, one of mem
    store.close()
    assert list(check_store(store_path)) == []
    assert 5 in [row[1] for row in content(store_path)["cpu"]]  # type: ignore[index]


@pytest.mark.parametrize("is_flushed", [False, True])
def test_a_rebuilt_store_has_the_names_and_hidden_measurements_it_had(
    store_path: Path, is_flushed: bool
) -> None:
    store = open_store(store_path)
    store.rename_measurement("mem", "memory")
    store.rename_measurement("cpu", "\0trash")
    builder = BatchBuilder()
    builder.add(series_key("cpu", [("host", "a")]), 1, [("v", "text")])
    store.append_batch(builder.build())
    if is_flushed:
        store.flush()
        store.rename_measurement("memory", "mem")  # in the log only
        store.rename_measurement("mem", "memory")
    store.close()
    expected = content(store_path)
    assert (sorted(expected), len(expected["cpu"])) == (["cpu", "memory"], 1)
    (store_path / "manifest").unlink()
    rebuild(store_path, SHARD_NS)
    assert list(check_store(store_path)) == []
    assert content(store_path) == expected
    store = open_store(store_path)
    assert store.rename_measurement("\0trash", "old")
    store.close()
    assert len(content(store_path)["old"]) == 2 * (90 - 2 + 40) + 3


def test_a_rebuild_sets_aside_what_it_cannot_read(store_path: Path) -> None:
    (store_path / "manifest").write_bytes(b"")
    first, second, third, *_ = parquet_files(store_path)
    first.write_bytes(b"")
    damage(second, "host")
    damage(third, "v")
    rebuild(store_path, SHARD_NS)
    store = open_store(store_path)
    store.verify()
    assert store.stats()["segments_damaged"] == 3
    damaged = {path.name for path in (first, second, third)}
    assert {f"{gap.number:06d}.parquet" for gap in store.gaps(None, *ALL)} == damaged
    assert times(store)
    store.close()
    aside = {path.name for path in (store_path / "quarantine").iterdir()}
    assert {*damaged, "manifest"} <= aside
    again = open_store(store_path)
    assert again.stats()["segments_damaged"] == 3
    again.close()


def test_a_store_that_is_open_is_not_rebuilt(store_path: Path) -> None:
    store = open_store(store_path)
    with pytest.raises(StorageLocked):
        rebuild(store_path, SHARD_NS)
    store.close()


def test_compacting_fully_keeps_the_bound_of_rows_and_every_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "_MIN_MERGE_ROWS", 1000)
    store = ParquetStorage(tmp_path, overwrite=True, chunk_cache_bytes=0)
    store.append_batch(batch(range(450)))  # 900 rows
    store.flush()
    for start in range(0, 30, 10):
        store.append_batch(batch(range(start, start + 10)))
        store.flush()
    assert not store.compact()
    while store.compact(fully=True):
        pass
    assert store.stats()["segments"] == 1
    store.append_batch(batch(range(450, 900)))
    store.flush()
    assert not store.compact(fully=True)
    assert len(store) == 1800
    store.close()
