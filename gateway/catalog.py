"""The catalog: databases with all that belongs to them, users, and the stores of the points.

    data/catalog.json             this catalog, replaced atomically; the truth about what exists
    data/continuous.json          how far the continuous queries came (`gateway.continuous`)
    data/shards.json              the numbers of shards (`gateway.shards`)
    data/catalog.lock             held while a process owns the directory
    data/<database>/<policy>/     one TinyFlux store, opened at first use
    data/.trash/<id>/             files of what was dropped (`gateway.trash`)

Names on disk are percent-encoded (`directory_name`): they hold no `.`, so no database collides with
the catalog's own files.

Invariants
- A change is on disk before it is visible, and visible before the call returns.
- What is dropped is noted as `dropping` in the same replacement of catalog.json that forgets it,
  and the note stays until its files are in the trash: a crash in between leaves nothing that a
  later database of the same name could show. What comes back is noted so until all of it is there:
  a crash in between leaves it dropped.
- Nothing is created while a drop is unfinished: its files could be taken for the new ones.
- Databases and users are frozen values in dicts that are replaced, never changed: readers take no
  lock.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, cast

from gateway import catalogfile, trash
from gateway.catalogfile import Contents
from gateway.errors import DatabaseNotFound, RetentionPolicyNotFound, StatementError
from gateway.policies import (
    DEFAULT_POLICY,
    HOUR_NS,
    Database,
    PolicyChange,
    RetentionPolicy,
    altered_policy,
    check_same_default,
    directory_name,
    new_policy,
)
from gateway.shards import ShardNumbers
from gateway.trash import Kind, Trashed
from tinyflux.columnar.files import SEGMENT_DIRECTORY, OsFiles
from tinyflux.columnar.limits import SeriesLimits
from tinyflux.columnar.memory import Memory, default_bytes
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import CorruptionError, StorageClosed, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from pathlib import Path

    from gateway.config import Settings
    from gateway.users import User
    from tinyflux.batch import PointBatch
    from tinyflux.columnar.base import ColumnarStorage
    from tinyflux.columnar.wal import SyncMode

_log = logging.getLogger(__name__)
_StoreKey: TypeAlias = tuple[str, str]
Listener: TypeAlias = "Callable[[str, str, PointBatch], None]"


class Catalog:
    """The databases of one data directory, or of memory. Safe to use from many threads.

    Attributes:
        memory: What the stores and the queries may hold together.
        measurements_lock: Held while names of measurements change; taken before all other locks.
    """

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
        self.memory = Memory.of(settings.memory_bytes or default_bytes())
        self._lock = threading.RLock()  # held by every change, and while a store is opened
        self.measurements_lock = threading.Lock()
        self._stores: dict[_StoreKey, ColumnarStorage] = {}
        self._limits: dict[str, SeriesLimits] = {}  # of the stores of a database
        self._contents = Contents()
        self.shard_numbers = ShardNumbers(None)
        self._listeners: tuple[Listener, ...] = ()
        self._is_closed = False
        self._lock_fd = -1
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock_fd = catalogfile.lock(directory)
            try:
                self._contents = catalogfile.read(directory)
                self.shard_numbers = ShardNumbers(directory / "shards.json")
                self._finish_drops()
                trash.sweep(directory, self._contents.trash)
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
    def trash(self) -> tuple[Trashed, ...]:
        """What was dropped and is kept, oldest first; a value that never changes."""
        return self._contents.trash

    @property
    def kept_ns(self) -> int:
        """How long what is dropped is kept, in ns; 0 is not at all, as it always is in memory."""
        return 0 if self._directory is None else int(self._settings.trash_hours * HOUR_NS)

    @property
    def has_segments(self) -> bool:
        """Whether a store has points in segments."""
        directory = self._directory
        return directory is not None and any(directory.glob(f"*/*/{SEGMENT_DIRECTORY}/*"))

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

    def storages(self, database: str) -> list[ColumnarStorage]:
        """Return the storages of all policies of a database, opened.

        Raises:
            DatabaseNotFound: No such database.
            StorageError: One of them cannot be opened.
        """
        return [self.storage(database, policy.name) for policy in self.database(database).policies]

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
        """Drop a database with its points and the rights on it. Returns whether it existed."""
        with self._lock:
            was = self.databases.get(name)
            if was is None:
                return False
            grants = trash.rights_on(name, self.users.values())
            entry = Trashed(0, Kind.DATABASE, name, name, was=was, grants=grants)
            self._drop(self._contents.without_database(name), entry)
            self._limits.pop(name, None)
            return True

    def undrop_database(self, name: str, new_name: str = "") -> None:
        """Bring the last dropped database of a name back; under a new name as a copy to look at.

        Raises:
            StatementError: There is none, the name is taken or invalid.
            StorageError: Its files cannot be moved; it is still in the trash.
        """
        target = new_name or name
        with self._lock:
            entry, *_ = trash.find(self.trash, Kind.DATABASE, name, name)
            if target in self.databases:
                raise trash.is_taken(entry.kind, target)
            directory_name(target)
            contents = self._contents.with_database(entry.restored(target))
            if target == name:
                users = trash.with_rights(self.users, name, entry.grants)
                contents = replace(contents, users=users)
            moved = trash.moved(self.trash, entry, target)
            self._bring_back(replace(contents, trash=moved), entry, target, "")

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
        """Change a retention policy. A new shard duration holds for new shards.

        Differs from influxd: a new shard never overlaps an older one.

        Raises:
            DatabaseNotFound: No such database.
            RetentionPolicyNotFound: No such policy.
            StatementError: A bad duration.
        """
        with self._lock:
            entry = self.database(database)
            if not entry.has_policy(name):
                raise RetentionPolicyNotFound(name)
            old = entry.policy(name)
            policy = altered_policy(old, change)
            if policy.shard_duration_ns != old.shard_duration_ns:
                self._open(database, name)  # by the old duration: its shards keep their bounds
            self._put(entry.with_policy(policy, is_default=change.is_default))
            if (store := self._stores.get((database, name))) is not None:
                store.set_shard_duration(policy.shard_duration_ns)

    def drop_policy(self, database: str, name: str) -> bool:
        """Drop a retention policy with all its points. Returns whether it existed.

        Dropping the default policy leaves a database whose default does not exist, as influxd does.

        Raises:
            DatabaseNotFound: No such database.
        """
        with self._lock:
            entry = self.database(database)
            if not entry.has_policy(name):
                return False
            was = entry.only_policy(name)
            dropped = Trashed(0, Kind.POLICY, database, name, was=was)
            self._drop(self._contents.with_database(entry.without_policy(name)), dropped)
            return True

    def undrop_policy(self, database: str, name: str, new_name: str = "") -> None:
        """Bring the last dropped policy of a name back; it is the default when that is missing.

        Raises:
            DatabaseNotFound: No such database.
            StatementError: There is none, the name is taken or invalid.
            StorageError: Its files cannot be moved; it is still in the trash.
        """
        target = new_name or name
        with self._lock:
            known = self.database(database)
            entry, *_ = trash.find(self.trash, Kind.POLICY, database, name)
            if known.has_policy(target):
                raise trash.is_taken(entry.kind, target)
            directory_name(target)
            restored = entry.restored(target)
            is_default = known.default_policy == name and not known.has_policy(name)
            known = known.with_policy(restored.policy(target), is_default=is_default)
            known = replace(known, subscriptions=(*known.subscriptions, *restored.subscriptions))
            contents = self._contents.with_database(known)
            moved = tuple(other for other in self.trash if other is not entry)
            self._bring_back(replace(contents, trash=moved), entry, database, target)

    def purge_trash(self, before_id: int) -> int:
        """Delete the dropped databases and policies of smaller ids. Returns how many they were."""
        with self._lock:
            kept = tuple(e for e in self.trash if e.id >= before_id or e.kind is Kind.MEASUREMENT)
            gone = [entry for entry in self.trash if entry not in kept]
            if gone:
                if self._directory is not None:
                    # First: on a full disk nothing can be written before something is deleted.
                    for entry in gone:
                        trash.disown(self._directory, entry.id)
                    trash.sweep(self._directory, kept)
                self._commit(replace(self._contents, trash=kept))
            return len(gone)

    def add_to_trash(self, entry: Trashed) -> Trashed:
        """Note what has no files of its own, a measurement, as dropped; returns it with its id."""
        with self._lock:
            entry = replace(entry, id=self._new_trash_id())
            self._commit(replace(self._contents, trash=(*self.trash, entry)))
            return entry

    def remove_from_trash(self, ids: Collection[int]) -> None:
        """Forget dropped measurements."""
        with self._lock:
            kept = tuple(entry for entry in self.trash if entry.id not in ids)
            self._commit(replace(self._contents, trash=kept))

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
            users = change(self.users)
            kept = trash.without_unknown(self.trash, users)
            self._commit(replace(self._contents, users=users, trash=kept))

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
            path = trash.place(self._directory, database, policy.name)
            OsFiles().make_directory(path)
        return ParquetStorage(
            path,
            overwrite=True,  # InfluxDB's rule: points of equal series and time are one
            sync=cast("SyncMode", settings.sync),  # Settings checked the word
            flush_bytes=min(settings.memtable_bytes, self.memory.points_bytes // 2),
            shard_duration_ns=policy.shard_duration_ns,
            memory=self.memory,
            limits=self._limits.setdefault(
                database,
                SeriesLimits(settings.max_series_per_database, settings.max_values_per_tag),
            ),
        )

    def _put(self, database: Database) -> None:
        self._commit(self._contents.with_database(database))

    def _commit(self, contents: Contents) -> None:
        """Write the new state, then show it."""
        if self._is_closed:
            raise StorageClosed("the catalog is closed")
        if self._directory is not None:
            catalogfile.write(self._directory, contents)
        self._contents = contents

    def _new_trash_id(self) -> int:
        """Return an id for what is dropped now, above all there are."""
        return max([time.time_ns(), *(entry.id + 1 for entry in self.trash)])

    def _drop(self, contents: Contents, entry: Trashed) -> None:
        """Show the new state, and put what it lacks, a database or policy, into the trash."""
        entry = replace(entry, id=self._new_trash_id())
        policy = "" if entry.kind is Kind.DATABASE else entry.name
        if self._directory is not None and self.kept_ns:
            size = trash.size_of(trash.place(self._directory, entry.database, policy))
            contents = replace(contents, trash=(*self.trash, replace(entry, size_bytes=size)))
        noted = (*contents.dropping, (entry.database, policy, entry.id))
        self._commit(replace(contents, dropping=noted))
        gone = [key for key in self._stores if key[0] == entry.database and policy in {"", key[1]}]
        self._close_stores(gone)
        self.shard_numbers.forget(entry.database, policy)
        self._finish_drops()
        self._sweep()

    def _bring_back(self, contents: Contents, entry: Trashed, database: str, policy: str) -> None:
        """Move files of the trash to a place that nobody has, and show the state that has them."""
        self._finish_drops()
        if self._directory is not None:
            place = trash.place(self._directory, database, policy)
            if entry.size_bytes and not trash.has_files(self._directory, entry.id):
                raise trash.is_missing(entry.kind, entry.name)  # a purge did not come to its end
            if place.exists():  # whosever it is, the note would make it ours
                raise StorageError(f"not brought back: there is a directory: {place}")
            note = (database, policy, entry.id)
            self._commit(replace(self._contents, dropping=(note,)))
            trash.give_back(self._directory, entry.id, place)
        self._commit(replace(contents, dropping=()))

    def _finish_drops(self) -> None:
        """Move the files of everything noted as dropping, then forget the notes."""
        dropping = self._contents.dropping
        if not dropping:
            return
        if self._directory is not None:
            for database, policy, trash_id in dropping:
                place = trash.place(self._directory, database, policy)
                trash.take(self._directory, place, trash_id)
        self._commit(replace(self._contents, dropping=()))

    def _sweep(self) -> None:
        if self._directory is not None:
            trash.sweep(self._directory, self.trash)

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
