"""A server in this process: the whole application on a store in memory, and a client on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import orjson
import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.session import Session

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Ask(Protocol):
    """Runs InfluxQL and gives the results."""

    def __call__(self, text: str, db: str = "", **parameters: str) -> list[dict[str, object]]: ...


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Settings(), in_memory=True)) as test_client:
        yield test_client


@pytest.fixture
def db(client: TestClient) -> TestClient:
    """A client of a server that has the database `t`."""
    client.post("/query", data={"q": "CREATE DATABASE t"})
    return client


@pytest.fixture
def ask(client: TestClient) -> Ask:
    def run(text: str, db: str = "", **parameters: str) -> list[dict[str, object]]:
        response = client.post("/query", data={"q": text, "db": db, **parameters})
        assert response.status_code == 200, response.text
        results: list[dict[str, object]] = orjson.loads(response.content)["results"]
        return results

    return run


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    opened = Catalog(tmp_path / "data", Settings())
    yield opened
    opened.close()


@pytest.fixture
def session(catalog: Catalog) -> Session:
    return Session(catalog, Settings(), now_ns=1_700_000_000_000_000_000)
