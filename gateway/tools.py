"""What is done to a data directory without a server: check it, compact it, count what is in it.

A store is found by its files, not by the catalog: a catalog that is damaged hides none, and what
was dropped and lies in wait of its end is looked at too.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from gateway import catalogfile
from gateway.policies import directory_name
from tinyflux.columnar.check import Finding, check_store
from tinyflux.columnar.files import LOCK_NAME, LOG_DIRECTORY
from tinyflux.columnar.memory import Memory, default_bytes
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.columnar.rebuild import rebuild
from tinyflux.columnar.shard import DEFAULT_SHARD_DURATION_NS
from tinyflux.columnar.summary import Summary, summarize
from tinyflux.errors import CorruptionError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CATALOG: Final = "catalog.json"
_OTHERS: Final = ("continuous.json", "shards.json")


@contextmanager
def owned(data: Path) -> Iterator[None]:
    """Keep servers out of a data directory.

    Raises:
        StorageLocked: One has it.
        StorageError: It is no data directory.
    """
    _check_is_data(data)
    fd = catalogfile.lock(data)
    try:
        yield
    finally:
        os.close(fd)


def _check_is_data(data: Path) -> None:
    if not (data / _CATALOG).exists():
        raise StorageError(f"{data}: no data directory of tinyflux-gateway: it has no {_CATALOG}")


def stores(data: Path) -> list[Path]:
    """Return the directories of all stores, sorted."""
    logs = (path for path in data.rglob(LOG_DIRECTORY) if path.is_dir())
    # A database or a policy may be called as the log is; only a store has a lock.
    return sorted(path.parent for path in logs if (path.parent / LOCK_NAME).is_file())


# check


def check(data: Path) -> Iterator[Finding]:
    """Yield what is wrong in a data directory."""
    try:
        catalogfile.read(data)
    except CorruptionError as exc:
        yield Finding(exc.path, exc.reason)
    for name in _OTHERS:
        if (path := data / name).exists():
            try:
                orjson.loads(path.read_bytes())
            except ValueError as exc:
                yield Finding(path, f"not JSON: {exc}")
    for path in stores(data):
        yield from check_store(path)


def repair(data: Path) -> Iterator[str]:
    """Make stores that cannot be opened anew, set aside what is damaged; yield what was done."""
    durations = _shard_durations(data)
    for path in stores(data):
        if not any(finding.is_error for finding in check_store(path)):
            continue
        try:
            store = _open(path)
        except CorruptionError as exc:
            rebuild(path, durations.get(path, DEFAULT_SHARD_DURATION_NS))
            yield f"{path}: manifest and series were made anew from the segments ({exc.reason})"
            store = _open(path)
        try:
            before = store.stats()["segments_damaged"]
            store.verify()
            if found := store.stats()["segments_damaged"] - before:
                yield f"{path}: {found} damaged segments were set aside"
        finally:
            store.close()


def _shard_durations(data: Path) -> dict[Path, int]:
    """Return the shard duration that the catalog has for each store; {} when it cannot be read."""
    try:
        databases = catalogfile.read(data).databases
    except CorruptionError:
        return {}
    return {
        data / directory_name(database.name) / directory_name(policy.name): policy.shard_duration_ns
        for database in databases.values()
        for policy in database.policies
    }


def _open(path: Path) -> ParquetStorage:
    return ParquetStorage(path, overwrite=True, memory=Memory.of(default_bytes()))


# compact


@dataclass(frozen=True, slots=True)
class Compaction:
    """What compacting a store did: segments and bytes on disk, before and after."""

    path: Path
    segments: tuple[int, int]
    size_bytes: tuple[int, int]


def compact(data: Path) -> Iterator[Compaction]:
    """Write what stores have in their logs to segments, and make these as few as can be."""
    for path in stores(data):
        before = _size(path)
        store = _open(path)
        try:
            n_before = store.stats()["segments"]
            store.flush()
            while store.compact(fully=True):
                pass
            store.flush()
            n_after = store.stats()["segments"]
        finally:
            store.close()
        yield Compaction(path, (n_before, n_after), (before, _size(path)))


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


# stats


def stats(data: Path) -> Iterator[tuple[Path, Summary | CorruptionError]]:
    """Yield what is in each store, or why that cannot be told. Also beside a running server."""
    _check_is_data(data)
    for path in stores(data):
        try:
            yield path, summarize(path)
        except CorruptionError as exc:
            yield path, exc
