"""What is in a store, without opening it: counted from manifest, footers, series files and log.

Changes nothing and takes no lock, so it works beside the process that has the store open. A step of
that process may remove a file while it is read: then all is read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tinyflux.columnar.chunks import ChunkCache
from tinyflux.columnar.files import (
    LOG_DIRECTORY,
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
    from pathlib import Path

    from tinyflux.columnar.files import FileSystem

_MOST_TRIES: Final = 3


@dataclass(slots=True)
class Summary:
    """What is in a store. What deletes in the log hide is counted; so is a point written twice.

    Attributes:
        points: Points in segments.
        values: Values of fields in segments.
        segments: How many segments there are.
        segment_bytes: How large these are together.
        series: Series, those of the log included.
        log_points: Points in the log that are in no segment.
        log_values: Their values.
        log_bytes: How large that log is.
        gaps: Damaged segments in the quarantine.
        points_missing: At most so many points went with them.
    """

    points: int = 0
    values: int = 0
    segments: int = 0
    segment_bytes: int = 0
    series: int = 0
    log_points: int = 0
    log_values: int = 0
    log_bytes: int = 0
    gaps: int = 0
    points_missing: int = 0


def summarize(directory: Path, files: FileSystem | None = None) -> Summary:
    """Return what is in a store.

    Raises:
        CorruptionError: A file is damaged or missing.
        OSError: A file cannot be read.
    """
    files = OsFiles() if files is None else files
    for n_left in reversed(range(_MOST_TRIES)):
        try:
            return _summarize(directory, files)
        except (CorruptionError, FileNotFoundError):
            if not n_left:
                raise
    raise AssertionError  # the last try returned or raised


def _summarize(directory: Path, files: FileSystem) -> Summary:
    found = Summary()
    manifest = read_manifest(files, directory) or Manifest(1)
    store = StoreFiles(directory, files, manifest.next_file, ROW_GROUP_ROWS)
    for info in manifest.segments:
        segment = Segment(store.segment_path(info), info, ChunkCache(0), files)
        n_points, n_values = segment.counts()
        found.points += n_points
        found.values += n_values
        found.segments += 1
        found.segment_bytes += info.size_bytes
    keys = {key for file in manifest.series for _, key in store.read_series(file)}
    _count_log(directory / LOG_DIRECTORY, files, manifest.first_log, found, keys)
    found.series = len(keys)
    quarantine = Quarantine(directory / QUARANTINE_DIRECTORY, files)
    quarantine.restore()
    found.gaps = len(quarantine.gaps)
    found.points_missing = sum(gap.rows for gap in quarantine.gaps)
    return found


def _count_log(
    directory: Path, files: FileSystem, first: int, found: Summary, keys: set[bytes]
) -> None:
    """Add what the log says to a summary, and its series to the keys."""
    numbers = (log_number(name) for name in files.names(directory))
    for number in sorted(n for n in numbers if n is not None and n >= first):
        data = files.read(directory / log_name(number))
        found.log_bytes += len(data)
        for item in read_log(data):
            if isinstance(item, Damage):  # also a frame that is being written
                continue
            try:
                batch = decode_frame(item).batch
            except ValueError:
                continue
            if batch is not None:
                found.log_points += len(batch)
                found.log_values += len(batch.values)
                keys.update(batch.keys)
