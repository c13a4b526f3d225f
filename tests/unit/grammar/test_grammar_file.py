"""influxql.lark itself: no conflicts, no rule without a meaning, no word that is not reserved."""

from __future__ import annotations

import logging
from importlib.resources import files

import pytest
from lark import Lark
from lark.lexer import PatternStr

from grammar import build_select, build_statements
from grammar.parser import parse
from grammar.words import quoted, quoted_string, reserved_words


@pytest.fixture(scope="module")
def grammar() -> str:
    return files("grammar").joinpath("influxql.lark").read_text("utf-8")


@pytest.fixture(scope="module")
def lark(grammar: str) -> Lark:
    return Lark(grammar, parser="lalr", maybe_placeholders=False)


def test_grammar_has_no_conflicts(grammar: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "lark"):
        Lark(grammar, parser="lalr", debug=True)

    assert "conflict" not in caplog.text.lower()


def test_every_rule_makes_something(lark: Lark) -> None:
    made = build_select.RULES.keys() | build_statements.RULES.keys()
    names = {
        rule.alias or rule.options.template_source or rule.origin.name
        for rule in lark.rules
        if not rule.origin.name.startswith("_")
        and (rule.alias or not rule.options.expand1 or len(rule.expansion) > 1)
    }

    assert names == made


def test_words_of_the_grammar_are_reserved(lark: Lark) -> None:
    words = {
        terminal.pattern.value
        for terminal in lark.terminals
        if isinstance(terminal.pattern, PatternStr) and terminal.pattern.value.isupper()
    }

    assert words | {"INSERT"} == reserved_words()
    assert len(words) > 75


@pytest.mark.parametrize("word", sorted(reserved_words()))
def test_reserved_word_is_no_bare_name(word: str) -> None:
    with pytest.raises(ValueError, match=rf"found {word}, expected identifier at line 1, char 15"):
        parse(f"SELECT v FROM {word.lower()}")


@pytest.mark.parametrize("word", sorted(reserved_words()))
def test_reserved_word_is_a_quoted_name(word: str) -> None:
    assert quoted(word.lower()) == f'"{word.lower()}"'
    assert parse(f"DROP MEASUREMENT {quoted(word)}") == parse(f'DROP MEASUREMENT "{word}"')


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cpu", "cpu"),
        ("_a1", "_a1"),
        ("fill", "fill"),
        ("1a", '"1a"'),
        ("a b", '"a b"'),
        ("é", '"é"'),
        ("", '""'),
        ('a"b\\c\n', r'"a\"b\\c\n"'),
    ],
)
def test_name_is_quoted_where_it_must_be(name: str, text: str) -> None:
    assert quoted(name) == text


def test_string_is_escaped() -> None:
    assert quoted_string('it\'s \\ "so"\n') == r"""'it\'s \\ "so"\n'"""
