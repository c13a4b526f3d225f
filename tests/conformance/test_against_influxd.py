"""Random SELECT statements asked of our server and of a live influxd: the answers are the same."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.conformance.cases import Case
from tests.conformance.random_queries import Statements, deletes, lines, overwriting
from tests.conformance.replay import difference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.conformance.replay import Client

STATEMENTS = 60
DATABASE = "conformance_random"


def _write(clients: Sequence[Client], written: Sequence[str]) -> None:
    case = Case("write", (), f"write db={DATABASE} precision=s", "\n".join(written))
    for client in clients:
        assert client.send(case).status == 204


def _query(text: str) -> Case:
    return Case("query", (), f"query db={DATABASE} epoch=s method=POST", text)


def _differences(clients: tuple[Client, Client], statements: Statements) -> list[str]:
    found = []
    for _ in range(STATEMENTS):
        case = _query(statements.select())
        ours, theirs = (client.send(case) for client in clients)
        if told := difference(case, theirs, ours):
            found.append(f"{case.body}\n  -> {told}")
    return found


@pytest.fixture
def clients(client: Client, influxd: Client) -> Iterator[tuple[Client, Client]]:
    """Give our server and influxd with an empty database, dropped afterwards."""
    for server in (client, influxd):
        server.execute(f"DROP DATABASE {DATABASE}")
        server.execute(f"CREATE DATABASE {DATABASE}")
    yield client, influxd
    for server in (client, influxd):
        server.execute(f"DROP DATABASE {DATABASE}")


@pytest.mark.e2e
@pytest.mark.influxd
@pytest.mark.parametrize("seed", range(4))
def test_random_select_is_answered_as_influxd_does(
    seed: int, clients: tuple[Client, Client]
) -> None:
    rng = random.Random(seed)
    statements, written = Statements(rng), lines(rng)
    _write(clients, written)
    found = _differences(clients, statements)
    _write(clients, overwriting(rng, written))
    found += _differences(clients, statements)
    for text in deletes(rng):
        for server in clients:
            assert "error" not in server.send(_query(text)).body
    found += _differences(clients, statements)
    assert not found, f"{len(found)} of {3 * STATEMENTS} differ\n" + "\n".join(found[:20])
