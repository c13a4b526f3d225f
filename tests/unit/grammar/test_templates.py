"""Texts that differ in literals: read by way of a template they give what the grammar gives."""

from __future__ import annotations

import re

import pytest

from grammar import ast
from grammar.errors import ParseError
from grammar.parser import parse

# With parameters, a text is read in full.
_IN_FULL: dict[str, object] = {"nothing": 0}


def _outcome(text: str, params: dict[str, object] | None = None) -> object:
    try:
        return parse(text, params)
    except ParseError as exc:
        return str(exc)


_OTHERS = {
    r"'[^']*'": ["'x'", "''", r"'it\'s'", "'-- /* \"'", "'é'"],
    r"\b\d+\b(?![.])": ["0", "7", "9223372036854775808", "99999999999999999999"],
    r"\b\d+[a-z]+\b": ["1ns", "1h30m", "5x", "99999999999999d"],
    r"\d+\.\d+": ["0.0", "5.", ".5", "1e5"],
    r"(?<=~ )/[^/ ]*/": ["/a/", r"/\//", "/(/", "/it's/"],
}


def test_example_with_other_literals_reads_as_it_does_in_full(example: list[str]) -> None:
    _outcome(example[0])
    for pattern, others in _OTHERS.items():
        for other in others:
            text = other.join(re.split(pattern, example[0]))
            assert text == example[0] or _outcome(text) == _outcome(text, _IN_FULL)


@pytest.mark.parametrize("host", ["a", r"it's", "' OR 'a' = 'a", "\\", 'q"'])
def test_text_of_a_literal_stays_a_text(host: str) -> None:
    quoted = host.replace("\\", "\\\\").replace("'", "\\'")
    (select,) = parse(f"SELECT v FROM m WHERE h = '{quoted}' AND time > 5m")

    assert isinstance(select, ast.Select)
    assert select.condition == ast.BinaryExpr(
        "AND",
        ast.BinaryExpr("=", ast.VarRef("h"), ast.StringLiteral(host)),
        ast.BinaryExpr(">", ast.VarRef("time"), ast.DurationLiteral(300_000_000_000)),
    )


@pytest.mark.parametrize(
    "form",
    [
        "SELECT v FROM m WHERE a = {}",
        "SELECT v FROM (SELECT v FROM m WHERE a >= {}) WHERE b < {}",
        "SELECT v FROM m WHERE a = 1; SELECT v FROM n WHERE a <> {} AND b = {}",
        "SELECT v FROM m WHERE a = {} AND b = 'stand-in 0' OR c = 731058578630000",
        "SELECT v FROM m WHERE a = {} GROUP BY time(1m) fill(3) tz('UTC')",
        "SELECT v FROM m WHERE a = {} AND /* b = */ c = {}",
        "SELECT v FROM m WHERE a = {} -- AND c = {}",
        "SELECT v FROM /it's/ WHERE a = {} AND b = {}",
        "SELECT v = {} FROM m WHERE a = {}",
        "SHOW TAG VALUES WITH KEY = b WHERE a = {}",
        "SHOW TAG VALUES WITH KEY =~ {} WHERE a = 'x'",
        "DELETE FROM m WHERE a = {}",
        "SET PASSWORD FOR u = {}; SELECT v FROM m WHERE a = {}",
        "SELECT v FROM m WHERE a = {} AND b = $p",
        "SELECT v FROM m WHERE a =~ {} AND b !~ {}",
    ],
)
def test_every_literal_in_every_place_reads_as_it_does_in_full(form: str) -> None:
    for literal in ("1", "2", "3.5", "'x'", "'y'", "1m", "2h", "/r/", "/s(/", "-4", "b", "", "2x"):
        text = form.replace("{}", literal)
        assert _outcome(text) == _outcome(text, _IN_FULL)


def test_months_are_compared_with_nothing_by_themselves() -> None:
    for text in ("SELECT v FROM m WHERE time > 5m", "SELECT v FROM m WHERE time > 6m"):
        assert parse(text)
    with pytest.raises(ParseError, match="invalid duration"):
        parse("SELECT v FROM m WHERE time > 1mo")
