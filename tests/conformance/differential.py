"""Ask our server and a real influxd the same random statements, many of them.

    python -m tests.conformance.differential [--count 100000] [--seed 1] [--show 20]

Each round has its own data and its own statements, made from the seed and the number of the round:
`--seed 1 --round 17` asks what a difference in round 17 was about again. influxd is started anew
when a statement ends it. Exit code 1: something differed, and it is printed.
"""

from __future__ import annotations

import http.client
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tests.conformance.cases import Case
from tests.conformance.further_queries import FurtherStatements, other_lines
from tests.conformance.random_queries import deletes, lines, overwriting
from tests.conformance.replay import Client, difference
from tests.gateway_process import running_gateway
from tests.oracle import running_influxd

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DATABASE = "differential"
STATEMENTS = 70  # after each of three changes of the data
EVERY_S = 20.0


class Differential:
    """Two servers that are told and asked the same."""

    def __init__(self, ours: Client, theirs: Client) -> None:
        self._clients = ours, theirs
        self.n_asked = 0

    def round(self, rng: random.Random) -> Iterator[str]:
        """Yield what differs on data of its own."""
        for client in self._clients:
            client.execute(f"DROP DATABASE {DATABASE}")
            client.execute(f"CREATE DATABASE {DATABASE}")
        written = lines(rng)
        self._write([*written, *other_lines(rng)])
        yield from self._differences(FurtherStatements(rng))
        self._write(overwriting(rng, written))
        yield from self._differences(FurtherStatements(rng))
        for text in deletes(rng):
            for client in self._clients:
                client.send(query(text))
        yield from self._differences(FurtherStatements(rng, has_deletes=True))

    def _write(self, written: Sequence[str]) -> None:
        if written:
            case = Case("write", (), f"write db={DATABASE} precision=s", "\n".join(written))
            for client in self._clients:
                assert client.send(case).status == 204

    def _differences(self, statements: FurtherStatements) -> Iterator[str]:
        for _ in range(STATEMENTS):
            case = query(statements.any())
            ours, theirs = (client.send(case) for client in self._clients)
            self.n_asked += 1
            if theirs.status == 200 and "MarshalJSON" in theirs.body:
                continue  # it cannot print NaN; we print null
            if told := difference(case, theirs, ours):
                yield f"{case.body}\n    {told}"


def query(text: str) -> Case:
    """Return a case that asks a statement."""
    return Case("query", (), f"query db={DATABASE} epoch=s method=POST", text)


@click.command()
@click.option("--count", default=100_000, help="Statements to ask, about.")
@click.option("--seed", default=1, help="Of everything random.")
@click.option("--round", "only", default=-1, help="Ask this round only.")
@click.option("--show", default=20, help="Differences to print.")
def main(count: int, seed: int, only: int, show: int) -> None:
    """Ask both servers COUNT random statements and print what differs."""
    n_asked, n_different, number, told_at = 0, 0, max(only, 0), time.monotonic()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="differential-")))
        url, _ = stack.enter_context(running_gateway(directory))
        ours = stack.enter_context(Client(url))
        while n_asked < count:
            with running_influxd() as (url, _), Client(url) as theirs:
                both = Differential(ours, theirs)
                try:
                    while n_asked + both.n_asked < count:
                        for told in both.round(random.Random(f"{seed} {number}")):
                            n_different += 1
                            if n_different <= show:
                                click.echo(f"round {number}: {told}")
                        if only >= 0:
                            count = 0
                        number += 1
                        if time.monotonic() - told_at > EVERY_S:
                            told_at = time.monotonic()
                            asked = n_asked + both.n_asked
                            click.echo(f"asked {asked}, {n_different} differ", err=True)
                except (ConnectionError, http.client.HTTPException) as exc:
                    click.echo(f"round {number}: a server broke off: {exc!r}")
                    number += 1
                n_asked += both.n_asked
    click.echo(f"asked {n_asked} statements in {number} rounds: {n_different} differ")
    sys.exit(1 if n_different else 0)


if __name__ == "__main__":
    main()
