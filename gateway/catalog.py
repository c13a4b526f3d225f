"""The catalog: databases with all that belongs to them, users, and the stores of the points.

    data/catalog.json             this catalog, replaced atomically; the truth about what exists
    data/continuous.json          how far the continuous queries came (`gateway.continuous`)
    data/catalog.lock             held while a process owns the directory
    data/<database>/<policy>/     one TinyFlux store, opened at first use

Names on disk are percent-encoded (`directory_name`): they hold no `.`, so no database collides with
the catalog's own files.

Invariants
- A change is on disk before it is visible, and visible before the call returns.
- What is dropped is noted as `dropping` in the same replacement of catalog.json that forgets it,
  and the note stays until its files are gone: a crash in between leaves nothing that a later
  database of the same name could show.
- Nothing is created while a drop is unfinished: its files could be taken for the new ones.
- Databases and users are frozen values in dicts that are replaced, never changed: readers take no
  lock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias, cast

import orjson

from gateway import users
from gateway.errors import DatabaseNotFound, RetentionPolicyNotFound, StatementError
from gateway.policies import (
    DEFAULT_POLICY,
    ContinuousQuery,
    Database,
    PolicyChange,
    RetentionPolicy,
    Subscription,
    altered_policy,
    check_same_default,
    directory_name,
    new_policy,
)
from tinyflux.columnar.limits import SeriesLimits
from tinyflux.columnar.memory import Memory, default_bytes
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import CorruptionError, StorageClosed, StorageError, StorageLocked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from gateway.config import Settings
    from gateway.users import User
    from tinyflux.batch import PointBatch
    from tinyflux.columnar.base import ColumnarStorage
    from tinyflux.columnar.wal import SyncMode

_log = logging.getLogger(__name__)
_StoreKey: TypeAlias = tuple[str, str]
Listener: TypeAlias = "Callable[[str, str, PointBatch], None]"


@dataclass(frozen=True, slots=True)
class _Contents:
    """What catalog.json holds; `dropping` are databases and policies, policy "" is all of them."""

    databases: Mapping[str, Database] = field(default_factory=dict)
    users: Mapping[str, User] = field(default_factory=dict)
    dropping: tuple[tuple[str, str], ...] = ()

    def with_database(self, database: Database) -> _Contents:
        """Return this with a database added, or changed in its place."""
        return replace(self, databases={**self.databases, database.name: database})


class Catalog:
    """The databases of one data directory, or of memory. Safe to use from many threads."""

    def __init__(self, directory: Path | None, settings: Settings) -> None:
        """Open the catalog; no store is opened yet.

        Args:
            directory: Where catalog.json is or will be; None keeps everything in memory.
            settings: Sync mode and memory of the stores.

        Raises:
            StorageLocked: Another process owns the directory.
            CorruptionError: catalog.json is not what was written.
            OSError: The directory cannot be made, read or written.
        """
        self._directory = directory
        self._settings = settings
        self._memory = Memory.of(settings.memory_bytes or default_bytes())
        self._lock = threading.RLock()  # held by every change, and while a store is opened
        self._stores: dict[_StoreKey, ColumnarStorage] = {}
        self._limits: dict[str, SeriesLimits] = {}  # of the stores of a database
        self._contents = _Contents()
        self._listeners: tuple[Listener, ...] = ()
        self._is_closed = False
        self._lock_fd = -1
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock_fd = _lock_directory(directory)
            try:
                self._contents = _read(directory / "catalog.json")
                self._finish_drops()
            except BaseException:
                os.close(self._lock_fd)
                raise

    # --- what exists ------------------------------------------------------------------------------
    @property
    def users(self) -> Mapping[str, User]:
        """The users by name, in the order they were created; a value that never changes."""
        return self._contents.users

    @property
    def has_admin(self) -> bool:
        """Whether there is a user who may do everything."""
        return any(user.is_admin for user in self._contents.users.values())

    @property
    def databases(self) -> Mapping[str, Database]:
        """The databases by name, in the order they were created; a value that never changes."""
        return self._contents.databases

    def database(self, name: str) -> Database:
        """Return a database.

        Raises:
            DatabaseNotFound: There is none of this name.
        """
        try:
            return self._contents.databases[name]
        except KeyError:
            raise DatabaseNotFound(name) from None

    def storage(self, database: str, policy: str = "") -> ColumnarStorage:
        """Return the storage of a policy, opened at its first use; "" is the default policy.

        Raises:
            DatabaseNotFound: No such database.
            RetentionPolicyNotFound: No such policy.
            StorageError: It cannot be opened.
        """
        entry = self.database(database).policy(policy)
        storage = self._stores.get((database, entry.name))
        return storage if storage is not None else self._open(database, entry.name)

    def open_stores(self) -> list[tuple[str, str, ColumnarStorage]]:
        """Return database, policy and storage of those that are open."""
        with self._lock:
            return [(database, policy, store) for (database, policy), store in self._stores.items()]

    # --- who wants to hear of points --------------------------------------------------------------
    def listen(self, listener: Listener) -> None:
        """Have a function hear of every batch that is stored, in the thread that stores it.

        Args:
            listener: Gets database, policy and points; it is quick, and it does not raise.
        """
        self._listeners = (*self._listeners, listener)

    def stored(self, database: str, policy: str, batch: PointBatch) -> None:
        """Tell the listeners that points were stored."""
        for listener in self._listeners:
            listener(database, policy, batch)

    # --- changes ----------------------------------------------------------------------------------
    def create_database(
        self, name: str, change: PolicyChange | None = None, policy: str = ""
    ) -> None:
        """Create a database with its first policy; one that exists and agrees is left alone.

        Args:
            name: Its name.
            change: What was said about its policy; None is an infinite one.
            policy: The name of that policy; "" is autogen.

        Raises:
            StatementError: `invalid name`, `retention policy conflicts with an existing policy`, or
                a bad duration.
        """
        wanted = change or PolicyChange()
        with self._lock:
            existing = self.databases.get(name)
            if existing is not None:
                if change is not None or policy:
                    check_same_default(existing, wanted, policy)
                return
            first = new_policy(policy or DEFAULT_POLICY, wanted)
            directory_name(name)
            self._finish_drops()
            self._put(Database(name, (first,), first.name))

    def drop_database(self, name: str) -> bool:
        """Delete a database with its points and the rights on it. Returns whether it existed."""
        with self._lock:
            if name not in self.databases:
                return False
            rest = {key: value for key, value in self.databases.items() if key != name}
            # Whoever creates this name again gives the rights on it again.
            kept = {key: user.without_database(name) for key, user in self.users.items()}
            self._drop(replace(self._contents, databases=rest, users=kept), name, "")
            self._limits.pop(name, None)
            return True

    def create_policy(self, database: str, name: str, change: PolicyChange) -> None:
        """Create a retention policy. One that exists already and agrees is left alone.

        Raises:
            DatabaseNotFound: No such database.
            StatementError: `invalid name`, a bad duration, or a policy of that name that differs.
        """
        with self._lock:
            entry = self.database(database)
            policy = new_policy(name, change)
            if entry.has_policy(name):
                if entry.policy(name) != policy:
                    raise StatementError("retention policy already exists")
                if change.is_default and entry.default_policy != name:
                    raise StatementError("retention policy conflicts with an existing policy")
                return
            self._finish_drops()
            self._put(entry.with_policy(policy, is_default=change.is_default))

    def alter_policy(self, database: str, name: str, change: PolicyChange) -> None:
        """Change a retention policy.

        Differs from influxd: a store keeps the shard duration it was made with, so a new one is
        shown but holds only for a policy that was never written to.

        Raises:
            DatabaseNotFound: No such database.
            RetentionPolicyNotFound: No such policy.
            StatementError: A bad duration.
        """
        with self._lock:
            entry = self.database(database)
            if not entry.has_policy(name):
                raise RetentionPolicyNotFound(name)
            policy = altered_policy(entry.policy(name), change)
            self._put(entry.with_policy(policy, is_default=change.is_default))

    def drop_policy(self, database: str, name: str) -> bool:
        """Delete a retention policy with all its points. Returns whether it existed.

        Dropping the default policy leaves a database whose default does not exist, as influxd does.

        Raises:
            DatabaseNotFound: No such database.
        """
        with self._lock:
            entry = self.database(database)
            if not entry.has_policy(name):
                return False
            self._drop(self._contents.with_database(entry.without_policy(name)), database, name)
            return True

    def change_database(self, name: str, change: Callable[[Database], Database]) -> None:
        """Replace a database in one step: its continuous queries, its subscriptions.

        Args:
            name: Its name.
            change: Gets the database and gives the new one; what it raises leaves the old one.

        Raises:
            DatabaseNotFound: No such database.
        """
        with self._lock:
            old = self.database(name)
            new = change(old)
            if new != old:
                self._put(new)

    def change_users(self, change: Callable[[Mapping[str, User]], Mapping[str, User]]) -> None:
        """Replace the users in one step.

        Args:
            change: Gets the users and gives the new ones; what it raises leaves the old ones.
        """
        with self._lock:
            self._commit(replace(self._contents, users=change(self.users)))

    def close(self) -> None:
        """Close all stores and give the directory up. Closing again does nothing."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            try:
                self._close_stores(list(self._stores))
            finally:
                if self._lock_fd >= 0:
                    os.close(self._lock_fd)

    # --- inside -----------------------------------------------------------------------------------
    def _open(self, database: str, policy: str) -> ColumnarStorage:
        with self._lock:
            if self._is_closed:
                raise StorageClosed("the catalog is closed")
            entry = self.database(database).policy(policy)  # again: it may be gone by now
            key = (database, entry.name)
            if key not in self._stores:
                try:
                    self._stores[key] = self._open_store(database, entry)
                except CorruptionError as exc:
                    # The others work; this one is not to be taken for empty.
                    reason = f"{exc.reason} (tinyflux-gateway check tells more)"
                    raise CorruptionError(exc.path, exc.offset, reason) from exc
            return self._stores[key]

    def _open_store(self, database: str, policy: RetentionPolicy) -> ColumnarStorage:
        settings = self._settings
        path: Path | None = None
        if self._directory is not None:
            path = self._directory / directory_name(database) / directory_name(policy.name)
            if not path.exists():
                path.mkdir(parents=True)
                _sync_directory(path.parent)
                _sync_directory(self._directory)
        return ParquetStorage(
            path,
            overwrite=True,  # InfluxDB's rule: points of equal series and time are one
            sync=cast("SyncMode", settings.sync),  # Settings checked the word
            flush_bytes=min(settings.memtable_bytes, self._memory.points_bytes // 2),
            shard_duration_ns=policy.shard_duration_ns,
            memory=self._memory,
            limits=self._limits.setdefault(
                database,
                SeriesLimits(settings.max_series_per_database, settings.max_values_per_tag),
            ),
        )

    def _put(self, database: Database) -> None:
        self._commit(self._contents.with_database(database))

    def _commit(self, contents: _Contents) -> None:
        """Write the new state, then show it."""
        if self._is_closed:
            raise StorageClosed("the catalog is closed")
        if self._directory is not None:
            _write(self._directory / "catalog.json", contents)
        self._contents = contents

    def _drop(self, contents: _Contents, database: str, policy: str) -> None:
        self._commit(replace(contents, dropping=(*contents.dropping, (database, policy))))
        gone = [key for key in self._stores if key[0] == database and policy in {"", key[1]}]
        self._close_stores(gone)
        self._finish_drops()

    def _finish_drops(self) -> None:
        """Delete the files of everything noted as dropping, then the notes."""
        dropping = self._contents.dropping
        if not dropping:
            return
        if self._directory is not None:
            for database, policy in dropping:
                path = self._directory / directory_name(database)
                path = path / directory_name(policy) if policy else path
                try:
                    if path.exists():
                        shutil.rmtree(path)
                except OSError as exc:
                    raise StorageError(f"dropped, but not deleted: {exc}") from exc
        self._commit(replace(self._contents, dropping=()))

    def _close_stores(self, keys: list[_StoreKey]) -> None:
        failures: list[Exception] = []
        for key in keys:
            try:
                self._stores.pop(key).close()
            except Exception as exc:  # noqa: BLE001  # the other stores must be closed all the same
                _log.error("store not closed cleanly database=%s policy=%s", *key, exc_info=exc)
                failures.append(exc)
        if failures:
            raise failures[0]


# --- catalog.json ---------------------------------------------------------------------------------
def _lock_directory(directory: Path) -> int:
    fd = os.open(directory / "catalog.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        os.close(fd)
        raise StorageLocked(f"{directory}: another process owns this data directory") from exc
    return fd


def _read(path: Path) -> _Contents:
    if not path.exists():
        return _Contents()
    try:
        document = orjson.loads(path.read_bytes())
        if document["version"] != 1:
            raise ValueError(f"unknown version {document['version']!r}")
        databases = {
            entry["name"]: Database(
                entry["name"],
                tuple(RetentionPolicy(**policy) for policy in entry["policies"]),
                entry["default_policy"],
                tuple(ContinuousQuery(**query) for query in entry.get("continuous_queries", ())),
                tuple(
                    Subscription(**known | {"destinations": tuple(known["destinations"])})
                    for known in entry.get("subscriptions", ())
                ),
            )
            for entry in document["databases"]
        }
        known = [users.from_document(entry) for entry in document.get("users", ())]
        dropping = tuple((database, policy) for database, policy in document["dropping"])
    except (ValueError, KeyError, TypeError) as exc:
        raise CorruptionError(path, None, f"not a catalog: {exc}") from exc
    return _Contents(databases, {user.name: user for user in known}, dropping)


def _write(path: Path, contents: _Contents) -> None:
    document = {
        "version": 1,
        "databases": list(contents.databases.values()),
        "users": [users.to_document(user) for user in contents.users.values()],
        "dropping": contents.dropping,
    }
    body = orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb", opener=_open_private) as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_directory(path.parent)
    except OSError as exc:
        raise StorageError(f"the catalog could not be written: {exc}") from exc


def _sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _open_private(path: str, flags: int) -> int:
    """Open a file that only its owner may read: it holds password hashes."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
