"""The trash: what DROP took, kept for `trash_hours`, so that one wrong click is no disaster.

    data/.trash/<id>/     files of a dropped database or retention policy; the id says when, in ns

catalog.json says what they were (`Trashed`). A dropped measurement stays where it is, in the stores
of its database, under a name that hides it. What lies in the directory and is in no entry is
nobody's, and is deleted.

This module has values, their file form, and the moves of files; `gateway.catalog` says when.
"""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway import policies
from gateway.errors import StatementError
from gateway.metrics import Statistic
from gateway.policies import Database, directory_name
from gateway.users import Access
from tinyflux.columnar.files import OsFiles
from tinyflux.columnar.series import HIDDEN
from tinyflux.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.metrics import Metrics
    from gateway.users import User

MAX_ENTRIES: Final = 200
"""The oldest go when there are more: a test suite drops thousands of databases, and each change
writes catalog.json anew."""
MAX_SERIES: Final = 1_000_000
"""As many series of dropped measurements are kept: they stay in the index, which is in memory."""
_DIRECTORY: Final = ".trash"
_GONE: Final = ".gone"

_log = logging.getLogger(__name__)


class Kind(StrEnum):
    """What was dropped."""

    DATABASE = "database"
    POLICY = "retention policy"
    MEASUREMENT = "measurement"


@dataclass(frozen=True, slots=True)
class Trashed:
    """One thing in the trash.

    Attributes:
        id: When it was dropped, in ns since 1970; no two are the same.
        kind: What it is.
        database: The name of its database, or of itself.
        name: Its name.
        size_bytes: What it took on the disk.
        n_series: Of a measurement, its series.
        was: Of a database, itself; of a policy, a database that has nothing else.
        grants: Of a database, the rights on it by the names of users.
    """

    id: int
    kind: Kind
    database: str
    name: str
    size_bytes: int = 0
    n_series: int = 0
    was: Database | None = None
    grants: Mapping[str, Access] = field(default_factory=dict)

    @property
    def hidden_name(self) -> str:
        """What a dropped measurement is called while it is here."""
        return f"{HIDDEN}{self.id}"

    def restored(self, name: str) -> Database:
        """Return the dropped database, or the one with the dropped policy, under a name.

        Under another name it has neither continuous queries, which name the old one, nor
        subscriptions: it is a copy to look at.
        """
        assert self.was is not None
        was = self.was
        if self.kind is Kind.POLICY:
            was = replace(was, policies=tuple(replace(p, name=name) for p in was.policies))
        else:
            was = replace(was, name=name)
        return was if name == self.name else replace(was, continuous_queries=(), subscriptions=())


def find(trash: Iterable[Trashed], kind: Kind, database: str, name: str) -> list[Trashed]:
    """Return all of a kind and name, what was dropped last first.

    Raises:
        StatementError: There is nothing.
    """
    found = [e for e in trash if (e.kind, e.database, e.name) == (kind, database, name)]
    if not found:
        raise is_missing(kind, name)
    return found[::-1]


def is_missing(kind: Kind, name: str) -> StatementError:
    """Return the refusal to bring back what is not there."""
    return StatementError(f"{kind} not in the trash: {name}")


def is_taken(kind: Kind, name: str) -> StatementError:
    """Return the refusal to bring something back under a name that is used again."""
    return StatementError(f"{kind} already exists: {name}; bring it back AS another name")


def moved(trash: Sequence[Trashed], back: Trashed, database: str) -> tuple[Trashed, ...]:
    """Return the trash after a database left it under a name: what was dropped from it follows."""
    earlier = [
        entry.id
        for entry in trash
        if entry.kind is back.kind and entry.name == back.name and entry.id < back.id
    ]
    first_id = max(earlier, default=0)
    return tuple(
        replace(entry, database=database)
        if entry.database == back.name and first_id < entry.id < back.id
        else entry
        for entry in trash
        if entry is not back
    )


def first_kept(trash: Sequence[Trashed], now_ns: int, kept_ns: int) -> int:
    """Return the smallest id that may stay: the others are too old, or too many."""
    oldest_ns = now_ns - kept_ns
    n_series = 0
    for n, entry in enumerate(reversed(trash)):
        n_series += entry.n_series
        if n and (n >= MAX_ENTRIES or n_series > MAX_SERIES):
            return max(oldest_ns, entry.id + 1)
    return oldest_ns


def rights_on(database: str, users: Iterable[User]) -> dict[str, Access]:
    """Return the rights on a database by the names of the users who have a row for it."""
    return {user.name: user.grants[database] for user in users if database in user.grants}


def with_rights(
    users: Mapping[str, User], database: str, grants: Mapping[str, Access]
) -> Mapping[str, User]:
    """Return the users with rights on a database again; users who are gone are left out."""
    return {
        name: user.with_access(database, grants[name]) if name in grants else user
        for name, user in users.items()
    }


def without_unknown(trash: tuple[Trashed, ...], users: Mapping[str, User]) -> tuple[Trashed, ...]:
    """Return a trash without rights of users who are gone: a later one of that name is another."""
    return tuple(
        replace(entry, grants={name: entry.grants[name] for name in entry.grants if name in users})
        for entry in trash
    )


def watch(trash: Callable[[], Sequence[Trashed]], metrics: Metrics) -> None:
    """Have the size of a trash shown by /metrics and SHOW STATS."""

    def size_bytes() -> int:
        return sum(entry.size_bytes for entry in trash())

    def statistics() -> list[Statistic]:
        return [Statistic("trash", {}, {"entries": len(trash()), "bytes": size_bytes()})]

    metrics.measure("tinyflux_trash_bytes", "Bytes of what was dropped and is kept.", size_bytes)
    metrics.measure(
        "tinyflux_trash_entries",
        "Databases, policies and measurements that were dropped and are kept.",
        lambda: len(trash()),
    )
    metrics.report(statistics)


# --- in catalog.json ------------------------------------------------------------------------------
def to_document(entry: Trashed) -> dict[str, object]:
    """Return the form that `from_document` reads."""
    return {
        "id": entry.id,
        "kind": entry.kind,
        "database": entry.database,
        "name": entry.name,
        "size_bytes": entry.size_bytes,
        "n_series": entry.n_series,
        "was": entry.was,
        "grants": {name: int(access) for name, access in entry.grants.items()},
    }


def from_document(document: Mapping[str, Any]) -> Trashed:
    """Return what `to_document` made a document of.

    Raises:
        KeyError, TypeError, ValueError: It is none.
    """
    was = document["was"]
    return Trashed(
        **dict(document)
        | {
            "kind": Kind(document["kind"]),
            "was": None if was is None else policies.from_document(was),
            "grants": {
                name: Access(access) & Access.ALL for name, access in document["grants"].items()
            },
        }
    )


# --- files ----------------------------------------------------------------------------------------
def place(data: Path, database: str, policy: str = "") -> Path:
    """Return the directory of a database, or of one of its policies."""
    path = data / directory_name(database)
    return path / directory_name(policy) if policy else path


def size_of(path: Path) -> int:
    """Return how many bytes the files below a directory have; 0 when it is not there."""
    size_bytes = 0
    for directory, _, names in os.walk(path):
        for name in names:
            with suppress(FileNotFoundError):  # a store may be at work there
                size_bytes += Path(directory, name).lstat().st_size
    return size_bytes


def take(data: Path, path: Path, trash_id: int) -> None:
    """Move a directory into the trash, durably; one that is not there is fine.

    Raises:
        StorageError: It cannot be moved.
    """
    _move(path, data / _DIRECTORY / str(trash_id), "dropped, but not removed")


def give_back(data: Path, trash_id: int, path: Path) -> None:
    """Move a directory out of the trash, durably; one that is not there is fine.

    Raises:
        StorageError: It cannot be moved.
    """
    _move(data / _DIRECTORY / str(trash_id), path, "not brought back")


def has_files(data: Path, trash_id: int) -> bool:
    """Return whether there are files of an entry."""
    return (data / _DIRECTORY / str(trash_id)).exists()


def disown(data: Path, trash_id: int) -> None:
    """Make the files of an entry nobody's, at once and as a whole; there may be none.

    Raises:
        StorageError: They cannot be moved.
    """
    root = data / _DIRECTORY
    _move(root / str(trash_id), root / f"{trash_id}{_GONE}", "not purged")


def sweep(data: Path, trash: Iterable[Trashed]) -> None:
    """Delete what lies in the directory and is in no entry; a failure is logged, no error."""
    root = data / _DIRECTORY
    kept = {str(entry.id) for entry in trash}
    for path in root.iterdir() if root.exists() else ():
        if path.name not in kept:
            try:
                shutil.rmtree(path)
            except OSError as exc:
                _log.error("dropped files not deleted path=%s error=%s", path, exc)


def _move(source: Path, target: Path, failure: str) -> None:
    files = OsFiles()
    try:
        if source.exists():
            files.make_directory(target.parent)
            files.replace(source, target)
            files.sync_directory(target.parent)  # first: better two names for a moment than none
            files.sync_directory(source.parent)
    except OSError as exc:
        raise StorageError(f"{failure}: {exc}") from exc
