"""Starts our server again and again: `python -m tests.crash.server <data> [<flag> ...]`.

For each line on stdin a fresh process is forked that runs `serve` with these arguments, so a start
costs no import, and neither does the first flush: it would be killed before it begins. On stdout:
`pid <n>`, what the server prints (its address), and `dead <status>` when it is gone.
"""

from __future__ import annotations

import os
import sys

import pyarrow.parquet  # noqa: F401  # what a flush needs

from gateway.cli import main as gateway


def main() -> None:
    for _ in sys.stdin:
        pid = os.fork()
        if not pid:
            gateway(["serve", "--port", "0", "--data", *sys.argv[1:]])
        os.write(1, b"pid %d\n" % pid)
        _, status = os.waitpid(pid, 0)
        os.write(1, b"dead %d\n" % os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
