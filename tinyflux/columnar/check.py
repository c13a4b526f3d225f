"""Check a store that nobody has open: every checksum, and what must hold between the files.

Nothing is changed. What is found is said once, with the file it is in; a file that cannot be read
at all hides what else is wrong with it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tinyflux.batch import parse_series_key, series_key
from tinyflux.columnar.chunks import ChunkCache
from tinyflux.columnar.files import (
    LOG_DIRECTORY,
    MANIFEST_NAME,
    QUARANTINE_DIRECTORY,
    OsFiles,
    log_name,
    log_number,
)
from tinyflux.columnar.footer import ROW_GROUP_ROWS
from tinyflux.columnar.manifest import Manifest, read_manifest
from tinyflux.columnar.quarantine import Quarantine
from tinyflux.columnar.recovery import decode_frame
from tinyflux.columnar.segment import Segment
from tinyflux.columnar.storefiles import StoreFiles
from tinyflux.columnar.wal import Damage, read_log
from tinyflux.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tinyflux.batch import FieldType
    from tinyflux.columnar.files import FileSystem
    from tinyflux.columnar.footer import SegmentInfo
    from tinyflux.columnar.scan import Run


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        path: The file.
        text: What is wrong with it.
        is_error: Whether data is damaged or missing; else it is the trace of a crash, which the
            next opening removes.
    """

    path: Path
    text: str
    is_error: bool = True


def check_store(
    directory: Path, files: FileSystem | None = None, *, overwrite: bool = True
) -> Iterator[Finding]:
    """Yield what is wrong with a store, as it is found.

    Args:
        directory: Of the store.
        files: The file system.
        overwrite: Whether points of equal series and time are one in it.

    Raises:
        OSError: A file cannot be read, for another reason than damage.
    """
    files = OsFiles() if files is None else files
    try:
        manifest = read_manifest(files, directory)
    except CorruptionError as exc:
        yield Finding(exc.path, exc.reason)
    else:
        yield from _Check(directory, files, manifest or Manifest(1), overwrite=overwrite).run()
    quarantine = Quarantine(directory / QUARANTINE_DIRECTORY, files)
    quarantine.restore()
    for gap in quarantine.gaps:
        text = f"up to {gap.rows} points of {gap.measurement} are missing: {gap.reason}"
        yield Finding(quarantine.path(gap), text)


class _Check:
    """One pass over the files that a manifest names."""

    def __init__(
        self, directory: Path, files: FileSystem, manifest: Manifest, *, overwrite: bool
    ) -> None:
        self._directory = directory
        self._files = files
        self._manifest = manifest
        self._store = StoreFiles(directory, files, manifest.next_file, ROW_GROUP_ROWS)
        self._overwrite = overwrite
        self._keys: dict[int, bytes] = {}

    def run(self) -> Iterator[Finding]:
        yield from self._check_series()
        yield from self._check_places()
        for info in self._manifest.segments:
            path = self._store.segment_path(info)
            try:
                for text in self._check_segment(path, info):
                    yield Finding(path, text)
            except CorruptionError as exc:
                yield Finding(path, exc.reason)
        for path in self._store.unnamed(self._manifest):
            yield Finding(path, "no manifest names this file", is_error=False)
        yield from self._check_logs()

    def _check_series(self) -> Iterator[Finding]:
        last = -1
        for file in self._manifest.series:
            path = self._store.series_path(file.number)
            try:
                entries = self._store.read_series(file)
            except CorruptionError as exc:
                yield Finding(path, exc.reason)
                continue
            ids = [series_id for series_id, _ in entries]
            if len(ids) != file.series:
                yield Finding(path, f"{len(ids)} series, the manifest says {file.series}")
            if any(b <= a for a, b in itertools.pairwise([last, *ids])):
                yield Finding(path, "ids do not ascend")
            last = max([last, *ids])
            self._keys |= entries
        if last >= self._manifest.next_series:
            path = self._directory / MANIFEST_NAME
            yield Finding(path, f"series id {last} is not below {self._manifest.next_series}")
        if len(set(self._keys.values())) < len(self._keys):
            yield Finding(self._directory / MANIFEST_NAME, "a series has two ids")

    def _check_places(self) -> Iterator[Finding]:
        """Check what the manifest says of the segments beside each other."""
        path = self._directory / MANIFEST_NAME
        infos = self._manifest.segments
        numbers = [info.number for info in infos] + [f.number for f in self._manifest.series]
        if len(set(numbers)) < len(numbers):
            yield Finding(path, "a file number is used twice")
        if max(numbers, default=0) >= self._manifest.next_file:
            yield Finding(path, f"file {max(numbers)} is not below {self._manifest.next_file}")
        shards = self._manifest.shards
        if any(after.first_ns <= shard.last_ns for shard, after in itertools.pairwise(shards)):
            yield Finding(path, "shards overlap")
        places = {(info.measurement, info.shard_ns, info.order) for info in infos}
        if len(places) < len(infos):
            yield Finding(path, "two segments of a shard have the same order")

    def _check_segment(self, path: Path, info: SegmentInfo) -> Iterator[str]:
        """Yield what is wrong in a segment that can be read."""
        segment = Segment(path, info, ChunkCache(0), self._files)
        run = segment.read_all()
        if len(run) != info.rows:
            yield f"{len(run)} rows, the manifest says {info.rows}"
        if (run.first_ns, run.last_ns) != (info.first_ns, info.last_ns):
            yield "its times are not those of the manifest"
        shards = (shard for shard in self._manifest.shards if shard.first_ns == info.shard_ns)
        shard = next(shards, None)
        if shard is None or run.first_ns < shard.first_ns or run.last_ns > shard.last_ns:
            yield "it has rows outside its shard"
        yield from self._check_order(run, segment)
        if len(run.ids) and int(run.ids[-1]) >= self._manifest.next_series:
            yield f"series id {run.ids[-1]} was never given"
        yield from self._check_fields(run, self._manifest.fields.get(info.measurement))
        for series_id, tags in zip(run.ids.tolist(), segment.read_tags(), strict=True):
            key = self._keys.get(series_id)  # none for a series that was deleted
            if key is not None and _as_stored(key) != series_key(info.measurement, tags.items()):
                yield f"series {series_id} has other tags than the series file says"
                break

    def _check_order(self, run: Run, segment: Segment) -> Iterator[str]:
        """Yield where rows are out of order, or statistics wrong that reads rely on."""
        if (np.diff(run.ids) <= 0).any() or (np.diff(run.offsets) <= 0).any():
            yield "series are not in order"
        steps = np.diff(run.times)
        inside = np.ones(len(steps), np.bool_)
        inside[run.offsets[1:-1] - 1] = False
        if (steps[inside] < 0).any():
            yield "rows are not sorted by time"
        elif self._overwrite and not steps[inside].all():
            yield "points of equal series and time"
        size = segment.document()["row_group_rows"]
        for group, start in enumerate(range(0, len(run), size)):
            times = run.times[start : start + size]
            if segment.bounds([group])[:2] != (times.min(), times.max()):
                yield f"statistics of row group {group} are wrong"

    @staticmethod
    def _check_fields(run: Run, types: Mapping[str, FieldType] | None) -> Iterator[str]:
        """Yield the fields whose type is not that of the manifest."""
        for name, column in run.columns.items():
            known = None if types is None else types.get(name)
            if known is not None and known is not column.type and column.mask().any():
                yield f"field {name} is {column.type.name}, the manifest says {known.name}"

    def _check_logs(self) -> Iterator[Finding]:
        directory = self._directory / LOG_DIRECTORY
        found = (log_number(name) for name in self._files.names(directory))
        numbers = sorted(n for n in found if n is not None)
        for number in numbers:
            path = directory / log_name(number)
            if number < self._manifest.first_log:
                yield Finding(path, "all it says is in segments", is_error=False)
                continue
            for item in read_log(self._files.read(path)):
                if isinstance(item, Damage):
                    is_torn = item.is_tail and number == numbers[-1]
                    text = f"byte {item.offset} to {item.end}: {item.reason}"
                    yield Finding(path, text, is_error=not is_torn)
                    continue
                try:
                    decode_frame(item)
                except ValueError as exc:
                    yield Finding(path, f"byte {item.offset} to {item.end}: {exc}")


def _as_stored(key: bytes) -> bytes:
    """Return a series key as a segment can tell it: a tag of None is as none there."""
    name, tags = parse_series_key(key)
    return series_key(name, [(tag, text) for tag, text in tags if text is not None])
