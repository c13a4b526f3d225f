"""The files of a store that steps make: segments, series files, the manifest; and their end.

A step writes files under numbers never used before, and then replaces the manifest (`commit`): that
makes it real. One that fails before removes what it wrote. Files that no manifest names any more
are kept until their last reader is gone.
"""

from __future__ import annotations

import weakref
import zlib
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from tinyflux.columnar.files import (
    MANIFEST_NAME,
    SEGMENT_DIRECTORY,
    SERIES_DIRECTORY,
    segment_name,
    segment_number,
    series_name,
    shard_name,
)
from tinyflux.columnar.footer import SegmentInfo
from tinyflux.columnar.manifest import SeriesFile, decode_series, encode_series, write_manifest
from tinyflux.columnar.segmentfile import encode_segment
from tinyflux.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from tinyflux.columnar.base import SeriesSet
    from tinyflux.columnar.files import FileSystem
    from tinyflux.columnar.manifest import Manifest
    from tinyflux.columnar.scan import Run
    from tinyflux.columnar.segment import Segment


class StoreFiles:
    """Writes, names and removes the files of one store. One step at a time.

    Args:
        directory: Of the store.
        files: The file system.
        next_file: The number of the next file.
        row_group_rows: Rows of a row group of new segments.
    """

    def __init__(
        self, directory: Path, files: FileSystem, next_file: int, row_group_rows: int
    ) -> None:
        self._directory = directory
        self._files = files
        self._next_file = next_file
        self._row_group_rows = row_group_rows
        self._made: list[Path] = []  # by the step under way
        self._is_replacing = False  # the manifest, in the step under way
        self._doubtful: list[Path] = []  # by a step of which the manifest may or may not tell
        self._retired: list[tuple[weakref.ref[Segment], Path]] = []
        self._dead: list[Path] = []

    # Names

    def segment_path(self, info: SegmentInfo) -> Path:
        """Return where a segment is."""
        root = self._directory / SEGMENT_DIRECTORY
        return root / shard_name(info.shard_ns) / segment_name(info.number)

    def series_path(self, number: int) -> Path:
        """Return where a series file is."""
        return self._directory / SERIES_DIRECTORY / series_name(number)

    @property
    def has_manifest(self) -> bool:
        """Whether there is a manifest on the disk."""
        return MANIFEST_NAME in self._files.names(self._directory)

    # A step

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Remove what a step wrote when it fails, so that trying again on a full disk can succeed.

        Once the manifest is being replaced it may be the new one, which names these files.
        """
        self._made = []
        self._is_replacing = False
        try:
            yield
        except Exception:
            if self._is_replacing:
                self._doubtful += self._made
            else:
                for path in self._made:
                    with suppress(OSError):
                        self._files.unlink(path)
            raise

    def write_segment(
        self, run: Run, series: SeriesSet, shard_ns: int, order: int | None = None
    ) -> SegmentInfo:
        """Write a segment, durably but for its name, which `commit` settles.

        Args:
            run: The rows.
            series: Their series.
            shard_ns: Where their shard begins.
            order: Its place among the segments of measurement and shard; None is the newest.
        """
        number = self._take_number()
        order = number if order is None else order
        data, crc = encode_segment(run, series, self._row_group_rows, (shard_ns, order))
        info = SegmentInfo(
            number,
            series.measurement,
            shard_ns,
            order,
            len(run),
            run.first_ns,
            run.last_ns,
            len(data),
            crc,
        )
        self._put(self.segment_path(info), data)
        return info

    def write_series(self, entries: Sequence[tuple[int, bytes]]) -> SeriesFile:
        """Write a series file of ids, ascending, and keys, durably but for its name."""
        number = self._take_number()
        ids, keys = zip(*entries, strict=True)
        data = encode_series(ids, keys)
        self._put(self.series_path(number), data)
        return SeriesFile(number, len(ids), len(data), zlib.crc32(data))

    def read_series(self, file: SeriesFile) -> list[tuple[int, bytes]]:
        """Return ids and keys of a series file.

        Raises:
            CorruptionError: It is missing or damaged.
        """
        path = self.series_path(file.number)
        try:
            return decode_series(self._files.read(path), file, path)
        except FileNotFoundError as exc:
            raise CorruptionError(path, None, "the file is missing") from exc

    def commit(self, manifest: Manifest) -> Manifest:
        """Make a step real. Returns the manifest as it is on disk then."""
        manifest = replace(manifest, next_file=self._next_file)
        for parent in sorted({path.parent for path in self._made}):
            self._files.sync_directory(parent)
        self._is_replacing = True
        write_manifest(self._files, self._directory, manifest)
        return manifest

    def _put(self, path: Path, data: bytes) -> None:
        self._files.make_directory(path.parent)
        file = self._files.create(path)
        self._made.append(path)
        try:
            file.append([data])
            file.sync()
        finally:
            file.close()

    def _take_number(self) -> int:
        number = self._next_file
        self._next_file += 1
        return number

    # The end of files

    def retire(self, segment: Segment) -> None:
        """Remove a segment's file when nobody reads it any more."""
        self._retired.append((weakref.ref(segment), segment.path))

    def drop_series(self, numbers: Iterable[int]) -> None:
        """Remove series files that the manifest on disk does not name any more."""
        self._dead += [*map(self.series_path, numbers), *self._doubtful]
        self._doubtful = []

    def sweep(self) -> None:
        """Remove the files that nobody reads any more. Called between steps."""
        for entry in list(self._retired):
            reader, path = entry
            if reader() is None:
                self._files.unlink(path)
                self._retired.remove(entry)
        while self._dead:
            self._files.unlink(self._dead[-1])
            self._dead.pop()

    def remove_rubbish(self, manifest: Manifest, damaged: Collection[int]) -> list[Path]:
        """Remove what interrupted steps left behind. Returns files that belong in the quarantine.

        Args:
            manifest: What is live.
            damaged: Numbers of the segments that the quarantine knows.
        """
        unnamed = self.unnamed(manifest)
        kept = [path for path in unnamed if segment_number(path.name) in damaged]
        for path in unnamed:
            if path not in kept:
                self._files.unlink(path)
        return kept

    def unnamed(self, manifest: Manifest) -> list[Path]:
        """Return the segments and series files that a manifest does not name."""
        named = {self.segment_path(info) for info in manifest.segments}
        named |= {self.series_path(file.number) for file in manifest.series}
        return [path for path in self._found() if path not in named]

    def _found(self) -> Iterator[Path]:
        directory = self._directory / SERIES_DIRECTORY
        yield from (directory / name for name in self._files.names(directory))
        root = self._directory / SEGMENT_DIRECTORY
        for shard in self._files.names(root):
            yield from (root / shard / name for name in self._files.names(root / shard))
