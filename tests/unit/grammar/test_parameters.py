from __future__ import annotations

import pytest

from grammar import ast
from grammar.errors import ParseError
from grammar.parameters import BindError, bind
from grammar.parser import parse


def _condition(value: object) -> ast.Expr:
    (select,) = parse("SELECT v FROM m WHERE a = $x", {"x": value})
    assert isinstance(select, ast.Select)
    assert isinstance(select.condition, ast.BinaryExpr)
    return select.condition.rhs


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("it's; DROP DATABASE x", ast.StringLiteral("it's; DROP DATABASE x")),
        (5, ast.IntegerLiteral(5)),
        (-5, ast.IntegerLiteral(-5)),
        (1.5, ast.NumberLiteral(1.5)),
        (-1e21, ast.NumberLiteral(-1e21)),
        (True, ast.BooleanLiteral(True)),
        (False, ast.BooleanLiteral(False)),
        ({"string": "s"}, ast.StringLiteral("s")),
        ({"identifier": "select"}, ast.VarRef("select")),
        ({"ident": 'a"b'}, ast.VarRef('a"b')),
        ({"float": 1}, ast.NumberLiteral(1.0)),
        ({"number": 1.5}, ast.NumberLiteral(1.5)),
        ({"int": 7}, ast.IntegerLiteral(7)),
        ({"integer": -7}, ast.IntegerLiteral(-7)),
        ({"duration": "1h30m"}, ast.DurationLiteral(5_400_000_000_000)),
        ({"duration": 90_000_000_000}, ast.DurationLiteral(90_000_000_000)),
        ({"duration": "-2m"}, ast.DurationLiteral(-120_000_000_000)),
    ],
)
def test_value_becomes_a_typed_literal(value: object, literal: ast.Expr) -> None:
    assert _condition(value) == literal


def test_regex_binds_behind_its_operator() -> None:
    (select,) = parse("SELECT v FROM m WHERE a =~ $x", {"x": {"regex": "a/b"}})

    assert isinstance(select, ast.Select)
    assert select.condition == ast.BinaryExpr("=~", ast.VarRef("a"), ast.RegexLiteral("a/b"))


def test_parameters_bind_names_limits_and_calls() -> None:
    (select,) = parse(
        'SELECT $fn(v) AS $as FROM $m GROUP BY time($"every one") fill($fill) LIMIT $n',
        {
            "fn": {"identifier": "MEAN"},
            "as": {"identifier": "x y"},
            "m": {"identifier": "my measurement"},
            "every one": {"duration": "1m"},
            "fill": -1,
            "n": 5,
        },
    )

    assert select == ast.Select(
        fields=(ast.Field(ast.Call("mean", (ast.VarRef("v"),)), "x y"),),
        sources=(ast.Measurement("my measurement"),),
        dimensions=(ast.Call("time", (ast.DurationLiteral(60_000_000_000),)),),
        fill=ast.Fill.NUMBER,
        fill_value=-1,
        limit=5,
    )


def test_regex_binds_as_a_source() -> None:
    (select,) = parse("SELECT v FROM $m", {"m": {"regex": "^cpu"}})

    assert isinstance(select, ast.Select)
    assert select.sources == (ast.Measurement(regex=ast.RegexLiteral("^cpu")),)


@pytest.mark.parametrize(
    ("statement", "value", "error"),
    [
        ("a = $y", 1, "missing parameter: y"),
        ("a = $", 1, "empty bound parameter"),
        ("a = $x", None, "missing parameter: unable to bind parameter with type <nil>"),
        ("a = $x", [1], "missing parameter: unable to bind parameter with type []interface {}"),
        ("a = $x", {},
         "missing parameter: bound object parameter value must have exactly one entry"),
        ("a = $x", {"foo": 1}, "missing parameter: unknown bind object type: foo"),
        ("a = $x", {"string": 1}, "missing parameter: string literal must be a string value"),
        ("a = $x", {"int": 1.5}, "missing parameter: integer literal must be an integer value"),
        ("a = $x", {"float": "1"}, "missing parameter: number literal must be a float value"),
        ("a = $x", {"regex": 1}, "missing parameter: regex literal must be a string value"),
        ("a = $x", {"identifier": 1}, "missing parameter: identifier must be a string value"),
        ("a = $x", {"duration": 1.5},
         "missing parameter: duration literal must be a string or integer value"),
        ("a = $x", {"duration": "x"}, "invalid duration"),
        ("a =~ $x", {"regex": "["},
         "error parsing regexp: missing closing ]: `[` at line 1, char 28"),
        ("a =~ $x", "s", "found s, expected regex at line 1, char 28"),
        ("a = 1 LIMIT $x", -5, "LIMIT must be >= 0 at line 1, char 35"),
        ("a = 1 LIMIT $x", "5", "found 5, expected integer at line 1, char 35"),
        ("a = 1 LIMIT $x", None,
         "found unable to bind parameter with type <nil>, expected integer at line 1, char 35"),
        ("a = 1 LIMIT $y", 1, "found $y, expected integer at line 1, char 35"),
    ],
)  # fmt: skip
def test_error_is_that_of_influxd(statement: str, value: object, error: str) -> None:
    with pytest.raises(ParseError) as caught:
        parse(f"SELECT v FROM m WHERE {statement}", {"x": value})

    assert str(caught.value) == error


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 2**63, "\ud800", {"ident": "\ud800"}]
)
def test_value_that_nothing_can_hold_is_refused(value: object) -> None:
    with pytest.raises(BindError):
        bind(value)
