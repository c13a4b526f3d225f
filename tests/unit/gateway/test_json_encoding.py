"""JSON documents, byte for byte as influxd 1.6.7 answered them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import numpy as np
import pytest
from hypothesis import given, strategies as st

from gateway.encoding.json import JsonEncoder, indented
from gateway.results import Result, Series
from tests.unit.gateway.tables import by_tag, every_type, failed, many_rows
from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.results import Column
    from tinyflux.columnar.base import Values


def printed(results: Iterable[Result], epoch_ns: int = 0, *, pretty: bool = False) -> str:
    return b"".join(JsonEncoder(epoch_ns, pretty=pretty).document(results)).decode()


def test_every_type_prints_as_influxd_prints_it() -> None:
    assert printed([Result(0, [every_type()])]) == (
        '{"results":[{"statement_id":0,"series":[{"name":"m",'
        '"columns":["time","b","f","g","host","i","s"],"values":['
        '["1969-12-31T23:59:58.499999999Z",true,1,0.5,"a",3,"x\\u003c\\u003e\\u0026é,\\"q"],'
        '["2017-07-14T02:40:00Z",null,-0,123456789012345680,"c d",null,null],'
        '["2017-07-14T02:40:00.123456789Z",null,1e+21,1e-7,"b",null,null]]}]}]}\n'
    )


def test_epoch_prints_times_as_numbers() -> None:
    result = Result(0, [by_tag("a", 1_500_000_000_123_456_789, 1.0)])
    assert '"values":[[1500000000123,1]]' in printed([result], 1_000_000)


def test_statement_without_rows_has_no_series() -> None:
    assert (
        printed([Result(0), Result(1)]) == '{"results":[{"statement_id":0},{"statement_id":1}]}\n'
    )


def test_request_without_statement_is_an_empty_object() -> None:
    assert printed([]) == "{}\n"


def test_header_without_rows_has_no_values() -> None:
    users = Series("", ["user", "admin"], [[], []])
    assert printed([Result(0, [users])]) == (
        '{"results":[{"statement_id":0,"series":[{"columns":["user","admin"]}]}]}\n'
    )


def test_keys_come_in_influxds_order() -> None:
    series = by_tag("", 0, 2.5)
    series.partial = True
    result = Result(3, [series], [("warning", "careful")], partial=True)
    assert printed([result]) == (
        '{"results":[{"statement_id":3,"series":[{"name":"m","tags":{"host":""},'
        '"columns":["time","f"],"values":[["1970-01-01T00:00:00Z",2.5]],"partial":true}],'
        '"messages":[{"level":"warning","text":"careful"}],"partial":true}]}\n'
    )


def test_error_stays_in_its_own_result() -> None:
    results = [Result(0), failed(1, "database not found: <x>"), failed(2, "not executed")]
    assert printed(results) == (
        '{"results":[{"statement_id":0},'
        '{"statement_id":1,"error":"database not found: \\u003cx\\u003e"},'
        '{"statement_id":2,"error":"not executed"}]}\n'
    )


def test_line_separators_are_escaped_and_other_unicode_is_not() -> None:
    series = Series("é\u2028\u2029☃", ["key"], [["x"]])
    assert '"name":"é\\u2028\\u2029☃"' in printed([Result(0, [series])])


def test_lists_print_as_lists_and_floats_in_them_as_go_prints_them() -> None:
    series = Series("", ["a", "b"], [[1.0, None, 1e-7], [["x"], [], ["y", "z"]]])
    assert '"values":[[1,["x"]],[null,[]],[1e-7,["y","z"]]]' in printed([Result(0, [series])])


def test_int64_is_exact() -> None:
    series = Series("m", ["i"], [[2**63 - 1, -(2**63)]])
    assert '"values":[[9223372036854775807],[-9223372036854775808]]' in printed(
        [Result(0, [series])]
    )


@pytest.mark.parametrize(
    "sizes", [(25_000,), (3, 25_000, 3), (9_999, 1, 10_000, 10_001), (1,) * 50]
)
def test_document_is_the_same_in_pieces_and_at_once(sizes: tuple[int, ...]) -> None:
    document = json.loads(printed([Result(0, [many_rows(size) for size in sizes])], 1_000_000_000))
    values = [series["values"] for series in document["results"][0]["series"]]
    assert values == [[[i, i / 2] for i in range(size)] for size in sizes]


def test_long_series_comes_in_pieces() -> None:
    pieces = list(JsonEncoder(1).document([Result(0, [many_rows(50_000)])]))
    assert max(map(len, pieces)) < 500_000


@pytest.mark.parametrize("sizes", [(5_000,), (40,) * 125])
def test_wide_series_comes_in_pieces(sizes: tuple[int, ...]) -> None:
    names = [f"f{n}" for n in range(100)]
    made = [Series("m", ["time", *names], [list(range(size))] * 101) for size in sizes]
    pieces = list(JsonEncoder(1).document([Result(0, made)]))
    assert max(map(len, pieces)) < 700_000
    series = json.loads(b"".join(pieces))["results"][0]["series"]
    assert [row for one in series for row in one["values"]] == [
        [n] * 101 for size in sizes for n in range(size)
    ]


def test_partial_long_series_says_so_after_its_values() -> None:
    series = many_rows(20_000)
    series.partial = True
    assert printed([Result(0, [series])], 1).endswith(']],"partial":true}]}]}\n')


def test_pretty_indents_by_four_blanks_and_keeps_every_token() -> None:
    results = [Result(0, [by_tag('a, {b}: \\ "c"', 0, -0.0)]), Result(1)]
    assert printed(results, 1, pretty=True) == (
        "{\n"
        '    "results": [\n'
        "        {\n"
        '            "statement_id": 0,\n'
        '            "series": [\n'
        "                {\n"
        '                    "name": "m",\n'
        '                    "tags": {\n'
        '                        "host": "a, {b}: \\\\ \\"c\\""\n'
        "                    },\n"
        '                    "columns": [\n'
        '                        "time",\n'
        '                        "f"\n'
        "                    ],\n"
        '                    "values": [\n'
        "                        [\n"
        "                            0,\n"
        "                            -0\n"
        "                        ]\n"
        "                    ]\n"
        "                }\n"
        "            ]\n"
        "        },\n"
        "        {\n"
        '            "statement_id": 1\n'
        "        }\n"
        "    ]\n"
        "}\n"
    )


def test_indented_keeps_empty_lists_and_objects_on_one_line() -> None:
    assert indented(b'{"a":[],"b":{}}') == b'{\n    "a": [],\n    "b": {}\n}'


def test_request_error_is_one_object() -> None:
    assert JsonEncoder().error('no "q"') == b'{"error":"no \\"q\\""}\n'
    assert JsonEncoder(pretty=True).error("x") == b'{\n    "error": "x"\n}\n'


def test_times_may_come_as_a_list() -> None:
    series = Series("result", ["time", "written"], [[0], [3]], has_time=True)
    assert '[["1970-01-01T00:00:00Z",3]]' in printed([Result(0, [series])])
    assert "[[0,3]]" in printed([Result(0, [series])], 1)


def test_numpy_times_of_any_layout_print() -> None:
    series = Series(
        "m", ["time"], [cast("Column", np.arange(10)[::3] * 1_000_000_000)], has_time=True
    )
    assert '"values":[[0],[3],[6],[9]]' in printed([Result(0, [series])], 1_000_000_000)


NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-1000, 1000))
FLOATS = st.one_of(
    st.floats(), st.integers(-(10**17), 10**17).map(float), st.sampled_from([-0.0, 1e21, 1e-7, 0.5])
)
TEXTS = st.one_of(st.none(), st.sampled_from(["a", "<b>&\u2028"]), st.text(max_size=40))
KINDS: list[tuple[FieldType, type, st.SearchStrategy[object]]] = [
    (FieldType.INTEGER, np.int64, NUMBERS),
    (FieldType.FLOAT, np.float64, FLOATS),
    (FieldType.STRING, np.object_, TEXTS),
    (FieldType.STRING, np.object_, st.one_of(TEXTS, NUMBERS)),  # as `fill(1)` makes it
    (FieldType.BOOLEAN, np.bool_, st.booleans()),
]


@st.composite
def columns(draw: st.DrawFn, size: int) -> FieldColumn:
    kind, dtype, cells = draw(st.sampled_from(KINDS))
    drawn = draw(st.lists(cells, min_size=1, max_size=20))
    values: Values = np.empty(size, dtype)
    values[:] = np.resize(np.array(drawn, dtype), size)
    valid = draw(st.one_of(st.none(), st.lists(st.booleans(), min_size=1, max_size=9)))
    mask = None if valid is None else np.resize(np.array(valid), size)
    return FieldColumn(kind, values[:: draw(st.sampled_from([1, -1]))], mask)


@pytest.mark.skipif(not JsonEncoder().is_native, reason="the core is not compiled")
@given(st.data(), st.integers(64, 300), st.sampled_from([0, 1, 1_000_000]))
def test_compiled_code_prints_rows_as_python_does(
    data: st.DataObject, size: int, unit: int
) -> None:
    times = FieldColumn(FieldType.INTEGER, np.arange(size) * 1_234_567_891 - 10**9)
    cells: list[Column] = [times, *data.draw(st.lists(columns(size), max_size=4))]
    names = [f"c{i}" for i in range(len(cells))]
    cut = data.draw(st.integers(1, size - 1))
    parts = [slice(0, size), slice(0, cut), slice(cut, size)]
    series = [Series("m", names, cells, has_time=True, rows=part) for part in parts]
    native, python = (
        b"".join(JsonEncoder(unit, native=native).document([Result(0, series)]))
        for native in (True, False)
    )
    assert native == python
