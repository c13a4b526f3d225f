"""What was written is answered the same after a stop and a start, from segments and the log."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.conformance.cases import Case
from tests.conformance.random_queries import Statements, deletes, lines, overwriting
from tests.conformance.replay import Client, difference
from tests.gateway_process import running_gateway

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

STATEMENTS = 40
DATABASE = "conformance_restart"
# The first and the last nanosecond a point may have, and both sides of 1970.
EDGES = (-9223372036854775806, -1, 0, 1, 9223372036854775806)


def _write(clients: Iterable[Client], precision: str, written: Sequence[str]) -> None:
    command = f"write db={DATABASE} precision={precision}"
    for client in clients:
        assert client.send(Case("write", (), command, "\n".join(written))).status == 204


def _query(text: str) -> Case:
    return Case("query", (), f"query db={DATABASE} epoch=ns method=POST", text)


def _check(ours: Client, theirs: Client, texts: Iterable[str]) -> None:
    for text in texts:
        case = _query(text)
        assert not difference(case, theirs.send(case), ours.send(case)), text


@pytest.fixture
def oracle(influxd: Client) -> Iterator[Client]:
    """Give influxd with an empty database, dropped afterwards."""
    influxd.execute(f"CREATE DATABASE {DATABASE}")
    yield influxd
    influxd.execute(f"DROP DATABASE {DATABASE}")


@pytest.mark.e2e
@pytest.mark.influxd
@pytest.mark.parametrize(
    "flags", [pytest.param((), id="log"), pytest.param(("--memtable-bytes", "1"), id="segments")]
)
def test_answers_are_the_same_after_every_restart(
    flags: tuple[str, ...], oracle: Client, tmp_path: Path
) -> None:
    rng = random.Random(7)
    written, statements = lines(rng), Statements(rng)
    with running_gateway(tmp_path, *flags) as (url, _), Client(url) as client:
        client.execute(f"CREATE DATABASE {DATABASE}")
        _write((client, oracle), "s", written)
        _write((client, oracle), "ns", [f"edge v={n}i {time}" for n, time in enumerate(EDGES)])
    with running_gateway(tmp_path, *flags) as (url, _), Client(url) as client:
        _check(client, oracle, ["SELECT * FROM edge", "SELECT last(v) FROM edge"])
        _check(client, oracle, (statements.select() for _ in range(STATEMENTS)))
        _write((client, oracle), "s", overwriting(rng, written))
    with running_gateway(tmp_path, *flags) as (url, _), Client(url) as client:
        _check(client, oracle, (statements.select() for _ in range(STATEMENTS)))
        for text in deletes(rng):
            for server in (client, oracle):
                assert "error" not in server.send(_query(text)).body
    with running_gateway(tmp_path, *flags) as (url, _), Client(url) as client:
        _check(client, oracle, ["SHOW SERIES", "SHOW FIELD KEYS", "SELECT * FROM edge"])
        _check(client, oracle, (statements.select() for _ in range(STATEMENTS)))
        client.execute(f"DROP DATABASE {DATABASE}")
        client.execute(f"CREATE DATABASE {DATABASE}")
        assert client.send(_query("SHOW MEASUREMENTS")).body == '{"results":[{"statement_id":0}]}'
