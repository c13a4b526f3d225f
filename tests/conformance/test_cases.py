"""Every recorded case against our server; and the recorded answers against a live influxd.

`INFLUX_URL=http://host:8086 pytest tests/conformance` asks another server. It refuses one that
already holds a database of the name a file would drop.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.conformance.cases import Case, CaseFile, read_cases
from tests.conformance.pending import PENDING
from tests.conformance.record import DIRECTORY, case_paths
from tests.conformance.replay import Replay, difference

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _pytest.mark import ParameterSet

    from tests.conformance.replay import Client

FILES = [read_cases(path) for path in case_paths()]


def _name(path: Path) -> str:
    return str(path.relative_to(DIRECTORY).with_suffix(""))


def _param(file: CaseFile, n: int) -> ParameterSet:
    name = f"{_name(file.path)}::{file.cases[n].title}"
    marks = [pytest.mark.xfail(reason=PENDING[name], strict=True)] if name in PENDING else []
    return pytest.param(file, n, id=name, marks=marks)


@pytest.fixture(scope="module")
def replays(client: Client) -> Iterator[dict[Path, Replay]]:
    """Give the files begun so far, and drop their databases at the end."""
    replays: dict[Path, Replay] = {}
    yield replays
    for replay in replays.values():
        replay.drop()


def _begin(file: CaseFile, client: Client) -> Replay:
    if "INFLUX_URL" in os.environ:
        databases = json.dumps(json.loads(client.execute("SHOW DATABASES").body))
        for name in file.databases:
            assert f'["{name}"]' not in databases, f"INFLUX_URL already holds a database {name}"
    return Replay(file, client)


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("file", "n"), [_param(file, n) for file in FILES for n in range(len(file.cases))]
)
def test_server_answers_as_recorded(
    file: CaseFile, n: int, client: Client, replays: dict[Path, Replay]
) -> None:
    if file.path not in replays:
        for path in list(replays):
            replays.pop(path).drop()
        replays[file.path] = _begin(file, client)
    case = file.cases[n]
    assert case.expected is not None, "not recorded: python -m tests.conformance.record"
    found = difference(case, case.expected, replays[file.path].answer(n))
    assert not found, _explain(case, found)


def _explain(case: Case, found: str) -> str:
    return f"{case.command}\n{case.body}\n-> {found}"


@pytest.mark.influxd
@pytest.mark.parametrize("file", [pytest.param(file, id=_name(file.path)) for file in FILES])
def test_influxd_still_answers_as_recorded(file: CaseFile, influxd: Client) -> None:
    replay = Replay(file, influxd)
    for n, case in enumerate(file.cases):
        assert case.recorded is not None, f"{case.title}: not recorded"
        found = difference(case, case.recorded, replay.answer(n))
        assert not found, f"{case.title}: {_explain(case, found)}"
    replay.drop()
