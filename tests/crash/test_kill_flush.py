"""A process that writes, flushes and compacts is killed; what it acknowledged is there, whole."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.crash.test_kill import ROOT, kill_after
from tests.crash.writer import POINTS_A_BATCH, batches
from tinyflux.columnar.parquet import ParquetStorage

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.slow)])
def test_what_a_killed_process_acknowledged_is_there(tmp_path: Path, kills: int) -> None:
    chance = random.Random(kills)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.crash.writer", str(tmp_path), "60000"],
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
            acknowledged = kill_after(process.stdout, chance.randint(0, 400)) or acknowledged
            store = ParquetStorage(tmp_path, overwrite=True)
            found = batches(store)
            store.close()
            assert set(found) >= set(range(1, acknowledged + 1))
            assert set(found.values()) <= {POINTS_A_BATCH}
            acknowledged = max(found, default=0)
        process.stdin.close()
        assert process.wait(60) == 0
    store = ParquetStorage(tmp_path, overwrite=True)
    assert store.stats()["segments"] > 0
    store.close()
