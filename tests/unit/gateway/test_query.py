"""GET|POST /query: where parameters come from, and in which forms answers go."""

from __future__ import annotations

import gzip
import json
import time
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pytest
from starlette.testclient import TestClient

from gateway.app import create_app
from gateway.config import Settings
from gateway.query import chunks_of, limited
from gateway.results import Result
from tests.unit.gateway.tables import failed, many_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = [[1000, 1]]


@pytest.fixture
def cpu(db: TestClient) -> TestClient:
    """A server with one point: cpu,host=a v=1 at 1000 ns."""
    db.post("/write?db=t", content=b"cpu,host=a v=1 1000\n")
    return db


def values(response_text: str) -> object:
    """Return the rows of the first series, None when there is none."""
    [series, *_] = orjson.loads(response_text)["results"][0].get("series") or [{}]
    return series.get("values")


@pytest.mark.trap(7)
def test_parameters_may_all_be_in_the_url(cpu: TestClient) -> None:
    url = "/query?db=t&epoch=ns&q=SELECT+v+FROM+cpu"
    assert values(cpu.get(url).text) == ROW
    assert values(cpu.post(url).text) == ROW


@pytest.mark.trap(7)
def test_parameters_may_be_split_between_url_and_form(cpu: TestClient) -> None:
    response = cpu.post("/query?db=t&epoch=ns", data={"q": "SELECT v FROM cpu"})
    assert values(response.text) == ROW


@pytest.mark.trap(7)
def test_body_wins_over_the_url(cpu: TestClient) -> None:
    response = cpu.post("/query?db=nodb&q=SHOW+USERS", data={"db": "t", "q": "SELECT v FROM cpu"})
    assert "series" in response.json()["results"][0]


@pytest.mark.trap(7)
def test_query_may_be_an_uploaded_file(cpu: TestClient) -> None:
    response = cpu.post("/query?db=t&epoch=ns", files={"q": ("q.txt", b"SELECT v FROM cpu\n")})
    assert values(response.text) == ROW


def test_json_body_is_not_read(cpu: TestClient) -> None:
    response = cpu.post("/query?q=SHOW+DATABASES", json={"q": "nonsense"})
    assert values(response.text) == [["t"]]


def test_multipart_type_without_a_boundary_is_ignored(cpu: TestClient) -> None:
    headers = {"content-type": "multipart/form-data"}
    response = cpu.post("/query?q=SHOW+DATABASES", content=b"junk", headers=headers)
    assert values(response.text) == [["t"]]


def test_coding_of_an_empty_query_body_is_ignored(cpu: TestClient) -> None:
    headers = {"content-encoding": "gzip"}
    assert cpu.post("/query?q=SHOW+DATABASES", headers=headers).status_code == 200
    assert cpu.get("/query?q=SHOW+DATABASES", headers=headers).status_code == 200


def test_credentials_are_ignored_while_there_are_no_users(cpu: TestClient) -> None:
    for headers in (
        {"authorization": "Basic Og=="},
        {"authorization": "Token "},
        {"authorization": "nonsense"},
    ):
        assert cpu.get("/query?q=SHOW+USERS&u=root&p=root", headers=headers).status_code == 200


@pytest.mark.parametrize("url", ["/query", "/query?q=", "/query?q=+%0A", "/query?db=t"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_missing_query_is_refused(client: TestClient, method: str, url: str) -> None:
    response = client.request(method, url)
    assert response.status_code == 400
    assert response.text == '{"error":"missing required parameter \\"q\\""}\n'


def test_only_separators_answer_an_empty_object(client: TestClient) -> None:
    assert client.get("/query?q=%3B").text == "{}\n"


@pytest.mark.trap(13)
def test_parse_error_refuses_the_whole_request(cpu: TestClient) -> None:
    response = cpu.post("/query", data={"q": "DROP DATABASE t; FOO"})
    assert response.status_code == 400
    assert response.json()["error"].startswith("error parsing query: found FOO, expected SELECT")
    assert response.headers["x-influxdb-error"] == response.json()["error"]
    assert values(cpu.get("/query?q=SHOW+DATABASES").text) == [["t"]]


def test_statement_after_a_failed_one_is_not_executed(cpu: TestClient) -> None:
    text = "SHOW DATABASES; SELECT v FROM nodb..cpu; DROP DATABASE t"
    results = cpu.post("/query?db=t", data={"q": text}).json()["results"]
    assert results[1:] == [
        {"statement_id": 1, "error": "database not found: nodb"},
        {"statement_id": 2, "error": "not executed"},
    ]
    assert values(cpu.get("/query?q=SHOW+DATABASES").text) == [["t"]]


@pytest.mark.trap(8)
def test_get_of_a_writing_statement_works_and_warns(client: TestClient) -> None:
    response = client.get("/query?q=CREATE+DATABASE+%22a+b%22")
    assert response.json()["results"][0]["messages"] == [
        {
            "level": "warning",
            "text": "deprecated use of 'CREATE DATABASE \"a b\"' in a read only context, "
            "please use a POST request instead",
        }
    ]
    response = client.post("/query", data={"q": 'CREATE DATABASE "a b"'})
    assert response.json() == {"results": [{"statement_id": 0}]}


def test_get_of_select_into_names_everything_in_full(cpu: TestClient) -> None:
    response = cpu.get("/query?db=t&q=SELECT+v+INTO+copy+FROM+cpu")
    assert response.json()["results"][0]["messages"][0]["text"].startswith(
        "deprecated use of 'SELECT v INTO t.autogen.copy FROM t.autogen.cpu' in"
    )


@pytest.mark.parametrize("parameters", ["", "null", "{}", '{"unused":1}'])
def test_bound_parameters_may_be_empty(cpu: TestClient, parameters: str) -> None:
    response = cpu.get(
        "/query", params={"db": "t", "epoch": "ns", "q": "SELECT v FROM cpu", "params": parameters}
    )
    assert values(response.text) == ROW


def test_bound_parameters_stand_for_their_values(cpu: TestClient) -> None:
    response = cpu.get(
        "/query",
        params={
            "db": "t",
            "epoch": "ns",
            "q": "SELECT v FROM cpu WHERE host = $h AND v > $v",
            "params": '{"h":"a","v":0.5}',
        },
    )
    assert values(response.text) == ROW


@pytest.mark.parametrize("parameters", ["{", "[]", "1", "nonsense"])
def test_unreadable_bound_parameters_are_refused(cpu: TestClient, parameters: str) -> None:
    response = cpu.get("/query", params={"q": "SHOW USERS", "params": parameters})
    assert response.status_code == 400
    assert response.json()["error"].startswith("error parsing query parameters: ")


def test_parameters_cut_short_are_refused_in_influxds_words(cpu: TestClient) -> None:
    response = cpu.get("/query", params={"q": "SHOW USERS", "params": "{"})
    assert response.json() == {"error": "error parsing query parameters: unexpected EOF"}


def test_pretty_is_read_from_the_url_only(client: TestClient) -> None:
    pretty = '{\n    "results": [\n        {\n            "statement_id": 0\n        }\n    ]\n}\n'
    assert client.get("/query?pretty=true&q=SHOW+SUBSCRIPTIONS").text == pretty
    response = client.post("/query", data={"q": "SHOW SUBSCRIPTIONS", "pretty": "true"})
    assert response.text == '{"results":[{"statement_id":0}]}\n'


def test_async_answers_204_and_runs_afterwards(client: TestClient) -> None:
    response = client.post("/query", data={"q": "CREATE DATABASE later", "async": "true"})
    assert (response.status_code, response.content) == (204, b"")
    deadline = time.monotonic() + 10
    while values(client.get("/query?q=SHOW+DATABASES").text) != [["later"]]:
        assert time.monotonic() < deadline


def test_retention_policy_of_the_request_is_the_default(cpu: TestClient) -> None:
    cpu.post("/query", data={"q": "CREATE RETENTION POLICY p ON t DURATION INF REPLICATION 1"})
    cpu.post("/write?db=t&rp=p", content=b"cpu v=9 9\n")
    response = cpu.get("/query?db=t&rp=p&epoch=ns&q=SELECT+v+FROM+cpu")
    assert values(response.text) == [[9, 9]]


# --- formats ------------------------------------------------------------------------------------
@pytest.mark.trap(13)
@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html", "application/json"),
        ("text/csv", "text/csv"),
        ("application/csv", "application/csv"),
        ("application/x-msgpack", "application/x-msgpack"),
        ("text/html, application/x-msgpack;q=0.9, */*", "application/x-msgpack"),
        ("application/json, text/csv", "application/json"),
    ],
)
def test_accept_chooses_the_format(cpu: TestClient, accept: str, media_type: str) -> None:
    response = cpu.get("/query?q=SHOW+DATABASES", headers={"accept": accept})
    assert response.headers["content-type"] == media_type
    assert b"databases" in response.content


@pytest.mark.parametrize(
    ("accept", "start"), [("text/csv", b"error\n"), ("application/x-msgpack", b"\x81\xa5error")]
)
def test_parse_error_comes_in_the_format_asked_for(
    client: TestClient, accept: str, start: bytes
) -> None:
    response = client.get("/query?q=FOO", headers={"accept": accept})
    assert response.status_code == 400
    assert response.headers["content-type"] == accept
    assert response.content.startswith(start)


@pytest.mark.trap(16)
def test_chunks_are_documents_of_one_series_and_a_bounded_number_of_rows(db: TestClient) -> None:
    lines = "".join(f"m,host={host} v={i} {i}\n" for host in "ab" for i in range(3))
    db.post("/write?db=t", content=lines.encode())
    response = db.get(
        "/query?db=t&epoch=ns&chunked=true&chunk_size=2"
        "&q=SELECT+v+FROM+m+GROUP+BY+host;SHOW+DATABASES"
    )
    documents = [json.loads(line)["results"] for line in response.text.splitlines()]
    assert [
        (
            result["statement_id"],
            result["series"][0].get("tags"),
            result["series"][0]["values"],
            result["series"][0].get("partial", False),
            result.get("partial", False),
        )
        for [result] in documents
    ] == [
        (0, {"host": "a"}, [[0, 0], [1, 1]], True, True),
        (0, {"host": "a"}, [[2, 2]], False, True),
        (0, {"host": "b"}, [[0, 0], [1, 1]], True, True),
        (0, {"host": "b"}, [[2, 2]], False, False),
        (1, None, [["t"]], False, False),
    ]


def test_chunk_of_a_failed_statement_is_its_error() -> None:
    result = failed(2, "x")
    assert list(chunks_of(result, 1)) == [result]
    assert len(list(chunks_of(Result(0), 1))) == 1


@pytest.mark.parametrize("size", ["0", "-1", "x", "", "1e3"])
def test_chunk_size_that_is_no_size_means_the_default(cpu: TestClient, size: str) -> None:
    response = cpu.get(f"/query?db=t&chunked=true&chunk_size={size}&q=SELECT+v+FROM+cpu")
    assert response.text.count("\n") == 1


def test_row_limit_cuts_the_answer_and_marks_the_series() -> None:
    results = limited([Result(0, [many_rows(3), many_rows(5), many_rows(1)]), Result(1)], 5)
    first, second = list(results)
    assert [(len(series), series.partial) for series in first.series] == [(3, False), (2, True)]
    assert list(second.series) == []


@pytest.fixture(scope="module")
def many() -> Iterator[TestClient]:
    """A server with 100,000 points."""
    with TestClient(create_app(Settings(), in_memory=True)) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        lines = "".join(f"m v={i}.5 {i}\n" for i in range(100_000))
        assert client.post("/write?db=t", content=lines.encode()).status_code == 204
        yield client


def test_long_answer_is_streamed_whole(many: TestClient) -> None:
    headers = {"accept-encoding": "identity"}
    response = many.get("/query?db=t&epoch=ns&q=SELECT+v+FROM+m", headers=headers)
    assert values(response.text) == [[i, i + 0.5] for i in range(100_000)]
    assert "content-length" not in response.headers


@pytest.mark.parametrize("n_rows", [200, 100_000], ids=["at once", "streamed"])
def test_answer_is_gzipped_for_who_takes_it(many: TestClient, n_rows: int) -> None:
    url = f"/query?db=t&epoch=ns&q=SELECT+v+FROM+m+LIMIT+{n_rows}"
    with many.stream("GET", url, headers={"accept-encoding": "gzip"}) as response:
        packed = b"".join(response.iter_raw())
    assert response.headers["content-encoding"] == "gzip"
    assert values(gzip.decompress(packed).decode()) == [[i, i + 0.5] for i in range(n_rows)]
    plain = many.get(url, headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers


def test_small_answer_is_not_gzipped(cpu: TestClient) -> None:
    response = cpu.get("/query?q=SHOW+DATABASES", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in response.headers


# --- limits -------------------------------------------------------------------------------------
def limited_client(**limits: float) -> TestClient:
    settings = Settings(**limits)  # type: ignore[arg-type]  # the limits used here are numbers
    return TestClient(create_app(settings, in_memory=True))


@pytest.fixture
def hasty() -> Iterator[TestClient]:
    with limited_client(query_timeout_s=1e-9) as client:
        yield client


def test_query_that_takes_too_long_fails_with_influxds_words(hasty: TestClient) -> None:
    [result] = hasty.get("/query?q=SHOW+DATABASES").json()["results"]
    assert result["error"].startswith("query-timeout limit exceeded: ask for ")


def test_form_over_the_body_limit_answers_413() -> None:
    with limited_client(max_body_bytes=100) as client:
        response = client.post("/query", data={"q": "SHOW DATABASES" + " " * 100})
        assert response.status_code == 413


def test_row_limit_of_the_settings_holds_for_unchunked_answers() -> None:
    with limited_client(max_row_limit=2) as client:
        client.post("/query", data={"q": "CREATE DATABASE t"})
        client.post("/write?db=t", content=b"m v=1 1\nm v=2 2\nm v=3 3\n")
        [result] = client.get("/query?db=t&epoch=ns&q=SELECT+v+FROM+m").json()["results"]
        assert result["series"][0]["values"] == [[1, 1], [2, 2]]
        assert result["series"][0]["partial"] is True


def test_head_is_not_allowed(client: TestClient) -> None:
    response = client.head("/query?q=SHOW+DATABASES")
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) == {"GET", "POST", "OPTIONS"}
    assert client.options("/query").status_code == 200


def test_series_of_lists_and_arrays_are_cut_alike() -> None:
    series = many_rows(5)
    series.columns.append("text")
    series.data.append(["a", "b", "c", "d", "e"])
    parts = [part for chunk in chunks_of(Result(0, [series]), 2) for part in chunk.series]
    assert [len(part) for part in parts] == [2, 2, 1]
    assert [part.cells()[2] for part in parts] == [["a", "b"], ["c", "d"], ["e"]]
    assert np.asarray(parts[1].cells()[0]).tolist() == [2_000_000_000, 3_000_000_000]
