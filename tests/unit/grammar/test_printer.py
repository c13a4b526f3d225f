from __future__ import annotations

import pytest

from grammar import ast
from grammar.parser import parse
from grammar.printer import to_influxql


def test_canonical_text_prints_as_itself(identical: list[str]) -> None:
    (line,) = identical

    assert [to_influxql(statement) for statement in parse(line)] == [line]


def test_example_reads_again_as_the_same_tree(example: list[str]) -> None:
    (text,) = example
    statements = parse(text)
    printed = "; ".join(to_influxql(statement) for statement in statements)

    if "[REDACTED]" not in printed:
        assert parse(printed) == statements


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("select MEAN(v) from m fill(null)", "SELECT mean(v) FROM m"),
        ("SELECT v FROM m WHERE a <> 1 and b = 2 Or c = 3",
         "SELECT v FROM m WHERE a != 1 AND b = 2 OR c = 3"),
        ("SELECT v FROM m order by asc LIMIT 0", "SELECT v FROM m ORDER BY time ASC"),
        ("SELECT v FROM m tz('')", "SELECT v FROM m TZ('UTC')"),
        ("SELECT v FROM m WHERE t > 3600s AND u < 1h1m",
         "SELECT v FROM m WHERE t > 1h AND u < 61m"),
        ("SELECT a / -b FROM m", "SELECT a / (-1 * b) FROM m"),
        ("SELECT mean(v) FROM m fill(1.0)", "SELECT mean(v) FROM m fill(1)"),
        ("ALTER RETENTION POLICY default ON x DEFAULT",
         'ALTER RETENTION POLICY "default" ON x DEFAULT'),
        ("CREATE RETENTION POLICY p ON x DURATION INF REPLICATION 1",
         "CREATE RETENTION POLICY p ON x DURATION 0s REPLICATION 1"),
        ("GRANT ALL TO u", "GRANT ALL PRIVILEGES TO u"),
        ("SHOW SERIES EXACT", "SHOW SERIES"),
    ],
)  # fmt: skip
def test_statement_prints_in_canonical_form(written: str, printed: str) -> None:
    assert [to_influxql(statement) for statement in parse(written)] == [printed]


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("CREATE USER u WITH PASSWORD 'secret'", "CREATE USER u WITH PASSWORD [REDACTED]"),
        (
            "CREATE USER u WITH PASSWORD 'secret' WITH ALL PRIVILEGES",
            "CREATE USER u WITH PASSWORD [REDACTED] WITH ALL PRIVILEGES",
        ),
        ("SET PASSWORD FOR u = 'secret'", "SET PASSWORD FOR u = [REDACTED]"),
    ],
)
def test_password_is_never_printed(written: str, printed: str) -> None:
    (statement,) = parse(written)

    assert to_influxql(statement) == printed


def test_expression_prints_alone() -> None:
    expr = ast.BinaryExpr("=", ast.VarRef("key"), ast.StringLiteral("it's"))

    assert to_influxql(expr) == r""""key" = 'it\'s'"""


def test_regex_of_a_parameter_prints_as_a_literal() -> None:
    (statement,) = parse("SELECT v FROM m WHERE a =~ $re", {"re": {"regex": "a/b\nc\\\\"}})

    assert to_influxql(statement) == r"SELECT v FROM m WHERE a =~ /a\/b\nc\x5c/"


def test_what_is_no_node_is_refused() -> None:
    with pytest.raises(TypeError, match="not a node"):
        to_influxql("SELECT")
