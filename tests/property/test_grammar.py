"""Trees print as texts that read as the same trees; any text parses or is a ParseError."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given, settings, strategies as st

from grammar import ast
from grammar.errors import ParseError
from grammar.parser import parse
from grammar.printer import to_influxql
from grammar.words import reserved_words

if TYPE_CHECKING:
    from collections.abc import Sequence

_SETTINGS = settings(max_examples=60, deadline=None)

# --- parts ----------------------------------------------------------------------------------------
_any_text = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\x00\r"), max_size=8
)
_names = st.one_of(
    st.sampled_from(["cpu", "host", "time", "fill", "select", "", "a.b", 'q"', "back\\"]), _any_text
)
_given_names = _names.filter(bool)
_maybe_names = st.one_of(st.just(""), _given_names)
_int64s = st.integers(-(2**63), 2**63 - 1)
_spans = st.one_of(st.sampled_from([0, 1, 10**9, 3600 * 10**9]), st.integers(0, 2**63 - 1))
_counts = st.integers(0, 2**63 - 1)
_regexes = st.lists(
    st.sampled_from(["a", "/", r"\/", r"\d", ".", r"\\", "é", "(x|y)", "[/]", "^", "$", " ", '"'])
).map(lambda parts: ast.RegexLiteral("".join([*parts, "z"])))
_numbers = st.floats(allow_nan=False, allow_infinity=False)
_casts = ["", "", "float", "integer", "unsigned", "string", "boolean", "field", "tag"]


def _left(parts: Sequence[ast.Expr], ops: Sequence[str]) -> ast.Expr:
    expr = parts[0]
    for op, part in zip(ops, parts[1:], strict=False):
        expr = ast.BinaryExpr(op, expr, part)
    return expr


def _chains(
    operands: st.SearchStrategy[ast.Expr], ops: Sequence[str]
) -> st.SearchStrategy[ast.Expr]:
    return st.builds(
        _left,
        st.lists(operands, min_size=1, max_size=3),
        st.lists(st.sampled_from(ops), min_size=2, max_size=2),
    )


def _comparisons(sums: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    with_regex = st.builds(ast.BinaryExpr, st.sampled_from(["=~", "!~"]), sums, _regexes)
    return st.one_of(_chains(sums, ["=", "!=", "<", "<=", ">", ">="]), with_regex)


_literals: st.SearchStrategy[ast.Expr] = st.one_of(
    st.builds(ast.IntegerLiteral, st.integers(-(2**63), 2**64 - 1)),
    st.builds(ast.NumberLiteral, _numbers),
    st.builds(ast.StringLiteral, _any_text),
    st.builds(ast.BooleanLiteral, st.booleans()),
    st.builds(ast.DurationLiteral, st.integers(-(2**63) + 1, 2**63 - 1)),
)
_calendar_durations = st.builds(
    lambda sign, months, ns: ast.CalendarDuration(sign * months, sign * ns),
    st.sampled_from([1, -1]),
    st.integers(1, 292 * 12),
    st.one_of(st.just(0), st.integers(0, 2**63 - 1)),
)
_shifted_times = st.builds(
    ast.BinaryExpr, st.sampled_from(["+", "-"]), st.just(ast.Call("now")), _calendar_durations
)
_leaves: st.SearchStrategy[ast.Expr] = st.one_of(
    _literals,
    st.builds(ast.VarRef, _names, st.sampled_from(_casts)),
    st.builds(ast.Wildcard, st.sampled_from(["", "field", "tag"])),
    st.builds(ast.Distinct, _names),
)


def _sums(operands: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    return _chains(_chains(operands, ["*", "/", "%", "&"]), ["+", "-", "|", "^"])


def _calls(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    names = st.one_of(st.sampled_from(["mean", "distinct", "a b"]), _names)
    arguments = st.lists(st.one_of(inner, _regexes), max_size=3).map(tuple)
    return st.builds(ast.Call, names.map(str.lower), arguments)


def _arithmetic(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    return _sums(st.one_of(_leaves, _calls(inner), st.builds(ast.ParenExpr, inner)))


def _logic(terms: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    return _chains(_chains(terms, ["AND"]), ["OR"])


def _expressions(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    return _logic(_comparisons(_arithmetic(inner)))


_like_patterns = st.lists(
    st.sampled_from(["a", "%", "_", r"\%", r"\_", r"\\", "'", '"', "\n", "é"]), max_size=4
).map("".join)
# What stands behind NOT, and could not follow a name: that is what tells it from a name.
_operands = st.one_of(
    st.builds(ast.VarRef, st.one_of(st.sampled_from(["not", "in", "having", "fill"]), _names)),
    st.builds(ast.StringLiteral, _any_text),
)


def _terms(inner: st.SearchStrategy[ast.Expr]) -> st.SearchStrategy[ast.Expr]:
    sums = _sums(st.one_of(_leaves, _calls(_plain), st.builds(ast.ParenExpr, inner)))
    return st.one_of(
        _comparisons(sums),
        st.builds(
            ast.InExpr, sums, st.lists(_literals, min_size=1, max_size=3).map(tuple), st.booleans()
        ),
        st.builds(ast.LikeExpr, sums, _like_patterns, st.booleans()),
        st.builds(ast.NotExpr, st.builds(ast.ParenExpr, inner)),
        st.builds(ast.NotExpr, st.builds(ast.NotExpr, _comparisons(_operands))),
    )


_columns = st.recursive(_leaves, _arithmetic, max_leaves=6)
_calendar_windows = st.lists(_calendar_durations, min_size=1, max_size=2).map(
    lambda durations: ast.Call("time", tuple(durations))
)
_plain = st.recursive(_leaves, _expressions, max_leaves=4)
_conditions = st.one_of(
    st.recursive(_leaves, lambda inner: _logic(_terms(inner)), max_leaves=8),
    st.builds(ast.BinaryExpr, st.just(">"), st.just(ast.VarRef("time")), _shifted_times),
)
_maybe_conditions = st.one_of(st.none(), _conditions)


# --- statements -----------------------------------------------------------------------------------
def _measurement(
    name: str, policy: str, database: str, regex: ast.RegexLiteral | None
) -> ast.Measurement:
    return ast.Measurement("" if regex else name, policy, database, regex)


_measurements = st.builds(
    _measurement, _names, _maybe_names, _maybe_names, st.one_of(st.none(), _regexes)
)
_targets = st.one_of(
    st.builds(ast.Measurement, _names, _maybe_names, _maybe_names),
    st.builds(
        lambda p, d: ast.Measurement("", p, d, is_target_name=True), _given_names, _maybe_names
    ),
)
_fills: st.SearchStrategy[tuple[ast.Fill | None, int | float, int]] = st.one_of(
    st.tuples(
        st.sampled_from([None, ast.Fill.NONE, ast.Fill.PREVIOUS, ast.Fill.LINEAR]),
        st.just(0),
        st.just(0),
    ),
    st.tuples(st.just(ast.Fill.PREVIOUS), st.just(0), st.integers(1, 2**63 - 1)),
    st.tuples(st.just(ast.Fill.NUMBER), st.one_of(_int64s, _numbers), st.just(0)),
)
_sort_fields = st.lists(
    st.one_of(
        st.builds(ast.SortField, _names.filter(lambda name: name.lower() != "time"), st.booleans()),
        st.builds(ast.SortField, st.just(""), st.booleans(), _calls(_leaves)),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda key: (key.name, key.call),
)
# Whether there is an ORDER BY time, whether it descends, and the keys where there are others.
_orders: st.SearchStrategy[tuple[bool, bool, tuple[ast.SortField, ...]]] = st.one_of(
    st.sampled_from([(False, False, ()), (True, False, ()), (True, True, ())]),
    _sort_fields.map(lambda keys: (False, False, tuple(keys))),
    _sort_fields.map(lambda keys: (True, True, (ast.SortField("time", True), *keys))),
)


def _select(
    fields: list[ast.Field],
    target: ast.Measurement | None,
    sources: list[ast.Source],
    condition: ast.Expr | None,
    dimensions: list[ast.Expr],
    filling: tuple[ast.Fill | None, int | float, int],
    having: ast.Expr | None,
    order: tuple[bool, bool, tuple[ast.SortField, ...]],
    limits: tuple[int, int, int, int],
    timezone: str,
) -> ast.Select:
    return ast.Select(
        tuple(fields),
        tuple(sources),
        target,
        condition,
        tuple(dimensions),
        *filling[:2],
        order[1],
        order[0],
        *limits,
        timezone,
        filling[2],
        having,
        order[2],
    )


def _selects(sources: st.SearchStrategy[ast.Source]) -> st.SearchStrategy[ast.Select]:
    fields = st.builds(ast.Field, st.one_of(_columns, _regexes), _maybe_names)
    return st.builds(
        _select,
        st.lists(fields, min_size=1, max_size=3),
        st.one_of(st.none(), _targets),
        st.lists(sources, min_size=1, max_size=2),
        _maybe_conditions,
        st.lists(st.one_of(_columns, _regexes, _calendar_windows), max_size=2),
        _fills,
        _maybe_conditions,
        _orders,
        st.tuples(_counts, _counts, _counts, _counts),
        st.sampled_from(["", "UTC", "Europe/Berlin"]),
    )


_plain_sources = st.one_of(_measurements, st.builds(ast.SubQuery, _selects(_measurements)))
_all_selects = _selects(
    st.one_of(_plain_sources, st.builds(ast.NamedSource, _plain_sources, _names))
)
_sources = st.lists(_measurements, max_size=2).map(tuple)
_filters = st.one_of(
    st.builds(ast.NameFilter, st.sampled_from(["=", "!="]), _names.map(lambda name: (name,))),
    st.builds(ast.NameFilter, st.just("IN"), st.lists(_names, min_size=1, max_size=3).map(tuple)),
    st.builds(ast.NameFilter, st.sampled_from(["=~", "!~"]), st.just(()), _regexes),
)
_maybe_filters = st.one_of(st.none(), _filters)
_maybe_spans = st.one_of(st.none(), _spans)
_policies = st.builds(
    ast.PolicyOptions,
    _spans,
    st.integers(1, 2**31 - 1),
    _maybe_spans,
    _maybe_spans,
    _maybe_spans,
    st.booleans(),
)
_statements: st.SearchStrategy[ast.Statement] = st.one_of(
    _all_selects,
    st.builds(ast.Explain, _all_selects, st.booleans(), st.booleans()),
    st.builds(
        ast.CreateDatabase,
        _names,
        st.builds(ast.PolicyOptions, _maybe_spans, st.none(), _maybe_spans, _maybe_spans),
        _given_names,
    ),
    st.builds(ast.CreateDatabase, _names),
    st.builds(ast.CreateRetentionPolicy, _names, _names, _policies),
    st.builds(ast.AlterRetentionPolicy, _names, _names, _policies),
    st.builds(ast.Delete, st.lists(st.builds(ast.Measurement, _names), min_size=1).map(tuple)),
    st.builds(ast.DropSeries, st.just(()), _conditions),
    st.builds(ast.Grant, st.just(ast.Privilege.ALL), _names, _maybe_names),
    st.builds(ast.Revoke, st.sampled_from(ast.Privilege), _names, _given_names),
    st.builds(
        ast.CreateSubscription,
        _names,
        _names,
        _names,
        st.sampled_from(["ALL", "ANY"]),
        st.lists(_any_text, min_size=1, max_size=3).map(tuple),
    ),
    st.builds(
        ast.RunContinuousQuery,
        _names,
        _names,
        st.builds(ast.IntegerLiteral, _int64s),
        st.builds(ast.StringLiteral, _any_text),
    ),
    st.builds(ast.DropField, _names, _names),
    st.builds(ast.UndropDatabase, _names, _maybe_names),
    st.builds(ast.UndropRetentionPolicy, _names, _names, _maybe_names),
    st.builds(ast.UndropMeasurement, _names, _maybe_names),
    st.builds(ast.RenameMeasurement, _names, _names),
    st.builds(ast.KillQuery, st.integers(0, 2**64 - 1), _maybe_names),
    st.builds(ast.ShowStats, _any_text),
    st.builds(
        ast.ShowTagKeys,
        _maybe_names,
        _sources,
        _maybe_filters,
        _maybe_conditions,
        _counts,
        _counts,
        _counts,
        _counts,
    ),
    st.builds(ast.ShowTagValues, _filters, _maybe_names, _sources, _maybe_conditions),
    st.builds(ast.ShowFieldKeys, _maybe_names, _sources, _maybe_conditions, _counts, _counts),
    st.builds(
        ast.ShowSeries, _maybe_names, _sources, _maybe_conditions, st.just(True), st.just(True)
    ),
    st.builds(
        ast.ShowCardinality,
        st.sampled_from([ast.Countable.SERIES, ast.Countable.MEASUREMENT, ast.Countable.FIELD_KEY]),
        st.booleans(),
        _maybe_names,
        _sources,
        st.none(),
        _maybe_conditions,
        st.lists(_columns, max_size=2).map(tuple),
        _counts,
        _counts,
    ),
)


# --- properties -----------------------------------------------------------------------------------
@_SETTINGS
@given(_statements)
def test_printed_statement_reads_as_the_same_tree(statement: ast.Statement) -> None:
    assert parse(to_influxql(statement)) == (statement,)


@_SETTINGS
@given(_conditions)
def test_printed_condition_reads_as_the_same_tree(condition: ast.Expr) -> None:
    (select,) = parse(f"SELECT v FROM m WHERE {to_influxql(condition)}")

    assert isinstance(select, ast.Select)
    assert select.condition == condition


@_SETTINGS
@given(st.text(max_size=40))
def test_any_text_parses_or_is_a_parse_error(text: str) -> None:
    try:
        statements = parse(text)
    except ParseError:
        return
    assert parse("; ".join(map(to_influxql, statements))) == statements


_WORDS = [*reserved_words(), "a", "fill", "tz", "time", "verbose", "future", "'x'", '"y"', "/z/"]
_WORDS += ["undrop", "purge", "trash", "rename", "not", "like", "having"]
_WORDS += ["1", "1.5", "1h", "$p", "(", ")", ",", ";", ".", ":", "::", "*", "+", "-", "=", "=~"]
_WORDS.sort()


@settings(_SETTINGS, max_examples=300)
@given(st.lists(st.sampled_from(_WORDS), max_size=12), st.sampled_from([" ", ""]))
def test_any_words_parse_or_are_a_parse_error(words: list[str], blank: str) -> None:
    try:
        statements = parse(blank.join(words))
    except ParseError:
        return
    printed = "; ".join(map(to_influxql, statements))
    assert "[REDACTED]" in printed or parse(printed) == statements


@_SETTINGS
@given(st.one_of(_any_text, _int64s, _numbers, st.booleans()))
def test_bound_value_is_that_value(value: str | float) -> None:
    (select,) = parse("SELECT v FROM m WHERE a = $x AND b = 1", {"x": value})

    assert isinstance(select, ast.Select)
    assert isinstance(select.condition, ast.BinaryExpr)
    comparison = select.condition.lhs
    assert isinstance(comparison, ast.BinaryExpr)
    literal = comparison.rhs
    assert isinstance(
        literal,
        ast.StringLiteral | ast.IntegerLiteral | ast.NumberLiteral | ast.BooleanLiteral,
    )
    assert literal.value == value
    assert type(literal.value) is type(value)


def _with_literals(expr: ast.Expr, literals: dict[type, ast.Expr]) -> ast.Expr:
    match expr:
        case ast.BinaryExpr(op, lhs, rhs):
            return ast.BinaryExpr(op, _with_literals(lhs, literals), _with_literals(rhs, literals))
        case ast.ParenExpr(inner):
            return ast.ParenExpr(_with_literals(inner, literals))
        case ast.Call(name, args):
            return ast.Call(name, tuple(_with_literals(arg, literals) for arg in args))
    return literals.get(type(expr), expr)


@_SETTINGS
@given(_conditions, _conditions, st.lists(_literals, max_size=5))
def test_condition_with_other_literals_reads_as_the_same_tree(
    first: ast.Expr, second: ast.Expr, literals: list[ast.Expr]
) -> None:
    condition = ast.BinaryExpr("AND", ast.ParenExpr(first), ast.ParenExpr(second))
    for number in range(len(literals)):  # of one outline, where kinds and signs are the same
        replaced = _with_literals(condition, {type(x): x for x in literals[: number + 1]})
        (select,) = parse(f"SELECT v FROM m WHERE {to_influxql(replaced)}")
        assert isinstance(select, ast.Select)
        assert select.condition == replaced
