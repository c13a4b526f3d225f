"""catalog.json: what a data directory holds besides points, read and replaced as a whole."""

from __future__ import annotations

import fcntl
import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

import orjson

from gateway import policies, trash, users
from tinyflux.columnar.files import OsFiles
from tinyflux.errors import CorruptionError, StorageError, StorageLocked

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.policies import Database
    from gateway.trash import Trashed
    from gateway.users import User

_NAME: Final = "catalog.json"


@dataclass(frozen=True, slots=True)
class Contents:
    """What catalog.json holds. A value: every change makes another one.

    Attributes:
        databases: The databases by name, in the order they were created.
        users: The users by name, in the order they were created.
        trash: What was dropped, oldest first.
        dropping: Database, policy ("" is all of them) and id of what has to go to the trash: files
            in that place belong to no database, they are moved or were.
    """

    databases: Mapping[str, Database] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    trash: tuple[Trashed, ...] = ()
    dropping: tuple[tuple[str, str, int], ...] = ()

    def with_database(self, database: Database) -> Contents:
        """Return this with a database added, or changed in its place."""
        return replace(self, databases={**self.databases, database.name: database})

    def without_database(self, name: str) -> Contents:
        """Return this without a database and the rights on it."""
        rest = {key: value for key, value in self.databases.items() if key != name}
        # Whoever creates this name again gives the rights on it again.
        kept = {key: user.without_database(name) for key, user in self.users.items()}
        return replace(self, databases=rest, users=kept)


def lock(directory: Path) -> int:
    """Take a data directory for this process; returns a file descriptor, to be closed at the end.

    Raises:
        StorageLocked: Another process has it.
    """
    fd = os.open(directory / "catalog.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise StorageLocked(f"{directory}: another process owns this data directory") from exc
    return fd


def read(directory: Path) -> Contents:
    """Return what the file of a data directory says; nothing where there is none.

    Raises:
        CorruptionError: It is not what was written.
    """
    path = directory / _NAME
    if not path.exists():
        return Contents()
    try:
        document = orjson.loads(path.read_bytes())
        if document["version"] != 1:
            raise ValueError(f"unknown version {document['version']!r}")
        databases = [policies.from_document(entry) for entry in document["databases"]]
        known = [users.from_document(entry) for entry in document.get("users", ())]
        trashed = [trash.from_document(entry) for entry in document.get("trash", ())]
        # Before there was a trash there were no ids.
        dropping = [
            (database, policy, int(rest[0]) if rest else -number)
            for number, (database, policy, *rest) in enumerate(document["dropping"])
        ]
    except (ValueError, KeyError, TypeError) as exc:
        raise CorruptionError(path, None, f"not a catalog: {exc}") from exc
    return Contents(
        {database.name: database for database in databases},
        {user.name: user for user in known},
        tuple(trashed),
        tuple(dropping),
    )


def write(directory: Path, contents: Contents) -> None:
    """Replace the file of a data directory, durably.

    Raises:
        StorageError: It could not be written; the old one holds.
    """
    document = {
        "version": 1,
        "databases": list(contents.databases.values()),
        "users": [users.to_document(user) for user in contents.users.values()],
        "trash": [trash.to_document(entry) for entry in contents.trash],
        "dropping": contents.dropping,
    }
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    path = directory / _NAME
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb", opener=_open_private) as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        OsFiles().sync_directory(directory)
    except OSError as exc:
        raise StorageError(f"the catalog could not be written: {exc}") from exc


def _open_private(path: str, flags: int) -> int:
    """Open a file that only its owner may read: it holds password hashes."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
