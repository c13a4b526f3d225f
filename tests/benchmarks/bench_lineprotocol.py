"""The parser alone, in CPU time: `python -m tests.benchmarks.bench_lineprotocol`.

Each load is read in bulk and line by line by the exact reader, in turn; look at the ratio, the
machine is in the rest.
"""

from __future__ import annotations

import sys
import time
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from gateway.lineprotocol import Parser
from gateway.lineprotocol.line import read_line, split_lines
from tests.benchmarks.data import bodies, telegraf, tsbs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROUNDS = 9


def floats(lines: Sequence[str]) -> list[str]:
    """Return TSBS lines with 16 digits in each value."""
    return [line.replace("i,", ".0123456789012345,").replace("i ", ".5 ") for line in lines]


def best(run: Callable[[bytes], object], requests: Sequence[bytes], rounds: int = ROUNDS) -> float:
    """Return the CPU seconds of the fastest round."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        for body in requests:
            run(body)
        seconds.append(time.process_time() - start)
    return min(seconds)  # the first round fills the caches


def exactly(body: bytes) -> None:
    """Read a body as if no line were like another."""
    for line in split_lines(body):
        read_line(line)


def main() -> None:
    """Print the table."""
    loads = {
        "tsbs": list(islice(tsbs(100, 1), 20_000)),
        "telegraf": list(islice(telegraf(20, 1), 20_000)),
    }
    loads["tsbs, floats"] = floats(loads["tsbs"])
    out = sys.stdout.write
    out(f"{'load':14} {'lines/body':>10} {'k lines/s':>10} {'us/body':>8} {'x exact':>8}\n")
    for name, lines in loads.items():
        slow = best(exactly, bodies(lines[:1000], 1000), 3) / 1000
        for size in (5000, 1000, 100, 16, 1):
            requests = bodies(lines, size)[:500]
            n_lines = min(len(lines), 500 * size)
            fast = best(partial(Parser().parse, now_ns=0), requests)
            out(
                f"{name:14} {size:10} {n_lines / fast / 1e3:10.0f} "
                f"{fast / len(requests) * 1e6:8.0f} {slow * n_lines / fast:8.1f}\n"
            )
    new = bodies(list(islice(tsbs(30_000, 0.01), 30_000)), 5000)
    seconds = best(partial(Parser().parse, now_ns=0), new, 1)
    out(f"{'new series':14} {5000:10} {30_000 / seconds / 1e3:10.0f}\n")


if __name__ == "__main__":
    main()
