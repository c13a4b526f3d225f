"""A process that writes is killed with SIGKILL; every batch it acknowledged is there, whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from tests.crash.writer import POINTS_A_BATCH, batches
from tinyflux.columnar.parquet import ParquetStorage

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kills", [20, pytest.param(300, marks=pytest.mark.slow)])
def test_what_a_killed_process_acknowledged_is_there(tmp_path: Path, kills: int) -> None:
    kill_again_and_again(tmp_path, kills, most_writes=12)


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_the_same_while_it_flushes_and_compacts(tmp_path: Path, kills: int) -> None:
    kill_again_and_again(tmp_path, kills, "60000", most_writes=400)
    store = ParquetStorage(tmp_path, overwrite=True)
    assert store.stats()["segments"] > 0
    store.close()


def kill_again_and_again(path: Path, kills: int, *arguments: str, most_writes: int) -> None:
    """Kill a writer after some writes, and look at what it left, so often.

    Args:
        path: The store.
        kills: How often.
        arguments: Of the writer, behind its store.
        most_writes: It is killed after at most so many acknowledgements.
    """
    chance = random.Random(kills)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.writer", str(path), *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        acknowledged = 0
        for _ in range(kills):
            process.stdin.write(b"\n")
            process.stdin.flush()
            last = kill_after(process.stdout, chance.randint(0, most_writes))
            acknowledged = last or acknowledged
            store = ParquetStorage(path, overwrite=True)
            found = batches(store)
            store.close()
            assert set(found) >= set(range(1, acknowledged + 1))
            assert set(found.values()) <= {POINTS_A_BATCH}
            # a batch whose acknowledgement did not get out may be there, one at most a kill
            assert max(found, default=0) <= acknowledged + 1
            acknowledged = max(found, default=0)
        process.stdin.close()
        assert process.wait(60) == 0


def kill_after(output: IO[bytes], acknowledgements: int) -> int:
    """Kill the writer after so many acknowledgements; return the last batch it acknowledged, 0 for
    none.
    """
    pid = last = seen = 0
    for line in output:
        word, _, number = line.decode().strip().partition(" ")
        if word == "pid":
            pid = int(number)
        elif word == "ack":
            last = int(number)
            seen += 1
        elif word == "dead":
            break
        if pid and seen >= acknowledgements:
            os.kill(pid, signal.SIGKILL)
            acknowledgements = 1 << 62
    return last
