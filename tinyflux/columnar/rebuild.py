"""Rebuild the manifest and the series file of a store that lost them, from its segments.

Segments know their measurement, series ids and tags, field types, shard and order; the file `names`
knows names that measurements got later. What neither knows is lost: tags of the TinyFlux API that
are None, and which of the files an interrupted step had replaced already; so rows that such a step
had just removed may be back. The log is kept whole. Files that cannot be read, and the damaged
manifest and series files, go to the quarantine.
"""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, FieldType, series_key
from tinyflux.columnar.base import Gap, Shard
from tinyflux.columnar.chunks import ChunkCache
from tinyflux.columnar.files import (
    LOCK_NAME,
    LOG_DIRECTORY,
    MANIFEST_NAME,
    QUARANTINE_DIRECTORY,
    SEGMENT_DIRECTORY,
    SERIES_DIRECTORY,
    OsFiles,
    log_number,
    segment_number,
    write_file,
)
from tinyflux.columnar.footer import ROW_GROUP_ROWS, describe
from tinyflux.columnar.manifest import Manifest, read_manifest, read_names
from tinyflux.columnar.quarantine import Quarantine
from tinyflux.columnar.segment import Segment
from tinyflux.columnar.shard import ShardMap
from tinyflux.columnar.storefiles import StoreFiles
from tinyflux.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tinyflux.columnar.files import FileSystem
    from tinyflux.columnar.footer import SegmentInfo
    from tinyflux.columnar.manifest import SeriesFile


def rebuild(directory: Path, shard_duration_ns: int, files: FileSystem | None = None) -> Manifest:
    """Make a store that cannot be opened one that can. Returns its new manifest.

    Args:
        directory: Of the store; nobody has it open.
        shard_duration_ns: How long its shards are, when its manifest does not say it.
        files: The file system.

    Raises:
        StorageLocked: Somebody has it open.
        OSError: A file cannot be read or written; the next try begins anew.
    """
    files = OsFiles() if files is None else files
    lock = files.lock(directory / LOCK_NAME)
    try:
        return _Rebuild(directory, files, shard_duration_ns).run()
    finally:
        lock.release()


class _Rebuild:
    def __init__(self, directory: Path, files: FileSystem, shard_duration_ns: int) -> None:
        self._directory = directory
        self._files = files
        self._quarantine = Quarantine(directory / QUARANTINE_DIRECTORY, files)
        self._quarantine.restore()
        try:
            self._old = read_manifest(files, directory)
        except CorruptionError:
            self._old = None
        self._shard_duration_ns = shard_duration_ns
        self._series: dict[int, bytes] = {}
        self._fields: dict[str, dict[str, FieldType]] = {}

    def run(self) -> Manifest:
        found = list(self._found()) if self._old is None else self._old.segments
        infos = [info for info in found if self._learn(info)]
        old_series = self._files.names(self._directory / SERIES_DIRECTORY)
        store = StoreFiles(self._directory, self._files, self._next_file(), ROW_GROUP_ROWS)
        with store.undone_on_error():
            entries = sorted(self._series.items())
            series = (store.write_series(entries),) if entries else ()
            self._keep_manifest()
            manifest = store.commit(self._manifest(infos, series))
        for name in old_series:
            self._quarantine.take(self._directory / SERIES_DIRECTORY / name)
        return manifest

    def _next_file(self) -> int:
        """Return a number above those of all files there are or were."""
        shards = self._directory / SEGMENT_DIRECTORY
        directories = [
            self._directory / SERIES_DIRECTORY,
            self._directory / QUARANTINE_DIRECTORY,
            *(shards / name for name in self._files.names(shards)),
        ]
        names = [name for directory in directories for name in self._files.names(directory)]
        numbers = [int(found[0]) for name in names if (found := re.match(r"[0-9]+", name))]
        return max([0, *numbers]) + 1

    def _keep_manifest(self) -> None:
        """Copy a damaged manifest to the quarantine, before another takes its place."""
        directory = self._directory / QUARANTINE_DIRECTORY
        if self._old is None and MANIFEST_NAME in self._files.names(self._directory):
            self._files.make_directory(directory)
            data = self._files.read(self._directory / MANIFEST_NAME)
            write_file(self._files, directory / MANIFEST_NAME, data)

    def _manifest(self, infos: Sequence[SegmentInfo], series: tuple[SeriesFile, ...]) -> Manifest:
        next_series = max(self._series, default=-1) + 1
        if self._old is not None:
            next_series = max(next_series, self._old.next_series)
            return replace(self._old, series=series, next_series=next_series, segments=tuple(infos))
        logs = (log_number(name) for name in self._files.names(self._directory / LOG_DIRECTORY))
        return Manifest(
            self._shard_duration_ns,
            min((number for number in logs if number is not None), default=1),
            0,
            next_series,
            _shards(infos, self._shard_duration_ns),
            series,
            self._fields,
            tuple(infos),
        )

    def _found(self) -> Iterator[SegmentInfo]:
        """Yield what the segments that are there say of themselves."""
        root = self._directory / SEGMENT_DIRECTORY
        names = read_names(self._files, self._directory)
        for shard in self._files.names(root):
            for name in self._files.names(root / shard):
                number = segment_number(name)
                if number is None:
                    continue
                path = root / shard / name
                try:
                    info = describe(path, number, (_shard_ns(shard), number), self._files)
                    yield replace(info, measurement=names.get(number, info.measurement))
                except CorruptionError as exc:
                    gap = Gap(number, "", MIN_TIME_NS, MAX_TIME_NS, 0, exc.reason)
                    self._set_aside(path, gap)

    def _learn(self, info: SegmentInfo) -> bool:
        """Take series and fields out of a segment; return whether it can stay.

        One whose tags cannot be read cannot: nobody would know whose rows it has.
        """
        path = StoreFiles(self._directory, self._files, 0, ROW_GROUP_ROWS).segment_path(info)
        segment = Segment(path, info, ChunkCache(0), self._files)
        try:
            tags = segment.read_tags()
        except CorruptionError as exc:
            gap = Gap(
                info.number, info.measurement, info.first_ns, info.last_ns, info.rows, exc.reason
            )
            self._set_aside(path, gap)
            return False
        ids = segment.series_ids().tolist()
        for series_id, found in zip(ids, tags, strict=True):
            self._series.setdefault(series_id, series_key(info.measurement, found.items()))
        types = self._fields.setdefault(info.measurement, {})
        for name, (_, kind, _) in segment.document()["fields"].items():
            types[name] = _wider(types.get(name), FieldType(kind))
        return True

    def _set_aside(self, path: Path, gap: Gap) -> None:
        self._quarantine.write(gap)
        self._quarantine.take(path)


def _wider(known: FieldType | None, kind: FieldType) -> FieldType:
    """Return the type that holds both: a field of integers may have become one of floats."""
    if known in {None, FieldType.NONE}:
        return kind
    return FieldType.FLOAT if FieldType.FLOAT in {known, kind} else known


def _shards(infos: Sequence[SegmentInfo], duration_ns: int) -> tuple[Shard, ...]:
    """Return the shards of segments: as long as shards are now, or as their rows want it."""
    ends: dict[int, int] = {}
    for info in infos:
        ends[info.shard_ns] = max(ends.get(info.shard_ns, info.last_ns), info.last_ns)
    firsts = sorted(ends)
    limits = [first - 1 for first in firsts[1:]] + [MAX_TIME_NS]
    grid = ShardMap(duration_ns)
    return tuple(
        Shard(first, min(max(grid.at(first).last_ns, ends[first]), limit))
        for first, limit in zip(firsts, limits, strict=True)
    )


def _shard_ns(name: str) -> int:
    """Return where a shard begins, by the name of its directory."""
    start = datetime.strptime(name, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return int(start.timestamp()) * 1_000_000_000
