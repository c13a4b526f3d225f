"""Measurements as statements mean them, in all retention policies of a database.

Each policy has a store of its own, so a change of several is not one step: a crash leaves it done
in some of them, and doing it again does the rest. The trash notes a dropped measurement before it
is hidden, and forgets it after it is back or gone: what is hidden is always noted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from gateway import trash
from gateway.errors import InfluxError, StatementError
from gateway.trash import Kind, Trashed
from tinyflux.errors import TinyFluxError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.catalog import Catalog
    from tinyflux.columnar.base import ColumnarStorage

_MAX_NAME_BYTES: Final = 65_535  # of a series key in influxd, which the name is a part of

_log = logging.getLogger(__name__)


def drop(catalog: Catalog, database: str, name: str) -> bool:
    """Drop a measurement, also its field types. Returns whether it existed.

    Raises:
        DatabaseNotFound: No such database.
        StorageError: A store failed.
    """
    with catalog.measurements_lock:
        stores = _having(catalog, database, name)
        if stores and not catalog.kept_ns:
            for store in stores:
                store.drop_measurement(name)
        elif stores:
            entry = catalog.add_to_trash(
                Trashed(
                    0,
                    Kind.MEASUREMENT,
                    database,
                    name,
                    size_bytes=sum(store.size_bytes(name) for store in stores),
                    n_series=sum(len(store.series(name)) for store in stores),
                )
            )
            for store in stores:
                store.rename_measurement(name, entry.hidden_name)
    return bool(stores)


def undrop(catalog: Catalog, database: str, name: str, new_name: str = "") -> None:
    """Bring the last dropped measurement of a name back.

    Raises:
        DatabaseNotFound: No such database.
        StatementError: There is none, the name is taken or invalid.
        StorageError: A store failed; what it has is still in the trash.
    """
    target = new_name or name
    _check_name(target)
    catalog.database(database)  # it exists
    with catalog.measurements_lock:
        for entry in trash.find(catalog.trash, Kind.MEASUREMENT, database, name):
            stores = _having(catalog, database, entry.hidden_name)
            if stores:
                break
        else:  # its store is in the trash itself, or a crash came before it was hidden
            raise trash.is_missing(Kind.MEASUREMENT, name)
        if _have(stores, target):
            raise trash.is_taken(Kind.MEASUREMENT, target)
        for store in stores:
            store.rename_measurement(entry.hidden_name, target)
        catalog.remove_from_trash([entry.id])


def rename(catalog: Catalog, database: str, name: str, new_name: str) -> None:
    """Give a measurement another name.

    Raises:
        DatabaseNotFound: No such database.
        StatementError: It does not exist, or a policy that has it has one of the new name.
        StorageError: A store failed.
    """
    _check_name(new_name)
    with catalog.measurements_lock:
        stores = _having(catalog, database, name)
        if not stores:
            raise StatementError(f"measurement not found: {name}")
        if _have(stores, new_name):
            raise StatementError(f"measurement already exists: {new_name}")
        for store in stores:
            store.rename_measurement(name, new_name)


def purge(catalog: Catalog, before_id: int) -> int:
    """Delete the dropped measurements of smaller ids. Returns how many they were.

    Those of a store that was dropped after them wait: it could be brought back with them. One whose
    store fails is logged, and tried again the next time.
    """
    gone: list[int] = []
    for entry in catalog.trash:
        if entry.kind is Kind.MEASUREMENT and entry.id < before_id and not _waits(catalog, entry):
            try:
                _delete(catalog, entry)
            except (InfluxError, TinyFluxError) as exc:
                _log.warning("measurement not purged name=%s error=%s", entry.name, exc)
            else:
                gone.append(entry.id)
    if gone:
        catalog.remove_from_trash(gone)
    return len(gone)


def _delete(catalog: Catalog, entry: Trashed) -> None:
    if entry.database not in catalog.databases:
        return
    with catalog.measurements_lock:  # one that is being hidden is hidden by then
        stores = _having(catalog, entry.database, entry.hidden_name)
        for store in stores:
            store.drop_measurement(entry.hidden_name)
    for store in stores:
        _flush(store)


def _waits(catalog: Catalog, entry: Trashed) -> bool:
    return any(
        other.kind is not Kind.MEASUREMENT
        and other.database == entry.database
        and other.id > entry.id
        for other in catalog.trash
    )


def _flush(store: ColumnarStorage) -> None:
    """Give up the room that a measurement took."""
    try:
        store.flush()
    except (OSError, TinyFluxError) as exc:  # the next flush does it
        _log.warning("purged, but not deleted yet error=%s", exc)


def _having(catalog: Catalog, database: str, name: str) -> list[ColumnarStorage]:
    return [store for store in catalog.storages(database) if len(store.series(name))]


def _have(stores: Iterable[ColumnarStorage], name: str) -> bool:
    return any(len(store.series(name)) for store in stores)


def _check_name(name: str) -> None:
    if not name or "\0" in name or len(name.encode()) > _MAX_NAME_BYTES:
        raise StatementError("invalid name")
