"""Raw points read in parts: the same answer as read at once, whatever the size of a part."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from starlette.testclient import TestClient

from gateway import parts, points
from gateway.app import create_app
from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.encoding.json import JsonEncoder
from gateway.encoding.msgpack import MsgpackEncoder
from gateway.executor import run_select, stream_select
from gateway.lineprotocol.parser import parse as parse_lines
from gateway.parts import can_be_read_in_parts
from gateway.query import chunks_of, limited
from gateway.results import Result
from gateway.session import Session
from gateway.statements import results_of
from grammar import ast
from grammar.parser import parse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTS = 7
ROWS = 600


def _bodies() -> Iterator[bytes]:
    rng = random.Random(4)
    for start in range(0, ROWS, 200):
        lines = []
        for n in range(start, start + 200):
            host = rng.randrange(HOSTS) if n % 10 else 0  # host 0 has more than a part
            # Half of the points crowd into a tenth of the time, some come twice, some late.
            time_ns = n if n % 2 else ROWS // 2 + n // 10
            time_ns = rng.randrange(ROWS) if n % 50 == 0 else time_ns
            fields = f"v={n}i" if n % 7 else f"v={n}i,late={n}.5"
            lines.append(f"m,host=h{host},side={'lr'[host % 2]} {fields} {time_ns}")
            if n % 3 == 0:
                lines.append(f"n v={n}i {time_ns}")
        yield "\n".join(lines).encode()


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Points in two segments and in memory."""
    directory: Path = tmp_path_factory.mktemp("parts")
    bodies = list(_bodies())
    for number, body in enumerate(bodies):
        catalog = Catalog(directory, Settings())
        if not number:
            catalog.create_database("d")
        storage = catalog.storage("d")
        storage.append_batch(parse_lines(body, now_ns=0).batch)
        if number < len(bodies) - 1:
            catalog.close()  # which flushes
    yield Session(catalog, Settings(), 0, "d")
    catalog.close()


QUERIES = [
    "SELECT v FROM m",
    "SELECT * FROM m",
    "SELECT v, host FROM m ORDER BY time DESC",
    "SELECT * FROM m GROUP BY *",
    "SELECT v, late FROM m GROUP BY host ORDER BY time DESC",
    "SELECT v FROM m GROUP BY side",
    "SELECT late FROM m GROUP BY side",
    "SELECT v + late AS sum, abs(v) FROM m WHERE host =~ /h[0-3]/ GROUP BY side",
    "SELECT v FROM m WHERE v > 300 AND time >= 100 AND time < 400",
    "SELECT v, late FROM m fill(0)",
    "SELECT v, late FROM m fill(previous)",
    "SELECT late, v + late AS sum, side FROM m GROUP BY host fill(previous)",
    "SELECT late, v FROM m GROUP BY side fill(previous) ORDER BY time DESC",
    "SELECT w, late FROM m, n WHERE time > 10 GROUP BY side fill(previous)",
    "SELECT v FROM m GROUP BY host SLIMIT 3",
    "SELECT v FROM m, n GROUP BY host SLIMIT 2 SOFFSET 1",
    "SELECT late FROM m GROUP BY host, side HAVING late > 300 LIMIT 150 SLIMIT 1 SOFFSET 2",
    "SELECT v FROM m GROUP BY host SOFFSET 5",
    "SELECT v FROM m SLIMIT 1",
    "SELECT v FROM m GROUP BY host ORDER BY time DESC SLIMIT 2",
    "SELECT v FROM m, n GROUP BY host ORDER BY time DESC LIMIT 90 OFFSET 30 SLIMIT 1 SOFFSET 1",
    "SELECT late FROM m WHERE v > 300 GROUP BY host, side ORDER BY time DESC SLIMIT 2 SOFFSET 3",
    "SELECT v FROM m WHERE host != 'h1' GROUP BY host ORDER BY time DESC SOFFSET 4",
    "SELECT v FROM m GROUP BY host ORDER BY time DESC SLIMIT 3 SOFFSET 9",
    "SELECT v FROM m, n",
    "SELECT v FROM /./ GROUP BY host ORDER BY time DESC",
    "SELECT v FROM m LIMIT 300",
    "SELECT v FROM m GROUP BY side LIMIT 105 OFFSET 30",
    "SELECT v FROM m GROUP BY host ORDER BY time DESC LIMIT 90 OFFSET 30",
    "SELECT v FROM m OFFSET 500",
    "SELECT v FROM m WHERE host = 'nobody'",
    "SELECT nothing FROM m",
    "SELECT v FROM nothing",
]


def _select(text: str) -> ast.Select:
    (select,) = parse(text)
    assert isinstance(select, ast.Select)
    return select


def _printed(result: Result) -> Any:
    return json.loads(b"".join(JsonEncoder(1).document([result])))["results"][0]


def _set_part_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(parts, "_PART", parts._Size(0, rows, rows))
    monkeypatch.setattr(parts, "_HELD", parts._Size(0, rows, rows))


@pytest.fixture(params=[20, 150])
def part_rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    rows: int = request.param
    _set_part_rows(monkeypatch, rows)
    monkeypatch.setattr(parts, "MOST_NEEDED", 100)
    monkeypatch.setattr(points, "MOST_NEEDED", 0)
    return rows


@pytest.mark.parametrize("text", QUERIES)
def test_answer_in_parts_is_the_answer_at_once(session: Session, text: str, part_rows: int) -> None:
    select = _select(text)
    assert can_be_read_in_parts(select)
    expected = _printed(Result(0, run_select(select, session)))
    assert _printed(Result(0, stream_select(select, session))) == expected

    rows: list[tuple[str, object, list[object]]] = []
    for chunk in chunks_of(Result(0, stream_select(select, session)), 97):
        for series in _printed(chunk).get("series", []):
            assert len(series["values"]) <= 97
            rows += [(series["name"], series.get("tags"), row) for row in series["values"]]
    assert rows == [
        (series["name"], series.get("tags"), row)
        for series in expected.get("series", [])
        for row in series["values"]
    ]


def test_parts_are_bounded(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    _set_part_rows(monkeypatch, 40)
    for text in QUERIES[:8]:
        lengths = [len(series) for series in stream_select(_select(text), session)]
        assert max(lengths) <= 60
        assert sum(lengths) > 60


@pytest.mark.parametrize(
    "text",
    [
        "SELECT mean(v) FROM m",
        "SELECT difference(v) FROM m",
        "SELECT v FROM m LIMIT 10",
        "SELECT v INTO x FROM m",
        "SELECT v FROM (SELECT v FROM m)",
        "SELECT DISTINCT v FROM m",
    ],
)
def test_rows_that_depend_on_others_are_not_read_in_parts(text: str) -> None:
    assert not can_be_read_in_parts(_select(text))


@pytest.mark.parametrize("where", ["", "WHERE v > 100"])
def test_into_writes_while_it_reads(session: Session, where: str, part_rows: int) -> None:
    def values(text: str) -> list[list[object]]:
        found = run_select(_select(text), session)
        return [row for one in _printed(Result(0, found))["series"] for row in one["values"]]

    expected = values(f"SELECT v, late, side FROM m {where} GROUP BY host")
    name = f"copy{part_rows}{len(where)}"
    assert values(f"SELECT v, late INTO {name} FROM m {where} GROUP BY *") == [[0, len(expected)]]
    assert values(f"SELECT v, late, side FROM {name} GROUP BY host") == expected


# --- over HTTP ------------------------------------------------------------------------------------
@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """A server that finds out after 300 points that a query reads more than it may."""
    _set_part_rows(monkeypatch, 40)
    with TestClient(create_app(Settings(max_select_points=300), in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE d"})
        for body in _bodies():
            assert client.post("/write?db=d", content=body).status_code == 204
        yield client


_TOO_MANY = "max-select-point limit exceeded"


def _asked(client: TestClient, **parameters: str) -> str:
    q = "SELECT v FROM m; SELECT v FROM n LIMIT 1"
    return client.get("/query", params={"db": "d", "epoch": "ns", "q": q, **parameters}).text


def test_error_behind_rows_stands_behind_them(client: TestClient) -> None:
    first, second = json.loads(_asked(client))["results"]
    [series] = first["series"]
    assert 100 < len(series["values"]) < 300
    assert _TOO_MANY in first["error"]
    assert second == {"statement_id": 1, "error": "not executed"}


def test_error_behind_rows_is_a_chunk(client: TestClient) -> None:
    *rows, error, last = map(json.loads, _asked(client, chunked="true").splitlines())
    assert all(chunk["results"][0]["partial"] for chunk in rows)
    assert _TOO_MANY in error["results"][0]["error"]
    assert last["results"] == [{"statement_id": 1, "error": "not executed"}]


def test_error_behind_rows_is_a_table_of_csv(client: TestClient) -> None:
    answer = client.get(
        "/query",
        params={"db": "d", "q": "SELECT v FROM m"},
        headers={"accept": "application/csv"},
    ).text
    rows, _, error = answer.partition("\n\nerror\n")
    assert rows.count("\n") > 100
    assert _TOO_MANY in error


@pytest.mark.parametrize("limit", [0, 100])
def test_messagepack_is_counted_and_then_printed(
    session: Session, limit: int, part_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    del part_rows
    monkeypatch.setattr("gateway.encoding.msgpack._HELD_ROWS", 50)
    for text in QUERIES:
        statements = _select(text), _select("SELECT v FROM n")
        printed = []
        for encoder in (JsonEncoder(1), MsgpackEncoder(1, 2)):
            results = results_of(statements, replace(session, may_stream=True))
            document = encoder.document(limited(results, limit) if limit else results)
            printed.append(b"".join(document))
        of_json, of_msgpack = json.loads(printed[0]), msgpack.unpackb(printed[1])
        for result in of_json["results"]:
            result.setdefault("series", [])
        assert of_msgpack == of_json


def test_error_of_messagepack_stands_alone(client: TestClient) -> None:
    answer = client.get(
        "/query",
        params={"db": "d", "q": "SELECT v FROM m; SELECT v FROM n LIMIT 1"},
        headers={"accept": "application/x-msgpack"},
    )
    first, second = msgpack.unpackb(answer.content)["results"]
    assert set(first) == {"error"}
    assert _TOO_MANY in first["error"]
    assert second == {"error": "not executed"}
