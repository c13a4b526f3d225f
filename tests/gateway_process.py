"""Our server as a process of its own, for tests and benchmarks that speak HTTP to it."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
ADDRESS = re.compile(r"https?://[\w.:\[\]-]+")
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


# As where no compiler was: the compiled module cannot be imported.
WITHOUT_CORE = (
    "import sys; sys.modules['gateway.lineprotocol._native'] = None; "
    "from gateway.cli import main; main()"
)


@contextmanager
def running_gateway(directory: Path, *flags: str, core: bool = True) -> Iterator[tuple[str, int]]:
    """Run our server on a free port and give its URL and process id; end it afterwards.

    Args:
        directory: Its data and its log lie here.
        flags: Further arguments of `serve`.
        core: With the compiled reader of line protocol, if it is there.

    Raises:
        RuntimeError: It printed no address within 30 s; the text is the end of its log.
    """
    log = directory / "server.log"
    program = ["-m", "gateway"] if core else ["-c", WITHOUT_CORE]
    command = [sys.executable, *program, "serve", "--data", str(directory / "data")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", "0", *flags], cwd=ROOT, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        yield _address(process, log), process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        if found := ADDRESS.search(log.read_text(errors="replace")):
            return found.group()
        time.sleep(0.02)
    raise RuntimeError(f"the server did not start: {log.read_text(errors='replace')[-4000:]}")
