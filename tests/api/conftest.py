"""Databases for the API tests, one of each storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tinyflux import CSVStorage, MemoryStorage, ParquetStorage, TinyFlux

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["memory", "csv", "csv-scanned", "parquet"])
def db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TinyFlux]:
    """An empty database of every storage."""
    if request.param == "memory":
        opened = TinyFlux(storage=MemoryStorage)
    elif request.param == "parquet":
        opened = TinyFlux(storage=ParquetStorage)
    else:
        # A dialect of its own cannot be mirrored, so every question scans the file.
        dialect: dict[str, Any] = {"lineterminator": "\n"} if request.param == "csv-scanned" else {}
        opened = TinyFlux(tmp_path / "db.csv", storage=CSVStorage, flush_on_insert=False, **dialect)
    with opened:
        yield opened


@pytest.fixture(params=["memory", "csv", "csv-scanned"])
def ordered_db(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TinyFlux]:
    """An empty database of every storage that keeps the order of insertion."""
    if request.param == "memory":
        opened = TinyFlux(storage=MemoryStorage)
    else:
        dialect: dict[str, Any] = {"lineterminator": "\n"} if request.param == "csv-scanned" else {}
        opened = TinyFlux(tmp_path / "db.csv", flush_on_insert=False, **dialect)
    with opened:
        yield opened
