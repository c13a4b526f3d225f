"""Floats as Go prints them: texts printed by influxd 1.6.7, or by Go's documented rules."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest

from gateway.encoding.numbers import (
    go_float,
    json_fragment,
    plain_float,
    printable,
    printable_floats,
)

TEXTS = [
    (1.0, "1", "1"),
    (-3.0, "-3", "-3"),
    (0.0, "0", "0"),
    (-0.0, "-0", "-0"),
    (0.5, "0.5", "0.5"),
    (0.1 + 0.2, "0.30000000000000004", "0.30000000000000004"),
    (123456789012345680.0, "123456789012345680", "123456789012345680"),
    (2.0**60, "1152921504606847000", "1152921504606847000"),
    (9007199254740991.0, "9007199254740991", "9007199254740991"),
    (9007199254740992.0, "9007199254740992", "9007199254740992"),
    (1e15 + 0.5, "1000000000000000.5", "1000000000000000.5"),
    (1e20, "100000000000000000000", "100000000000000000000"),
    (1e21, "1e+21", "1000000000000000000000"),
    (1.5e300, "1.5e+300", "15" + "0" * 299),
    (1e-4, "0.0001", "0.0001"),
    (1.234e-5, "0.00001234", "0.00001234"),
    (1e-6, "0.000001", "0.000001"),
    (9.99e-7, "9.99e-7", "0.000000999"),
    (-1e-7, "-1e-7", "-0.0000001"),
    (1e-10, "1e-10", "0.0000000001"),
    (5e-324, "5e-324", "0." + "0" * 323 + "5"),
    (1.7976931348623157e308, "1.7976931348623157e+308", "17976931348623157" + "0" * 292),
]


@pytest.mark.parametrize(("value", "in_json", "in_csv"), TEXTS)
def test_float_prints_as_go_prints_it(value: float, in_json: str, in_csv: str) -> None:
    assert go_float(value) == in_json
    assert plain_float(value) == in_csv
    assert orjson.dumps(printable(value, json_fragment)).decode() == in_json


@pytest.mark.parametrize("n_copies", [1, 100], ids=["loop", "arrays"])
def test_column_of_floats_prints_each_as_it_would_alone(n_copies: int) -> None:
    values = np.array([value for value, _, _ in TEXTS] * n_copies)
    expected = ("[" + ",".join(text for _, text, _ in TEXTS * n_copies) + "]").encode()
    assert orjson.dumps(printable_floats(values, None, json_fragment)) == expected


@pytest.mark.parametrize("n_copies", [1, 100], ids=["loop", "arrays"])
def test_nan_infinities_and_invalid_values_are_null(n_copies: int) -> None:
    values = np.array([1.5, math.nan, math.inf, -math.inf, 2.0] * n_copies)
    valid = np.array([True, True, True, True, False] * n_copies)
    assert (
        printable_floats(values, valid, json_fragment) == [1.5, None, None, None, None] * n_copies
    )


def test_column_of_whole_floats_prints_integers() -> None:
    values = np.arange(200, dtype=np.float64)
    assert printable_floats(values, None, json_fragment) == list(range(200))
