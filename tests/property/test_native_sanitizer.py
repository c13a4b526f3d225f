"""The compiled reader under AddressSanitizer and UndefinedBehaviorSanitizer: the same tests again.

The sanitizer's library has to be in the process before Python is, so they run in another one.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).with_name("test_lineprotocol.py")
SANITIZE = "-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all"
PATIENCE_S = 1200


def _library() -> str:
    """Return the path of the sanitizer's library."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    command = [compiler, "-print-file-name=libasan.so"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():  # gcc gives the name back when it has no such file
        pytest.skip("gcc has no libasan")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_compiled_reader_reads_within_its_memory(seed: int) -> None:
    environment = {
        **os.environ,
        "LD_PRELOAD": _library(),
        "ASAN_OPTIONS": "detect_leaks=0",  # the interpreter's own are many
        "NATIVE_CFLAGS": SANITIZE,
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(TESTS)]
    done = subprocess.run(
        [*command, f"--hypothesis-seed={seed}", "-k", "compiled or any_bytes"],
        env=environment,
        cwd=TESTS.parents[2],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
