from __future__ import annotations

import numpy as np
import pytest

from gateway.fill import fill
from grammar.ast import Fill
from tinyflux.batch import FieldType

VALID = np.array([[False, True, False, False, True, False], [False] * 6])
FLOATS = np.array([[0.0, 1.0, 0.0, 0.0, 4.0, 0.0], [0.0] * 6])
WITHIN = np.array([[True] * 6, [False] * 6])


def filled(
    mode: Fill, values: np.ndarray, kind: FieldType, number: float = 0, is_count: bool = False
) -> list[object]:
    result, valid = fill(mode, number, kind, values, VALID, WITHIN, is_count=is_count)
    assert not valid[1].any()
    pairs = zip(result[0].tolist(), valid[0].tolist(), strict=True)
    return [value if known else None for value, known in pairs]


@pytest.mark.parametrize(
    ("mode", "number", "expected"),
    [
        (Fill.NULL, 0, [None, 1.0, None, None, 4.0, None]),
        (Fill.NONE, 0, [None, 1.0, None, None, 4.0, None]),
        (Fill.PREVIOUS, 0, [None, 1.0, 1.0, 1.0, 4.0, 4.0]),
        (Fill.LINEAR, 0, [None, 1.0, 2.0, 3.0, 4.0, None]),
        (Fill.NUMBER, 1.9, [1.9, 1.0, 1.9, 1.9, 4.0, 1.9]),
    ],
)
def test_fill_of_floats(mode: Fill, number: float, expected: list[object]) -> None:
    assert filled(mode, FLOATS, FieldType.FLOAT, number) == expected


@pytest.mark.parametrize(
    ("mode", "number", "expected"),
    [
        (Fill.LINEAR, 0, [None, 1, 1, 1, 2, None]),
        (Fill.NUMBER, 1.9, [1, 1, 1, 1, 2, 1]),
        (Fill.NUMBER, -1.9, [-1, 1, -1, -1, 2, -1]),
    ],
)
def test_fill_of_integers_truncates(mode: Fill, number: float, expected: list[object]) -> None:
    values = np.array([[0, 1, 0, 0, 2, 0], [0] * 6])
    assert filled(mode, values, FieldType.INTEGER, number) == expected


def test_lines_are_those_of_influxd_to_the_last_digit() -> None:
    values = np.array([[0.0, 4.0, 0.0, 0.0, -3.0, 0.0], [0.0] * 6])
    expected = [None, 4.0, 1.6666666666666665, -0.666666666666667, -3.0, None]  # of influxd 1.6.7
    assert filled(Fill.LINEAR, values, FieldType.FLOAT) == expected


def test_empty_windows_count_zero() -> None:
    values = np.array([[0, 3, 0, 0, 2, 0], [0] * 6])
    assert filled(Fill.NULL, values, FieldType.INTEGER, is_count=True) == [0, 3, 0, 0, 2, 0]


def test_text_is_filled_by_the_empty_text() -> None:
    values = np.full((2, 6), None, np.object_)
    values[0, 1], values[0, 4] = "a", "b"
    assert filled(Fill.NUMBER, values, FieldType.STRING, 7) == ["", "a", "", "", "b", ""]
    assert filled(Fill.PREVIOUS, values, FieldType.STRING) == [None, "a", "a", "a", "b", "b"]
    assert filled(Fill.LINEAR, values, FieldType.STRING) == [None, "a", None, None, "b", None]
