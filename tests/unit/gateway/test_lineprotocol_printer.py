"""Points as line protocol: texts that influxd reads as these points (see the recorded cases)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from gateway.lineprotocol import format_points, parse

if TYPE_CHECKING:
    from tinyflux.batch import FieldValue, Tags

TAGS: Tags = (("a b", "c,d"), ("e=f", "g=h"))


def _printed(
    measurement: str, tags: Tags, time_ns: int | None, fields: dict[str, FieldValue]
) -> str:
    return format_points([(measurement, tags, time_ns, fields)]).decode()


def test_a_point_of_all_types() -> None:
    fields: dict[str, FieldValue] = {"f": 1.5, "i": 2, "s": "x", "t": True, "u": False}
    assert _printed("m", (("a", "1"),), 7, fields) == 'm,a=1 f=1.5,i=2i,s="x",t=true,u=false 7\n'


def test_several_points_are_lines_in_order() -> None:
    rows: list[tuple[str, Tags, int | None, dict[str, FieldValue]]] = [
        ("m", (), 2, {"f": 1.0}),
        ("n", (), 1, {"f": 2.0}),
    ]
    assert format_points(rows) == b"m f=1.0 2\nn f=2.0 1\n"
    assert format_points([]) == b""


def test_point_without_time_has_no_timestamp() -> None:
    assert _printed("m", (), None, {"f": 1}) == "m f=1i\n"


def test_names_are_escaped() -> None:
    assert _printed("m, n", TAGS, 1, {'p q,r=s"t': 1.0}) == (
        'm\\,\\ n,a\\ b=c\\,d,e\\=f=g\\=h p\\ q\\,r\\=s\\"t=1.0 1\n'
    )


def test_strings_are_escaped() -> None:
    assert _printed("m", (), 1, {"s": 'a"b\\c\nd, e=f'}) == 'm s="a\\"b\\\\c\nd, e=f" 1\n'


def test_nothing_is_printed_of_none_and_empty_tags() -> None:
    fields: dict[str, FieldValue] = {"f": 1.0, "g": None}
    assert _printed("m", (("a", None), ("b", ""), ("c", "x")), 1, fields) == "m,c=x f=1.0 1\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (-0.0, "-0.0"),
        (1e300, "1e+300"),
        (5e-324, "5e-324"),
        (0.1, "0.1"),
        (-(2**63), f"{-(2**63)}i"),
    ],
)
def test_numbers_are_printed_exactly(value: float, text: str) -> None:
    assert _printed("m", (), 1, {"f": value}) == f"m f={text} 1\n"


@pytest.mark.parametrize(
    ("measurement", "tags", "fields"),
    [
        pytest.param("", (), {"f": 1.0}, id="no measurement"),
        pytest.param("m", (), {}, id="no fields"),
        pytest.param("m", (), {"f": None}, id="only None"),
        pytest.param("m", (), {"f": math.nan}, id="nan"),
        pytest.param("m", (), {"f": -math.inf}, id="infinity"),
        pytest.param("m", (), {"": 1.0}, id="empty field key"),
        pytest.param("m", (("", "a"),), {"f": 1.0}, id="empty tag key"),
        pytest.param("m\\", (), {"f": 1.0}, id="measurement ends in a backslash"),
        pytest.param("m", (("t", "a\\"),), {"f": 1.0}, id="tag value ends in a backslash"),
        pytest.param("m", (), {"f\\": 1.0}, id="field key ends in a backslash"),
        pytest.param("m", (), {"a\\,b": 1.0}, id="backslash and comma in a field key"),
        pytest.param("#m", (), {"f": 1.0}, id="comment"),
        pytest.param("\tm", (), {"f": 1.0}, id="leading tab"),
        pytest.param("m\nn", (), {"f": 1.0}, id="line feed in a measurement"),
        pytest.param("m", (("t", "a\nb"),), {"f": 1.0}, id="line feed in a tag value"),
        pytest.param("m", (("time", "a"),), {"f": 1.0}, id="tag named time"),
        pytest.param("m", (), {"time": 1.0, "f": 1.0}, id="field named time"),
    ],
)
def test_what_line_protocol_cannot_say_is_refused(
    measurement: str, tags: Tags, fields: dict[str, FieldValue]
) -> None:
    with pytest.raises(ValueError, match="line protocol"):
        _printed(measurement, tags, 1, fields)


@pytest.mark.parametrize("name", ["a\\b", "a\\\\b", 'a"b', "a\\ b", "é", "a#", "a\tb", "\\a"])
def test_unusual_names_read_back_as_they_were(name: str) -> None:
    text = format_points([(name, (("t", name),), 1, {"f": "x"})])
    assert list(parse(text, now_ns=0).batch.rows()) == [(name, (("t", name),), 1, {"f": "x"})]
