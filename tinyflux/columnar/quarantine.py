"""The quarantine of a store: which rows damaged segments took along, and those files.

    quarantine/000002.parquet    the damaged file, as it was found; missing when the file was
    quarantine/000002.json       the gap: which rows it had that are nowhere else

Nothing reads these files again: they are for a look, or for a restore by hand. Who removes a gap's
file says that it is known; so do the end of its shard and the drop of its measurement. A gap that
was only found has no file yet: `Segments.mend` writes it.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import orjson

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS
from tinyflux.columnar.base import Gap
from tinyflux.columnar.files import gap_name, gap_number, segment_name, write_file

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from pathlib import Path

    from tinyflux.columnar.files import FileSystem

logger = logging.getLogger(__name__)


class Quarantine:
    """The gaps of a store. Safe to use from many threads.

    Args:
        directory: Where the files are or will be.
        files: The file system.

    Attributes:
        gaps: All there are. Replaced, never changed.
    """

    def __init__(self, directory: Path, files: FileSystem) -> None:
        self.gaps: tuple[Gap, ...] = ()
        self._written: set[int] = set()
        self._directory = directory
        self._files = files
        self._lock = threading.Lock()

    def restore(self) -> None:
        """Read what earlier processes found."""
        for name in self._files.names(self._directory):
            number = gap_number(name)
            if number is None:
                continue
            try:
                gap = Gap(**orjson.loads(self._files.read(self._directory / name)))
            except (ValueError, TypeError, OSError) as exc:
                # Counted and shown, though nobody knows which rows it was about.
                gap = Gap(number, "", MIN_TIME_NS, MAX_TIME_NS, 0, f"{name}: {exc}")
            self._written.add(number)
            self.note(gap)
            logger.error("rows are in quarantine: directory=%s gap=%s", self._directory, gap)

    def path(self, gap: Gap) -> Path:
        """Return the file that says a gap."""
        return self._directory / gap_name(gap.number)

    def note(self, gap: Gap) -> None:
        """Add a gap in memory, in the place of an older one of the same segment."""
        with self._lock:
            others = tuple(old for old in self.gaps if old.number != gap.number)
            self.gaps = (*others, gap)

    def write(self, gap: Gap) -> None:
        """Add a gap, durably."""
        self._files.make_directory(self._directory)
        data = orjson.dumps(dataclasses.asdict(gap), option=orjson.OPT_APPEND_NEWLINE)
        write_file(self._files, self._directory / gap_name(gap.number), data)
        self._written.add(gap.number)
        self.note(gap)

    def keep_live(self, live: Collection[int]) -> None:
        """Forget gaps that were only noted, of segments that are not live any more.

        They were replaced without loss, or what they had was to go.
        """
        with self._lock:
            self.gaps = tuple(
                gap for gap in self.gaps if gap.number in self._written or gap.number in live
            )

    def take(self, path: Path) -> None:
        """Move a damaged file here; one that cannot be moved is moved by a later opening."""
        with suppress(OSError):  # most often because it is missing: that was the damage
            self._files.make_directory(self._directory)
            self._files.replace(path, self._directory / path.name)
            self._files.sync_directory(self._directory)

    def rename(self, measurement: str, name: str) -> None:
        """Give the gaps of a measurement its new name."""
        for gap in self.gaps:
            if gap.measurement == measurement:
                renamed = dataclasses.replace(gap, measurement=name)
                self.note(renamed)
                if gap.number in self._written:
                    self._try(lambda gap=renamed: self.write(gap))  # type: ignore[misc]

    def forget(self, is_over: Callable[[Gap], bool]) -> None:
        """Remove gaps that no longer matter, with their files."""
        over = [gap for gap in self.gaps if is_over(gap)]
        if over:
            with self._lock:
                self.gaps = tuple(gap for gap in self.gaps if gap not in over)
            for gap in over:
                for name in (gap_name(gap.number), segment_name(gap.number)):
                    self._try(lambda name=name: self._files.unlink(self._directory / name))  # type: ignore[misc]

    def _try(self, step: Callable[[], None]) -> None:
        """Do what is worth no failure of the change that it comes with."""
        try:
            step()
        except OSError as exc:
            logger.warning("quarantine: directory=%s error=%s", self._directory, exc)

    def overlapping(self, measurement: str | None, start_ns: int, end_ns: int) -> tuple[Gap, ...]:
        """Return the gaps in a measurement (None is all) and closed time interval, by time."""
        found = (
            gap
            for gap in self.gaps
            if measurement in {None, gap.measurement}
            and gap.first_ns <= end_ns
            and gap.last_ns >= start_ns
        )
        return tuple(sorted(found, key=lambda gap: (gap.first_ns, gap.number)))
