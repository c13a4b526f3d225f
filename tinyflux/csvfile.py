"""The bytes of a CSV store: a file as it was at one moment, whole rows and damaged ones.

Rows are written whole, but a crash can leave part of one at the end, or a run of NUL bytes. What is
a row and what is damage is decided here, by one rule: `is_sound`.
"""

from __future__ import annotations

import csv
import io
import os
import warnings
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from tinyflux.errors import CorruptionError
from tinyflux.point import time_from_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_TAIL_BYTES: Final = 1 << 16
_BOM: Final = "\ufeff"


class CsvRow(list[str]):
    """The cells of a row, and the text it was read from, so that a rewrite keeps it as it is.

    Attributes:
        raw: The text with its line end.
    """

    __slots__ = ("raw",)

    def __init__(self, cells: list[str], raw: str) -> None:
        super().__init__(cells)
        self.raw = raw


class _Window(io.RawIOBase):
    """The first bytes of a file. It stays the file it was, whatever happens to the name."""

    def __init__(self, path: Path, size: int) -> None:
        super().__init__()
        self._left = size
        self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = os.read(self._fd, min(self._left, len(buffer)))
        self._left -= len(data)
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()


def open_window(path: Path, size: int, encoding: str, newline: str | None) -> io.TextIOWrapper:
    """Open the first `size` bytes of a file for reading as text.

    What is appended later, or put in the place of the file, does not show.
    """
    raw = io.BufferedReader(_Window(path, size), 1 << 17)
    return io.TextIOWrapper(raw, encoding, newline=newline)


def all_rows(text: io.TextIOWrapper, **dialect: Any) -> Iterator[list[str]]:
    """Yield the cells of each row, whole or not."""
    rows = csv.reader(text, **dialect)
    first = next(rows, None)
    if first:
        first[0] = first[0].removeprefix(_BOM)
    return rows if first is None else chain([first], rows)


def sound_rows(text: io.TextIOWrapper, path: Path, **dialect: Any) -> Iterator[list[str]]:
    """Yield the cells of each whole row; warn at the end when others were left out."""
    damaged = 0
    with text:
        for row in all_rows(text, **dialect):
            if is_sound(row):
                yield row
            elif row:
                damaged += 1
    warn_of(damaged, path)


def sound_items(text: io.TextIOWrapper, path: Path, **dialect: Any) -> Iterator[CsvRow]:
    """Yield each whole row with its text; warn at the end when others were left out."""
    damaged = 0
    lines: list[str] = []
    with text:
        for number, row in enumerate(csv.reader(_tee(text, lines), **dialect)):
            raw = "".join(lines)
            lines.clear()
            if not number and row:
                row[0] = row[0].removeprefix(_BOM)
            if is_sound(row):
                yield CsvRow(row, raw)
            elif row:
                damaged += 1
    warn_of(damaged, path)


def raw_rows(text: io.TextIOWrapper, line_end: str, **dialect: Any) -> Iterator[str]:
    """Yield the text of each row that is not blank, whole or not, with a line end.

    Only rows with a quote are taken apart, so this is three times quicker than `sound_items`.
    """
    quote = dialect.get("quotechar", '"')
    with text:
        lines = iter(text)
        for line in lines:
            if quote in line:  # the row may go on over lines; the csv module knows
                parts: list[str] = []
                next(csv.reader(_tee(chain([line], lines), parts), **dialect))
                line = "".join(parts)  # noqa: PLW2901
            if line.endswith(("\n", "\r")):
                if line.strip("\r\n"):
                    yield line
            else:
                yield line + line_end


def _tee(text: Iterable[str], lines: list[str]) -> Iterator[str]:
    for line in text:
        lines.append(line)
        yield line


def warn_of(damaged: int, path: Path) -> None:
    """Warn of rows that were left out, if there are any."""
    if damaged:
        rows = "row was" if damaged == 1 else "rows were"
        warnings.warn(f"{path}: {damaged} damaged {rows} left out", RuntimeWarning, stacklevel=3)


def is_sound(row: list[str]) -> bool:
    """Return whether a row is whole: a time, a measurement, and a value for every key.

    One empty cell too many at the end, of a trailing delimiter, is dropped from the row.
    """
    if len(row) % 2:
        if len(row) < 3 or row[-1]:
            return False
        row.pop()
    if not row:
        return False
    try:
        datetime.fromisoformat(row[0])
    except ValueError:
        return False
    return True


def torn_tail(path: Path, encoding: str, **dialect: Any) -> int | None:
    """Return the offset at which a damaged end of the file begins, or None.

    Looks at the end of the file; only when that looks damaged, at all of it. What follows the last
    whole row is damage: part of a row, an open quote, or bytes that are none.

    Raises:
        CorruptionError: Nothing in the file looks like a row.
    """
    size = path.stat().st_size
    if not size or not _is_ascii_based(encoding):
        return None
    length = min(size, _TAIL_BYTES)
    data = _read_from(path, size - length)
    start = _last_row_start(data, length == size, encoding, dialect.get("delimiter", ","))
    if start is not None and _torn_offset(data[start:], encoding, dialect) is None:
        return None
    start = _last_sound_row(path, encoding, dialect)
    if start is not None:
        torn = _torn_offset(_read_from(path, start), encoding, dialect)
        return None if torn is None else start + torn
    text = _read_from(path, 0).strip(b"\r\n")
    if b"\n" in text:
        raise CorruptionError(path, 0, "no row of a CSV store in this file")
    return 0 if text else None


def _read_from(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read()


def _last_sound_row(path: Path, encoding: str, dialect: dict[str, Any]) -> int | None:
    """Return the offset of the last row that is whole, as the csv module sees the whole file."""
    lines: list[str] = []
    start = None
    end = 0
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as text:
        for row in csv.reader(_tee(text, lines), **dialect):
            begin, end = end, end + len("".join(lines).encode(encoding, "surrogateescape"))
            lines.clear()
            if not begin and row:
                row[0] = row[0].removeprefix(_BOM)
            if is_sound(row):
                start = begin
    return start


def _torn_offset(data: bytes, encoding: str, dialect: dict[str, Any]) -> int | None:
    """Return where, in bytes that begin with a row, the damage begins; None when there is none."""
    end = _sound_end(data, encoding, dialect)
    return end if data[end:].strip(b"\r\n") else None


def _is_ascii_based(encoding: str) -> bool:
    return "\n".encode(encoding) == b"\n"


def _last_row_start(data: bytes, whole: bool, encoding: str, delimiter: str) -> int | None:
    """Return where the last line that starts with a time starts; the first line may be a part."""
    end = len(data)
    while end > 0:
        start = data.rfind(b"\n", 0, end - 1) + 1
        if start == 0 and not whole:
            return None
        cell = data[start:end].split(delimiter.encode(encoding), 1)[0]
        try:
            time_from_cell(cell.decode(encoding).removeprefix(_BOM).strip('"\r\n'))
        except ValueError:
            end = start
        else:
            return start
    return None


def _sound_end(data: bytes, encoding: str, dialect: dict[str, Any]) -> int:
    """Return how many bytes the row at the start of these bytes has; 0 when it is not whole."""
    text = data.decode(encoding, "surrogateescape")
    lines: list[str] = []
    rows = csv.reader(_tee(io.StringIO(text, newline=""), lines), **{**dialect, "strict": True})
    try:
        row = next(rows)
    except csv.Error:  # the end lies inside a quote
        return 0
    row[0] = row[0].removeprefix(_BOM)
    return len("".join(lines).encode(encoding, "surrogateescape")) if is_sound(row) else 0


def set_aside(path: Path, offset: int) -> Path:
    """Move the end of a file, from an offset on, to the end of `<name>.torn`; return that path."""
    aside = path.with_name(path.name + ".torn")
    with path.open("r+b") as file, aside.open("ab") as out:
        file.seek(offset)
        out.write(file.read())
        out.flush()
        os.fsync(out.fileno())
        file.truncate(offset)
        os.fsync(file.fileno())
    return aside


def lacks_line_end(path: Path, encoding: str) -> bool:
    """Return whether a row appended now would be glued to the last one."""
    if not path.stat().st_size or not _is_ascii_based(encoding):
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() not in (b"\n", b"\r")
