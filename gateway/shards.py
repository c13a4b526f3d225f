"""Numbers of shards: what SHOW SHARDS shows, and DROP SHARD takes.

The engine knows a shard by its store and its first time. A number is given when a shard is first
listed, is kept in `shards.json`, and is never given again. Losing that file costs the numbers only.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import orjson

from tinyflux.columnar.files import OsFiles, write_file
from tinyflux.errors import CorruptionError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gateway.catalog import Catalog
    from tinyflux.columnar.base import Shard

Place: TypeAlias = tuple[str, str, int]
"""Database, retention policy, first ns."""


class NumberedShard(NamedTuple):
    """A shard as it is listed."""

    number: int
    database: str
    policy: str
    bounds: Shard


class ShardNumbers:
    """The numbers of the shards of a server. Safe to use from many threads.

    Args:
        path: Of the file; None keeps them in memory.

    Attributes:
        listing: Held while all shards are listed; taken before any lock of the catalog.

    Raises:
        CorruptionError: The file is not what was written.
    """

    def __init__(self, path: Path | None) -> None:
        self.listing = threading.Lock()
        self._path = path
        self._lock = threading.Lock()
        self._next, self._numbers = _read(path) if path is not None else (1, {})

    def of(self, places: Iterable[Place]) -> list[int]:
        """Return the numbers of all shards there are; those of others are forgotten.

        Raises:
            StorageError: New numbers cannot be kept.
        """
        with self._lock:
            numbers: dict[Place, int] = {}
            after = self._next
            for place in places:
                known = self._numbers.get(place)
                numbers[place] = after if known is None else known
                after += known is None
            self._keep(after, numbers)
            return list(numbers.values())

    def place(self, number: int) -> Place | None:
        """Return which shard has a number; None when none has."""
        with self._lock:
            return next((place for place, own in self._numbers.items() if own == number), None)

    def forget(self, database: str, policy: str = "", first_ns: int | None = None) -> None:
        """Forget the numbers of a database, a policy or a shard: should it come again, it is new.

        Raises:
            StorageError: That cannot be kept.
        """
        with self._lock:
            numbers = {
                place: number
                for place, number in self._numbers.items()
                if place[0] != database
                or (policy and place[1] != policy)
                or (first_ns is not None and place[2] != first_ns)
            }
            self._keep(self._next, numbers)

    def _keep(self, after: int, numbers: dict[Place, int]) -> None:
        if numbers == self._numbers:
            return
        if self._path is not None:
            rows = [[number, *place] for place, number in numbers.items()]
            document = orjson.dumps({"version": 1, "next": after, "shards": rows})
            try:
                write_file(OsFiles(), self._path, document)
            except OSError as exc:
                raise StorageError(f"the numbers of shards could not be written: {exc}") from exc
        self._next, self._numbers = after, numbers


def shards_of(catalog: Catalog) -> list[NumberedShard]:
    """Return the shards of all stores by database, policy and time. Opens all stores.

    Raises:
        StorageError: A store cannot be opened, or new numbers cannot be kept.
    """
    with catalog.shard_numbers.listing:
        found = [
            (database.name, policy.name, shard)
            for database in catalog.databases.values()
            for policy in database.policies
            for shard in catalog.storage(database.name, policy.name).shards()
        ]
        numbers = catalog.shard_numbers.of(
            (database, policy, shard.first_ns) for database, policy, shard in found
        )
    return [NumberedShard(n, *shard) for n, shard in zip(numbers, found, strict=True)]


def drop_shard(catalog: Catalog, number: int) -> bool:
    """Delete a shard with its points. Returns whether it existed."""
    place = catalog.shard_numbers.place(number)
    if place is None:
        return False
    database, policy, first_ns = place
    storage = catalog.storage(database, policy)
    dropped = [s for s in storage.shards() if s.first_ns == first_ns and storage.drop_shard(s)]
    catalog.shard_numbers.forget(database, policy, first_ns)
    return bool(dropped)


def _read(path: Path) -> tuple[int, dict[Place, int]]:
    if not path.exists():
        return 1, {}
    try:
        document = orjson.loads(path.read_bytes())
        if document["version"] != 1:
            raise ValueError(f"unknown version {document['version']!r}")
        numbers = {(db, policy, first): number for number, db, policy, first in document["shards"]}
        return int(document["next"]), numbers
    except (ValueError, KeyError, TypeError) as exc:
        raise CorruptionError(path, None, f"not numbers of shards: {exc}") from exc
