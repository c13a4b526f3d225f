"""Storages: where a database keeps its points, item by item.

`Storage` is the contract for third parties; `MemoryStorage` and `CSVStorage` are ours. Items are
opaque to the database: what `__iter__` yields goes back to `_deserialize_storage_item` and to
`append` as it is.
"""

# ruff: noqa: SLF001, ARG002  (the underscored half of Point is the contract with storages)

from __future__ import annotations

import contextlib
import csv
import io
import os
import shutil
import tempfile
import warnings
from abc import ABC, abstractmethod
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tinyflux.csvfile import (
    CsvRow,
    all_rows,
    lacks_line_end,
    open_window,
    raw_rows,
    set_aside,
    sound_items,
    sound_rows,
    torn_tail,
    warn_of,
)
from tinyflux.point import Point, time_from_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

__all__ = ["CSVStorage", "MemoryStorage", "Storage", "create_file"]


class Storage(ABC):
    """The base of all storages.

    A subclass keeps items in insertion order and says how an item becomes a Point and back. It may
    set `_initially_empty`, which is read once, when the database opens; otherwise it is asked for
    its length.

    Usage:
        >>> class MyStorage(Storage):
        ...     '''Items in a place of my own.'''
    """

    _initially_empty: bool

    @property
    def can_append(self) -> bool:
        """Whether points can be appended; may raise OSError itself."""
        return True

    @property
    def can_read(self) -> bool:
        """Whether points can be read; may raise OSError itself."""
        return True

    @property
    def can_write(self) -> bool:
        """Whether points can be changed and removed; may raise OSError itself."""
        return True

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """Yield all items in insertion order."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of items."""

    @abstractmethod
    def append(self, points: Sequence[Any], temporary: bool = False) -> None:
        """Append items.

        Args:
            points: Items, as `_serialize_point` or `__iter__` gave them.
            temporary: Append to the temporary storage of a rewrite instead.
        """

    @abstractmethod
    def read(self) -> list[Point]:
        """Return all points in insertion order."""

    @abstractmethod
    def reset(self) -> None:
        """Remove all items."""

    def close(self) -> None:  # noqa: B027  # optional in a subclass
        """Release what the storage holds; called twice it does nothing."""

    @abstractmethod
    def _deserialize_measurement(self, item: Any) -> str:
        """Return the measurement of an item, cheaper than a whole Point."""

    @abstractmethod
    def _deserialize_timestamp(self, item: Any) -> datetime:
        """Return the time of an item; a naive time is UTC."""

    @abstractmethod
    def _deserialize_storage_item(self, item: Any) -> Point:
        """Return the Point of an item."""

    @abstractmethod
    def _serialize_point(self, point: Point, *args: Any, **kwargs: Any) -> Any:
        """Return the item of a Point. The database passes `compact_key_prefixes=`."""

    @abstractmethod
    def _swap_temp_with_primary(self) -> None:
        """Put what was appended with `temporary=True` in the place of everything stored."""

    @abstractmethod
    def _write(self, items: Sequence[Any]) -> None:
        """Replace everything stored by these items."""

    def _init_temp_storage(self) -> None:  # noqa: B027  # optional in a subclass
        """Begin a rewrite."""

    def _cleanup_temp_storage(self) -> None:  # noqa: B027  # optional in a subclass
        """End a rewrite, also a failed one."""


class MemoryStorage(Storage):
    """Points in a list. They go with the process.

    The very Point objects are kept: a later `db.update` shows in a Point that was inserted. Do not
    change a Point after inserting it; use `db.update`.

    Usage:
        >>> from tinyflux import TinyFlux
        >>> db = TinyFlux(storage=MemoryStorage)
    """

    def __init__(self) -> None:
        self._initially_empty = True
        self._memory: list[Point] = []
        self._temp_memory: list[Point] = []

    def __iter__(self) -> Iterator[Point]:
        # The slice is the snapshot: inserts and removes during an iteration do not show in it.
        return iter(self._memory[:])

    def __len__(self) -> int:
        return len(self._memory)

    def append(self, items: Sequence[Point], temporary: bool = False) -> None:
        """Append points, kept by reference."""
        (self._temp_memory if temporary else self._memory).extend(items)

    def read(self) -> list[Point]:
        """Return all points in insertion order: the stored objects in a new list."""
        return self._memory[:]

    def reset(self) -> None:
        """Remove all points."""
        self._memory = []

    def _deserialize_measurement(self, item: Point) -> str:
        return item.measurement

    def _deserialize_timestamp(self, item: Point) -> datetime:
        time = item.time
        assert time is not None  # stored points have a time
        return time

    def _deserialize_storage_item(self, item: Point) -> Point:
        return item

    def _serialize_point(self, point: Point, *args: Any, **kwargs: Any) -> Point:
        return point

    def _write(self, items: Sequence[Point]) -> None:
        self._memory = list(items)

    def _init_temp_storage(self) -> None:
        self._temp_memory = []

    def _swap_temp_with_primary(self) -> None:
        self._memory = self._temp_memory
        self._temp_memory = []

    def _cleanup_temp_storage(self) -> None:
        self._temp_memory = []


class CSVStorage(Storage):
    """Points in a CSV file, one row each, appended as they come.

    An append is one write and, with `flush_on_insert`, one fsync. Updates and removes write a new
    file beside the old one and put it in its place in one step; untouched rows keep their bytes. A
    damaged end of the file (a crash in the middle of a write) is moved to `<name>.torn`, with a
    warning. One process writes a file at a time.

    Usage:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from tinyflux import Point, TinyFlux
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with TinyFlux(Path(folder) / "air.csv", storage=CSVStorage) as db:
        ...         db.insert(Point(fields={"aqi": 112}))
        1

    Args:
        path: The file; made if it is missing, unless the mode is `r`.
        create_dirs: Make missing parent directories too.
        encoding: Of the file; UTF-8 when not given.
        access_mode: As of `open`: r, r+, w, w+, a or a+.
        flush_on_insert: Every append is on disk when it returns; if not, with the next read,
            rewrite or close.
        newline: As of `open`.
        kwargs: The dialect, for `csv.reader` and `csv.writer`.

    Raises:
        FileNotFoundError: Mode `r` without a file, or a missing directory.
        TypeError: An argument that neither this class nor the csv module knows.
        CorruptionError: A file that holds something else.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        create_dirs: bool = False,
        encoding: str | None = None,
        access_mode: str = "r+",
        flush_on_insert: bool = True,
        newline: str | None = "",
        **kwargs: Any,
    ) -> None:
        self._path = Path(os.path.realpath(path))
        self._mode = access_mode
        self._encoding = encoding or "utf-8"
        self._newline = newline
        self._dialect = kwargs
        self._flush_on_insert = flush_on_insert
        self._temp: IO[str] | None = None
        if access_mode != "r":
            create_file(self._path, create_dirs)
        self._handle = self._open(self._path, access_mode)
        try:
            csv.writer(self._handle, **kwargs)
            self._repair()
        except BaseException:
            self._handle.close()
            raise
        self._initially_empty = self._size() == 0

    def _open(self, path: Path, mode: str) -> IO[str]:
        return path.open(mode, encoding=self._encoding, newline=self._newline)

    def _repair(self) -> None:
        """Set a damaged end aside, and see whether the last row has its line end."""
        self._lacks_line_end = False
        if self._mode == "r":
            return  # whoever writes the file may be in the middle of a row
        torn = torn_tail(self._path, self._encoding, **self._dialect)
        if torn is not None:
            aside = set_aside(self._path, torn)
            text = f"{self._path}: the damaged end was moved to {aside.name}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)
        self._lacks_line_end = lacks_line_end(self._path, self._encoding)

    @property
    def can_append(self) -> bool:
        """True.

        Raises:
            OSError: The access mode forbids appends.
        """
        return self._allow("append", self._mode != "r")

    @property
    def can_read(self) -> bool:
        """True.

        Raises:
            OSError: The access mode forbids reads.
        """
        return self._allow("read", self._mode == "r" or "+" in self._mode)

    @property
    def can_write(self) -> bool:
        """True.

        Raises:
            OSError: The access mode forbids changes.
        """
        return self._allow("write", self._mode in ("r+", "w", "w+"))

    def _allow(self, what: str, allowed: bool) -> bool:
        if self._handle.closed:  # answers may come from the index, and must not any more
            raise ValueError("I/O operation on closed file.")
        if not allowed:
            raise OSError(f"{self._path}: cannot {what} in access mode {self._mode!r}")
        return True

    def __iter__(self) -> Iterator[CsvRow]:
        return sound_items(self._window(), self._path, **self._dialect)

    def __len__(self) -> int:
        return sum(1 for _ in self._rows())

    def _rows(self) -> Iterator[list[str]]:
        """Yield the rows without their text: quicker than iterating."""
        return sound_rows(self._window(), self._path, **self._dialect)

    def _index_rows(self, extend: Callable[[Iterator[list[str]]], int]) -> None:
        """Give all rows, whole or not, to a function that says how many it left out."""
        with self._window() as text:
            warn_of(extend(all_rows(text, **self._dialect)), self._path)

    def _window(self) -> io.TextIOWrapper:
        return open_window(self._path, self._size(), self._encoding, self._newline)

    def _size(self) -> int:
        self._handle.flush()
        return os.fstat(self._handle.fileno()).st_size

    @property
    def _is_plain(self) -> bool:
        """Whether what is read back is what was written, cell by cell."""
        return self._newline == "" and set(self._dialect) <= {"delimiter", "quotechar"}

    def append(self, items: Sequence[Any], temporary: bool = False) -> None:
        """Append rows: all of them or, when the disk refuses, none.

        Args:
            items: Rows, as `_serialize_point` or `__iter__` gave them.
            temporary: Append to the temporary file of a rewrite instead.

        Raises:
            ValueError: A cell that the csv module would not read back, or cannot be encoded.
        """
        text = io.StringIO(newline="")
        writer = csv.writer(text, **self._dialect)
        for item in items:
            if isinstance(item, CsvRow):
                text.write(item.raw)
                if not item.raw.endswith(("\n", "\r")):
                    text.write(self._line_end)
            else:
                writer.writerow(item)
        written = text.getvalue()
        if len(written) > csv.field_size_limit():
            _refuse_long_cells(items)
        if temporary:
            self._temp_handle().write(written)
        else:
            self._append_text(written)

    @property
    def _line_end(self) -> str:
        return str(self._dialect.get("lineterminator", "\r\n"))

    def _append_text(self, text: str) -> None:
        size = self._size()
        self._handle.seek(0, os.SEEK_END)
        try:
            self._handle.write(self._line_end + text if self._lacks_line_end else text)
            if self._flush_on_insert:
                self._handle.flush()
                os.fsync(self._handle.fileno())
        except OSError:
            # Half a batch, in the file or in the buffer, must not stay.
            with contextlib.suppress(OSError):
                self._handle.close()
            os.truncate(self._path, size)
            self._reopen()
            raise
        self._lacks_line_end = False

    def read(self) -> list[Point]:
        """Return all points in the order of the file."""
        return [Point()._deserialize_from_list(row) for row in self._rows()]

    def reset(self) -> None:
        """Remove all points. Iterators that have begun still see them."""
        self._write([])

    def close(self) -> None:
        """Close the file."""
        self._cleanup_temp_storage()
        self._handle.close()

    def _deserialize_measurement(self, item: Sequence[str]) -> str:
        return item[1]

    def _deserialize_timestamp(self, item: Sequence[str]) -> datetime:
        return time_from_cell(item[0]).replace(tzinfo=None)

    def _deserialize_storage_item(self, item: Sequence[str]) -> Point:
        return Point()._deserialize_from_list(item)

    def _serialize_point(
        self, point: Point, *args: Any, compact_key_prefixes: bool = False, **kwargs: Any
    ) -> Sequence[str]:
        return point._serialize_to_list(compact_key_prefixes)

    def _write(self, items: Sequence[Any]) -> None:
        self._init_temp_storage()
        try:
            self.append(items, temporary=True)
            self._swap_temp_with_primary()
        finally:
            self._cleanup_temp_storage()

    def _init_temp_storage(self) -> None:
        self._cleanup_temp_storage()  # the file itself is made when the first row comes

    def _rewrite_rows(self, changes: Mapping[int, Sequence[str] | None], n_rows: int) -> bool:
        """Put other rows in the place of some, or none, and copy the text between them.

        Args:
            changes: Positions to new rows; None removes.
            n_rows: How many rows there are.

        Returns:
            False when the file holds other rows than that (damaged ones); nothing is done then.
        """
        rows = raw_rows(self._window(), self._line_end, **self._dialect)
        temp = self._temp_handle()
        writer = csv.writer(temp, **self._dialect)
        done = 0
        for position in sorted(changes):
            temp.writelines(islice(rows, position - done))
            done = position + (next(rows, None) is not None)
            new = changes[position]
            if new is not None:
                _refuse_long_cells([new])
                writer.writerow(new)
        while batch := list(islice(rows, 1000)):
            temp.writelines(batch)
            done += len(batch)
        if done == n_rows:
            self._swap_temp_with_primary()
        else:
            self._cleanup_temp_storage()
        return done == n_rows

    def _temp_handle(self) -> IO[str]:
        if self._temp is None:
            name, folder = self._path.name, self._path.parent
            fd, temp = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder)
            os.close(fd)
            shutil.copymode(self._path, temp)
            self._temp = self._open(Path(temp), "w")
        return self._temp

    def _swap_temp_with_primary(self) -> None:
        temp = self._temp_handle()
        self._handle.flush()
        temp.flush()
        os.fsync(temp.fileno())
        temp.close()
        Path(temp.name).replace(self._path)
        self._temp = None
        _sync_directory(self._path.parent)
        self._handle.close()
        self._reopen()
        self._lacks_line_end = False

    def _reopen(self) -> None:
        # Not again with `w`: that would empty what was just written.
        self._handle = self._open(self._path, "r+" if self._mode in ("r+", "w+") else "a")

    def _cleanup_temp_storage(self) -> None:
        if self._temp is not None:
            self._temp.close()
            Path(self._temp.name).unlink(missing_ok=True)
            self._temp = None


def create_file(path: str | os.PathLike[str], create_dirs: bool) -> None:
    """Make a file if it does not exist yet.

    Args:
        path: The file.
        create_dirs: Make missing parent directories too.

    Raises:
        FileNotFoundError: The parent directory is missing.
    """
    file = Path(path)
    if create_dirs:
        file.parent.mkdir(parents=True, exist_ok=True)
    file.touch()


def _refuse_long_cells(items: Sequence[Sequence[str]]) -> None:
    limit = csv.field_size_limit()
    if any(len(cell) > limit for item in items for cell in item):
        raise ValueError(f"a cell is longer than csv.field_size_limit(), {limit}")


def _sync_directory(path: Path) -> None:
    # The new name is on disk only when the directory is. Windows has no such call.
    if os.name == "posix":
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
