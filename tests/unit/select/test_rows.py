from __future__ import annotations

import numpy as np
import pytest

from gateway.rows import Axis, Col, evaluate
from grammar import ast
from tinyflux.batch import FieldType

A, B = ast.VarRef("a"), ast.VarRef("b")


def column(*values: object) -> Col:
    valid = np.array([value is not None for value in values])
    known = [value for value in values if value is not None]
    kind = FieldType.INTEGER if all(isinstance(v, int) for v in known) else FieldType.FLOAT
    numbers = [value or 0 for value in values]
    if kind is FieldType.INTEGER:
        return Col(kind, np.array(numbers, np.int64), valid, valid)
    return Col(kind, np.array(numbers, np.float64), valid, valid)


def axis(size: int) -> Axis:
    return Axis(np.zeros(size, np.int64), np.arange(size), np.ones(size, np.bool_))


def values_of(col: Col) -> list[object]:
    pairs = zip(col.values.tolist(), col.valid.tolist(), strict=True)
    return [value if known else None for value, known in pairs]


@pytest.mark.parametrize(
    ("op", "left", "right", "expected"),
    [
        pytest.param("+", (1, 2), (3, 4), [4, 6], id="integers-stay-integers"),
        pytest.param("/", (1, 4), (2, 2), [0.5, 2.0], id="division-gives-floats"),
        pytest.param("/", (1, 1.5), (0, 0), [0.0, 0.0], id="division-by-zero-is-zero"),
        pytest.param("%", (-7, 7), (3, 0), [-1, 0], id="modulo-as-in-go"),
        pytest.param("*", (2**62, 1), (4, 1), [0, 1], id="integers-wrap"),
        pytest.param("-", (1, None), (0.5, 1.0), [0.5, None], id="null-stays-null"),
        pytest.param("&", (6, 5), (3, 4), [2, 4], id="bits"),
    ],
)
def test_operator(
    op: str, left: tuple[object, ...], right: tuple[object, ...], expected: list[object]
) -> None:
    leaves: dict[ast.Expr, Col] = {A: column(*left), B: column(*right)}
    result = evaluate(ast.BinaryExpr(op, A, B), axis(2), leaves)
    assert values_of(result) == expected
    assert [type(v) for v in values_of(result)] == [type(v) for v in expected]


def test_row_with_one_operand_is_emitted_as_null() -> None:
    leaves: dict[ast.Expr, Col] = {A: column(1, None, None), B: column(1, 2, None)}
    result = evaluate(ast.BinaryExpr("+", A, B), axis(3), leaves)
    assert result.emits.tolist() == [True, True, False]
    assert values_of(result) == [2, None, None]


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("abs", (-3, 3), [3, 3]),
        ("round", (0.5, -2.5), [1.0, -3.0]),
        ("round", (2.4, -2.4), [2.0, -2.0]),
        ("floor", (1.5, -1.5), [1.0, -2.0]),
        ("sqrt", (9, 2.25), [3.0, 1.5]),
    ],
)
def test_math_function(name: str, values: tuple[object, ...], expected: list[object]) -> None:
    result = evaluate(ast.Call(name, (A,)), axis(2), {A: column(*values)})
    assert values_of(result) == expected


def test_transformation_reads_its_own_leaves_and_gives_no_row_outside_of_the_range() -> None:
    mean = ast.Call("mean", (A,))
    rows = Axis(
        np.zeros(3, np.int64),
        np.array([0, 10, 20]) * 10**9,
        np.array([False, True, True]),
        interval_ns=10 * 10**9,
    )
    expr = ast.Call("derivative", (mean,))
    result = evaluate(expr, rows, {mean: column(None, 5.0, 9.0)}, {mean: column(1.0, 5.0, 9.0)})
    assert values_of(result) == [None, 4.0, 4.0]
    assert result.emits.tolist() == [False, True, True]
