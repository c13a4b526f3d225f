"""The server keeps to its memory budget, whatever it holds: resident memory, told by the kernel."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks.memory import Size, measure

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")

# What pyarrow takes when it is imported, at the first flush or read: it is no part of the start.
PYARROW_MB = 45.0
MOST_FILES = 64


def test_a_million_values_pass_through_a_small_budget(tmp_path: Path) -> None:
    phases = list(measure(tmp_path, Size(1_000_000, texts=0), 160))
    start_mb = next(peak.rss_mb for name, peak, _ in phases if name == "start")
    for name, peak, note in phases:
        assert note == "", (name, note)
        # Frames of all rows, or all of them in the answer at once, take 100 MB more than that.
        assert peak.rss_mb < start_mb + PYARROW_MB + 60, name
        assert peak.files < MOST_FILES, name


@pytest.mark.slow
def test_fifty_million_values_pass_through_256_megabytes(tmp_path: Path) -> None:
    for name, peak, note in measure(tmp_path, Size(50_000_000), 256):
        assert note == "", (name, note)
        assert peak.rss_mb < (150 if name == "start" else 256), name
        assert peak.files < MOST_FILES, name
