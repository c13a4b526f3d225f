"""The case format and the comparison of answers: no server is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.conformance.cases import Answer, Case, CaseError, read_cases
from tests.conformance.pending import PENDING
from tests.conformance.record import DIRECTORY, case_paths
from tests.conformance.replay import difference

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLE = """\
# Two topics.
# databases: t t2

# a write
write db=t precision=s
m v=1 1

m v=2 2
----
204

# an answer of two tables
# any order
query db=t 'params={"a":"b c"}' accept=text/csv
SELECT v
FROM m
----
name,tags,time,v
m,,1,1

name,tags,time,v
m,,2,2

# we differ
# differs: ours is better
query db=t
SELECT w FROM m
---- influxd
400
{"error":"x"}
---- ours
{"results":[]}
"""


def _read(tmp_path: Path, text: str) -> list[Case]:
    path = tmp_path / "example.case"
    path.write_text(text)
    return list(read_cases(path).cases)


def _told(expected: str, got: str, *notes: str) -> str:
    return difference(Case("c", notes, "query", ""), Answer(200, expected), Answer(200, got))


def test_every_file_is_written_as_it_was_read() -> None:
    for path in case_paths():
        assert read_cases(path).text().encode("utf-8", "surrogateescape") == path.read_bytes()


def test_bodies_and_answers_may_hold_blank_lines(tmp_path: Path) -> None:
    write, table, _ = _read(tmp_path, EXAMPLE)
    assert write.body == "m v=1 1\n\nm v=2 2"
    assert write.recorded == Answer(204, "")
    assert table.recorded is not None
    assert table.recorded.body.count("name,tags") == 2


def test_parameters_are_quoted_as_in_a_shell(tmp_path: Path) -> None:
    _, table, _ = _read(tmp_path, EXAMPLE)
    assert table.params == {"db": "t", "params": '{"a":"b c"}', "accept": "text/csv"}
    assert table.any_order


def test_a_case_that_differs_keeps_both_answers(tmp_path: Path) -> None:
    differing = _read(tmp_path, EXAMPLE)[2]
    assert differing.differs == "ours is better"
    assert differing.recorded == Answer(400, '{"error":"x"}')
    assert differing.expected == Answer(200, '{"results":[]}')


def test_databases_come_from_the_preamble(tmp_path: Path) -> None:
    path = tmp_path / "example.case"
    path.write_text(EXAMPLE)
    assert read_cases(path).databases == ("t", "t2")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("# p\n\nquery\nx\n----\n", "starts with a `# title` line", id="no title"),
        pytest.param("# p\n\n# t\nread\nx\n----\n", "starts with write or query", id="no kind"),
        pytest.param("# p\n\n# t\nquery\nx\n", "ends inside a request", id="no end"),
        pytest.param(
            "# p\n\n# t\nquery\nx\n----\n1\n\n# t\nquery\nx\n----\n1\n", "title", id="twice"
        ),
    ],
)
def test_a_broken_file_is_refused_with_its_path(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(CaseError, match=f"example.case.*{reason}"):
        _read(tmp_path, text)


@pytest.mark.parametrize(
    ("expected", "got"),
    [
        pytest.param('{"a":1.5}', '{ "a": 1.5 }', id="blanks"),
        pytest.param("[0.1]", "[0.10000000000000002]", id="last digits of a float"),
        pytest.param("[0]", "[-1e-15]", id="a sum that cancels"),
        pytest.param('{"a":1}\n{"b":2}', '{"a":1}\n{"b":2}', id="two documents"),
        pytest.param("not json", "not json", id="text"),
    ],
)
def test_answers_that_are_the_same(expected: str, got: str) -> None:
    assert not _told(expected, got)


@pytest.mark.parametrize(
    ("expected", "got", "told"),
    [
        pytest.param('{"a":1,"b":2}', '{"b":2,"a":1}', "instead of", id="order of members"),
        pytest.param("[1]", "[1.0]", "/0/0: 1.0 instead of 1", id="a whole float with fraction"),
        pytest.param("[1]", '["1"]', '/0/0: "1" instead of 1', id="text for a number"),
        pytest.param("[9007199254740993]", "[9007199254740992]", "740993", id="a large integer"),
        pytest.param("[1,2]", "[1]", "1 instead of 2, missing 2", id="too short"),
        pytest.param("[1]", "[1,2]", "2 instead of 1, unexpected 2", id="too long"),
        pytest.param("[null]", "[NaN]", "'[NaN]' instead of '[null]'", id="not JSON"),
        pytest.param("[false]", "[0]", "0 instead of false", id="a number for a boolean"),
    ],
)
def test_answers_that_differ_say_where(expected: str, got: str, told: str) -> None:
    assert told in _told(expected, got)


def test_another_status_is_a_difference() -> None:
    case = Case("c", (), "query", "")
    assert difference(case, Answer(200, "{}"), Answer(400, "{}")).startswith("status 400")


def test_rows_may_come_in_any_order_only_where_the_case_says_so() -> None:
    expected, got = '{"values":[[1],[2]]}', '{"values":[[2],[1]]}'
    assert _told(expected, got)
    assert not _told(expected, got, "any order")


def test_a_looser_tolerance_is_taken_from_the_case() -> None:
    assert _told("[1.5]", "[1.5000001]")
    assert not _told("[1.5]", "[1.5000001]", "within 1e-6")


def test_every_pending_case_exists() -> None:
    names = {
        f"{path.relative_to(DIRECTORY).with_suffix('')}::{case.title}"
        for path in case_paths()
        for case in read_cases(path).cases
    }
    assert set(PENDING) <= names
