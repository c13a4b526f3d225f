"""Recovery: what the log files say when a store opens, and what becomes of damaged bytes.

Rules (FORMAT.md, "Reading it again"): a torn tail of the last file is cut off, damage elsewhere is
stepped over; the bytes of both are copied to the quarantine first, and damage is counted and
logged. Nothing is dropped in silence.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from tinyflux.columnar.batchcodec import (
    decode,
    decode_names,
    decode_ranges,
    decode_rewrite,
)
from tinyflux.columnar.files import QUARANTINE_DIRECTORY, log_name, log_number, write_file
from tinyflux.columnar.wal import Damage, Frame, Kind, read_log

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tinyflux.batch import PointBatch
    from tinyflux.columnar.batchcodec import Ranges
    from tinyflux.columnar.files import FileSystem

logger = logging.getLogger(__name__)


class Change(NamedTuple):
    """What one frame says, to be done in this order.

    Attributes:
        measurement: A measurement to drop.
        ranges: Points to delete.
        batch: Points to store.
        names: A measurement to rename, and its new name.
        field: A measurement, and its field to drop.
    """

    measurement: str | None = None
    ranges: Ranges | None = None
    batch: PointBatch | None = None
    names: tuple[str, str] | None = None
    field: tuple[str, str] | None = None


class Recovery:
    """Reads the log files of a store.

    Args:
        directory: Where they are.
        files: The file system.
        first: Files with a smaller number are dead: their content is in segments.

    Attributes:
        next_number: Number for the next file to write, known from the start.
        n_frames: Frames read so far.
        n_damaged: Damaged places found so far; a torn tail is none.
        n_bytes: Bytes read so far.
    """

    def __init__(self, directory: Path, files: FileSystem, first: int = 1) -> None:
        found = (log_number(name) for name in files.names(directory))
        self._numbers = sorted(n for n in found if n is not None and n >= first)
        self._directory = directory
        self._files = files
        self.next_number = max([first - 1, *self._numbers]) + 1
        self.n_frames = 0
        self.n_damaged = 0
        self.n_bytes = 0

    def changes(self) -> Iterator[Change]:
        """Yield what the frames say, oldest first."""
        for number in self._numbers:
            path = self._directory / log_name(number)
            data = self._files.read(path)
            self.n_bytes += len(data)
            is_last = number == self._numbers[-1]
            for item in read_log(data):
                if isinstance(item, Damage):
                    self._set_aside(path, data, item, is_last=is_last)
                    continue
                try:
                    change = decode_frame(item)
                except ValueError as exc:
                    damage = Damage(item.offset, item.end, str(exc), is_tail=False)
                    self._set_aside(path, data, damage, is_last=is_last)
                    continue
                self.n_frames += 1
                yield change

    def _set_aside(self, path: Path, data: bytes, damage: Damage, *, is_last: bool) -> None:
        """Copy bytes that are no frame to the quarantine; cut a torn tail off."""
        copy = self._copy(path, data, damage)
        size = damage.end - damage.offset
        if not (damage.is_tail and is_last):
            self.n_damaged += 1
            logger.error(
                "log is damaged, stepped over: path=%s offset=%d bytes=%d reason=%s copy=%s",
                path,
                damage.offset,
                size,
                damage.reason,
                copy,
            )
            return
        logger.warning(
            "log ends with a torn write: path=%s offset=%d bytes=%d copy=%s",
            path,
            damage.offset,
            size,
            copy,
        )
        if copy is None:
            return  # nothing is cut that is not kept
        if damage.offset:
            self._files.truncate(path, damage.offset)
        else:
            self._files.unlink(path)

    def _copy(self, path: Path, data: bytes, damage: Damage) -> Path | None:
        """Copy a damage to the quarantine; None when that fails, as on a disk that is full."""
        directory = self._directory / QUARANTINE_DIRECTORY
        copy = directory / f"{path.name}-{damage.offset}"
        try:
            self._files.make_directory(directory)
            write_file(self._files, copy, data[damage.offset : damage.end])
        except OSError as exc:
            # The good frames are worth more than a copy of the bad ones.
            logger.warning("damaged bytes could not be copied: path=%s error=%s", copy, exc)
            return None
        return copy


def decode_frame(frame: Frame) -> Change:
    """Return what a frame says.

    Raises:
        ValueError: The payload contradicts itself.
    """
    if frame.kind is Kind.BATCH:
        return Change(batch=decode(frame.payload))
    if frame.kind is Kind.DELETE:
        return Change(ranges=decode_ranges(frame.payload))
    if frame.kind is Kind.DROP_MEASUREMENT:
        return Change(measurement=bytes(frame.payload).decode())
    if frame.kind is Kind.RENAME_MEASUREMENT:
        return Change(names=decode_names(frame.payload))
    if frame.kind is Kind.DROP_FIELD:
        return Change(field=decode_names(frame.payload))
    ranges, batch = decode_rewrite(frame.payload)
    return Change(ranges=ranges, batch=batch)
