"""Random SELECT statements asked of our server and of a live influxd: the answers are the same."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.conformance.cases import Case
from tests.conformance.random_queries import Statements, lines
from tests.conformance.replay import difference

if TYPE_CHECKING:
    from tests.conformance.replay import Client

STATEMENTS_PER_SEED = 150
DATABASE = "conformance_random"


@pytest.mark.e2e
@pytest.mark.influxd
@pytest.mark.parametrize("seed", range(4))
def test_random_select_is_answered_as_influxd_does(
    seed: int, client: Client, influxd: Client
) -> None:
    rng = random.Random(seed)
    body = "\n".join(lines(rng))
    write = Case("write", (), f"write db={DATABASE} precision=s", body)
    for server in (client, influxd):
        server.execute(f"DROP DATABASE {DATABASE}")
        server.execute(f"CREATE DATABASE {DATABASE}")
        assert server.send(write).status == 204
    statements = Statements(rng)
    found = []
    for _ in range(STATEMENTS_PER_SEED):
        case = Case("random", (), f"query db={DATABASE} epoch=s", statements.select())
        if told := difference(case, influxd.send(case), client.send(case)):
            found.append(f"{case.body}\n  -> {told}")
    client.execute(f"DROP DATABASE {DATABASE}")
    assert not found, f"{len(found)} of {STATEMENTS_PER_SEED} differ\n" + "\n".join(found[:20])
