"""Write the answers of a real InfluxDB into the `.case` files.

`python -m tests.conformance.record [--url URL] [file ...]`, all files when none is named. Without
--url an influxd of its own is started. Where a case differs on purpose only InfluxDB's answer is
rewritten; ours is the author's. Look at the diff: a changed answer is a changed truth.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.conformance.cases import CaseFile, read_cases
from tests.conformance.replay import Client, Replay, difference
from tests.oracle import running_influxd

DIRECTORY = Path(__file__).parent


def case_paths() -> list[Path]:
    """Return every `.case` file, sorted."""
    return sorted(DIRECTORY.rglob("*.case"))


def recorded(file: CaseFile, client: Client) -> CaseFile:
    """Return the file with the server's answers as the recorded ones, the old where they agree."""
    replay = Replay(file, client)
    cases = []
    for n, case in enumerate(file.cases):
        answer = replay.answer(n)
        known = case.recorded is not None and not difference(case, case.recorded, answer)
        cases.append(case if known else replace(case, recorded=answer))
    replay.drop()
    return file.with_cases(cases)


def main() -> None:
    """Record the files named on the command line, or all."""
    parser = argparse.ArgumentParser(description="Write InfluxDB's answers into .case files.")
    parser.add_argument("--url", help="a running InfluxDB; without it an influxd is started")
    parser.add_argument("files", nargs="*", type=Path)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        url = arguments.url or stack.enter_context(running_influxd())[0]
        client = stack.enter_context(Client(url))
        for path in arguments.files or case_paths():
            before = read_cases(path)
            after = recorded(before, client)
            after.write()
            changed = sum(a != b for a, b in zip(before.cases, after.cases, strict=True))
            print(f"{path.name}: {len(after.cases)} cases, {changed} changed")  # noqa: T201


if __name__ == "__main__":
    main()
