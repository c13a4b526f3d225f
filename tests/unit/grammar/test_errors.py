"""errors.txt is what influxd says; differences.txt is where we do not follow it."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.parse
import urllib.request

import pytest

from grammar.errors import ParseError
from grammar.parser import parse

_INFLUXD = os.environ.get("INFLUX_URL", "")


def _error(statement: str) -> str:
    try:
        parse(statement)
    except ParseError as exc:
        return str(exc)
    return "OK"


def _error_of_influxd(statement: str) -> str:
    body = urllib.parse.urlencode({"q": statement, "db": "no_such_database"}).encode()
    try:
        urllib.request.urlopen(f"{_INFLUXD}/query", body, timeout=10).close()
    except urllib.error.HTTPError as exc:
        with exc:
            text = str(json.load(exc)["error"])
        return text.removeprefix("error parsing query: ")
    return "OK"


def test_error_is_that_of_influxd(broken: list[str]) -> None:
    statement, error = broken

    assert _error(statement) == error


def test_known_difference_is_as_described(differing: list[str]) -> None:
    statement, influxd, ours, reason = differing

    assert _error(statement) == ours
    assert ours != influxd
    assert reason


@pytest.mark.influxd
@pytest.mark.skipif(not _INFLUXD, reason="INFLUX_URL names no influxd to ask")
def test_influxd_still_says_so(all_broken: list[list[str]]) -> None:
    said = [[statement, _error_of_influxd(statement)] for statement, _ in all_broken]

    assert said == all_broken


@pytest.mark.parametrize(
    ("statement", "line", "column"),
    [
        pytest.param("SELECT FROM FROM cpu", 1, 8, id="reserved word as a name"),
        pytest.param("SELECT v\nFROM m\nWHERE ==", 3, 7, id="third line"),
        pytest.param("SELECT v\r\nFROM m WHERE ==", 2, 14, id="line end of Windows"),
        pytest.param("SELECT 'é𝄞' 1", 1, 13, id="columns are characters"),
        pytest.param("SELECT v FROM m fill()", 0, 0, id="no place"),
    ],
)
def test_error_knows_its_place(statement: str, line: int, column: int) -> None:
    with pytest.raises(ParseError) as caught:
        parse(statement)

    assert (caught.value.line, caught.value.column) == (line, column)


def test_parse_error_is_a_value_error() -> None:
    assert issubclass(ParseError, ValueError)
