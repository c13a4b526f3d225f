"""What influxd answered to recorded writes, asked of the parser alone: no server, no store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest

from gateway.lineprotocol import Parsed, parse
from tests.conformance.cases import Answer, Case, read_cases

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet

DIRECTORY = Path(__file__).parents[2] / "conformance" / "lineprotocol"

Series: TypeAlias = dict[str, object]


def _params() -> list[ParameterSet]:
    """Return each write with the query behind it that shows what it stored, if there is one."""
    params = []
    for path in sorted(DIRECTORY.glob("*.case")):
        cases = read_cases(path).cases
        for case, after in zip(cases, [*cases[1:], None], strict=True):
            if case.kind == "write":
                query = after if after is not None and after.kind == "query" else None
                params.append(pytest.param(case, query, id=f"{path.stem}: {case.title}"))
    return params


def _parsed(case: Case) -> Parsed:
    body = case.body.encode("utf-8", "surrogateescape")
    return parse(body, precision=case.params.get("precision", "ns"), now_ns=0)


def _answer(parsed: Parsed) -> Answer:
    """Return what /write says, as far as the parser decides it."""
    if parsed.rejected:
        dropped = sum(rejection.points for rejection in parsed.rejected)
        error = f"partial write: {parsed.rejected[0].reason} dropped={dropped}"
    elif parsed.errors:
        error = "\n".join(map(str, parsed.errors))
        if len(parsed.batch):
            error = f"partial write: {error} dropped=0"
    else:
        return Answer(204, "")
    return Answer(400, error)


def _series(parsed: Parsed) -> list[Series]:
    """Return the points as SELECT * GROUP BY * shows them."""
    merged: dict[tuple[str, str], dict[int, dict[str, object]]] = {}
    for measurement, tags, time, fields in parsed.batch.rows():
        times = merged.setdefault((measurement, json.dumps(dict(tags))), {})
        times.setdefault(time, {}).update(fields)
    found = []
    for (measurement, tag_text), times in sorted(merged.items()):
        columns = sorted({name for fields in times.values() for name in fields})
        series: Series = {"name": measurement, "columns": ["time", *columns]}
        if tag_text != "{}":
            series["tags"] = json.loads(tag_text)
        series["values"] = [
            [time, *(fields.get(name) for name in columns)]
            for time, fields in sorted(times.items())
        ]
        found.append(series)
    return found


@pytest.mark.parametrize(("case", "query"), _params())
def test_parser_answers_a_write_as_recorded(case: Case, query: Case | None) -> None:
    parsed = _parsed(case)
    assert case.expected is not None
    status, body = case.expected.status, case.expected.body
    assert _answer(parsed) == Answer(status, json.loads(body)["error"] if body else "")
    if query is not None and query.expected is not None:
        result = json.loads(query.expected.body)["results"][0]
        assert _series(parsed) == result.get("series", [])
