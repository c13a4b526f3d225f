"""Random conditions with NOT, IN, LIKE and times under OR, against a naive reading of each point.

The model knows three truths, as SQL does: a comparison with a missing field is neither true nor
false (None), NOT leaves it so, and only true selects a point. A missing tag is the empty text.
"""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given, settings, strategies as st

from tests.selecting import selecting_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.selecting import Rows

Truth = bool | None
Value = float | str | bool

_SETTINGS = settings(max_examples=120, deadline=None)
_N_POINTS = 120
_TEXTS = ("", "a", "ab", "b", "A", "a%", "a_b", "aéb")
_NUMBERS = (-2, 0, 1, 1.0, 2.5, 3)


class Point(NamedTuple):
    """A point of the store."""

    time: int
    tags: Mapping[str, str]
    fields: Mapping[str, Value]


class Condition(NamedTuple):
    """A condition as text, and what it says of a point."""

    text: str
    truth: Callable[[Point], Truth]


def _points() -> list[Point]:
    """Return points with every mix of present and missing tags and fields."""
    points = []
    for n in range(_N_POINTS):
        tags = {"h": _TEXTS[n % 5], "r": _TEXTS[(n // 5) % 3]}
        fields: dict[str, Value] = {
            "f": (-2.0, 0.0, 1.0, 2.5, 3.0, 7.25)[n % 6],
            "i": (-2, 0, 1, 2, 3)[n % 5],
            "s": _TEXTS[n % len(_TEXTS)],
            "b": n % 3 == 0,
        }
        kept = {key: value for bit, (key, value) in enumerate(fields.items()) if n >> bit & 1}
        points.append(Point(n * 10, {k: v for k, v in tags.items() if v}, {**kept, "n": n}))
    return points


def _line(point: Point) -> str:
    tags = "".join(f",{key}={value}" for key, value in point.tags.items())
    cells = []
    for key, value in point.fields.items():
        text = f'"{value}"' if isinstance(value, str) else str(value)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        cells.append(f"{key}={text}{'i' if is_integer else ''}")
    return f"m{tags} {','.join(cells)} {point.time}"


_POINTS = _points()


@pytest.fixture(scope="module")
def select() -> Iterator[Rows]:
    with selecting_from("\n".join(map(_line, _POINTS))) as run:
        yield run


# --- leaves: a text, and the same in Python -------------------------------------------------------
def _of(point: Point, name: str) -> Value | None:
    return point.tags.get(name, "") if name in {"h", "r"} else point.fields.get(name)


def _test(text: str, name: str, test: Callable[[Value], bool]) -> Condition:
    def truth(point: Point) -> Truth:
        value = _of(point, name)
        return None if value is None else test(value)

    return Condition(text, truth)


def _written(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"'{value}'" if isinstance(value, str) else str(value)


def _compared(name: str, op: str, value: Value) -> Condition:
    tests: dict[str, Callable[[Value], bool]] = {
        "=": lambda v: v == value,
        "!=": lambda v: v != value,
        "<": lambda v: v < value,  # type: ignore[operator]  # of numbers
        "<=": lambda v: v <= value,  # type: ignore[operator]
        ">": lambda v: v > value,  # type: ignore[operator]
        ">=": lambda v: v >= value,  # type: ignore[operator]
    }
    return _test(f"{name} {op} {_written(value)}", name, tests[op])


def _chosen(name: str, values: list[Value], is_negated: bool) -> Condition:
    word = "NOT IN" if is_negated else "IN"
    text = f"{name} {word} ({', '.join(map(_written, values))})"
    return _test(text, name, lambda value: (value in values) != is_negated)


def _like(name: str, parts: list[str], is_negated: bool) -> Condition:
    glob = "".join({"%": "*", "_": "?", r"\%": "%", r"\_": "_"}.get(part, part) for part in parts)
    text = f"{name} {'NOT LIKE' if is_negated else 'LIKE'} '{''.join(parts)}'"
    return _test(text, name, lambda value: fnmatch.fnmatchcase(str(value), glob) != is_negated)


def _matched(name: str, op: str, pattern: str) -> Condition:
    def test(value: Value) -> bool:
        return (re.search(pattern, str(value)) is not None) == (op == "=~")

    return _test(f"{name} {op} /{pattern}/", name, test)


def _summed(left: str, op: str, right: str) -> Condition:
    def truth(point: Point) -> Truth:
        a, b = _of(point, left), _of(point, right)
        if a is None or b is None:
            return None
        assert not isinstance(a, str)
        assert not isinstance(b, str)
        return a + b > 1 if op == ">" else a + b <= 1

    return Condition(f"{left} + {right} {op} 1", truth)


def _timed(op: str, time: int) -> Condition:
    tests: dict[str, Callable[[int], bool]] = {
        "=": lambda t: t == time,
        "<": lambda t: t < time,
        "<=": lambda t: t <= time,
        ">": lambda t: t > time,
        ">=": lambda t: t >= time,
    }
    return Condition(f"time {op} {time}", lambda point: tests[op](point.time))


def _one_time(times: list[int], is_negated: bool) -> Condition:
    word = "NOT IN" if is_negated else "IN"
    text = f"time {word} ({', '.join(map(str, times))})"
    return Condition(text, lambda point: (point.time in times) != is_negated)


_names_of_text = st.sampled_from(["h", "r", "s"])
_names_of_numbers = st.sampled_from(["f", "i"])
_texts = st.sampled_from(_TEXTS)
_numbers = st.sampled_from(_NUMBERS)
_equality = st.sampled_from(["=", "!="])
_leaves = st.one_of(
    st.builds(_compared, _names_of_text, _equality, _texts),
    st.builds(
        _compared, _names_of_numbers, st.sampled_from(["=", "!=", "<", "<=", ">", ">="]), _numbers
    ),
    st.builds(_compared, st.just("b"), _equality, st.booleans()),
    st.builds(_chosen, _names_of_text, st.lists(_texts, min_size=1, max_size=3), st.booleans()),
    st.builds(
        _chosen, _names_of_numbers, st.lists(_numbers, min_size=1, max_size=3), st.booleans()
    ),
    st.builds(
        _like,
        _names_of_text,
        st.lists(st.sampled_from(["a", "b", "é", "%", "_", r"\%", r"\_"]), max_size=3),
        st.booleans(),
    ),
    st.builds(
        _matched, _names_of_text, st.sampled_from(["=~", "!~"]), st.sampled_from(["a", "^b", "^$"])
    ),
    st.builds(_summed, st.just("f"), st.sampled_from([">", "<="]), st.just("i")),
)
_some_times = st.integers(-1, 10 * _N_POINTS).map(lambda n: n - n % 5)
_times = st.one_of(
    st.builds(_timed, st.sampled_from(["=", "<", "<=", ">", ">="]), _some_times),
    st.builds(_one_time, st.lists(_some_times, min_size=1, max_size=3), st.booleans()),
)


# --- and what joins them --------------------------------------------------------------------------
def _not(inner: Condition) -> Condition:
    def truth(point: Point) -> Truth:
        value = inner.truth(point)
        return None if value is None else not value

    return Condition(f"NOT ({inner.text})", truth)


def _joined(op: str, left: Condition, right: Condition) -> Condition:
    decides = op == "OR"

    def truth(point: Point) -> Truth:
        truths = left.truth(point), right.truth(point)
        if decides in truths:
            return decides
        return None if None in truths else not decides

    return Condition(f"({left.text}) {op} ({right.text})", truth)


def _trees(inner: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    return st.one_of(
        st.builds(_not, inner), st.builds(_joined, st.sampled_from(["AND", "OR"]), inner, inner)
    )


def _exact(leaves: st.SearchStrategy[Condition]) -> st.SearchStrategy[Condition]:
    """Give conditions whose times are exact: each branch of an OR has one, or NOT is before it."""
    with_times = st.recursive(st.one_of(leaves, _times), _trees, max_leaves=4)
    timed = st.builds(_joined, st.sampled_from(["AND", "OR"]), _times, with_times)
    others = st.recursive(leaves, _trees, max_leaves=4)
    branches = st.builds(_joined, st.just("AND"), _times, others)
    exact = st.recursive(
        st.one_of(_times, branches, st.builds(_not, timed)),
        lambda inner: st.builds(_joined, st.just("OR"), inner, branches),
        max_leaves=3,
    )
    return st.one_of(exact, st.builds(_joined, st.just("AND"), others, exact))


_conditions = st.recursive(_leaves, _trees, max_leaves=6)


@_SETTINGS
@given(st.one_of(_conditions, _exact(_leaves)))
def test_condition_selects_the_points_that_it_is_true_for(
    select: Rows, condition: Condition
) -> None:
    series = select(f"SELECT n FROM m WHERE {condition.text}")

    found = {number for _, rows in series for _, number in rows}
    assert found == {p.fields["n"] for p in _POINTS if condition.truth(p) is True}


@settings(max_examples=60, deadline=None)
@given(st.one_of(_conditions, _exact(_leaves)))
def test_delete_takes_the_points_that_its_condition_is_true_for(condition: Condition) -> None:
    points = _POINTS[:30]
    with selecting_from("\n".join(map(_line, points))) as run:
        run(f"DELETE FROM m WHERE {condition.text}")

        left = {number for _, rows in run("SELECT n FROM m") for _, number in rows}
    assert left == {p.fields["n"] for p in points if condition.truth(p) is not True}
