"""MessagePack documents: recorded from influxd 1.6.7, and read back by the format's own library."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack
import numpy as np
import pytest

from gateway.encoding.msgpack import AnswerChanged, MsgpackEncoder, pack
from gateway.results import Result, Series
from tests.unit.gateway.tables import by_tag, every_type, failed, many_rows, times
from tinyflux.batch import FieldType
from tinyflux.columnar.base import FieldColumn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.results import Column


def printed(results: list[Result], epoch_ns: int = 0) -> bytes:
    return b"".join(MsgpackEncoder(epoch_ns, len(results)).document(results))


def unpacked(document: bytes) -> dict[str, list[dict[str, object]]]:
    def time(kind: int, data: bytes) -> int:
        assert kind == 5
        seconds, ns = int.from_bytes(data[:8], signed=True), int.from_bytes(data[8:], signed=True)
        return seconds * 1_000_000_000 + ns

    found: dict[str, list[dict[str, object]]] = msgpack.unpackb(document, ext_hook=time)
    return found


def test_every_type_reads_back() -> None:
    [result] = unpacked(printed([Result(0, [every_type()])]))["results"]
    assert result == {
        "statement_id": 0,
        "series": [
            {
                "name": "m",
                "columns": ["time", "b", "f", "g", "host", "i", "s"],
                "values": [
                    [-1_500_000_001, True, 1.0, 0.5, "a", 3, 'x<>&é,"q'],
                    [1_500_000_000_000_000_000, None, 0.0, 123456789012345680.0, "c d", None, None],
                    [1_500_000_000_123_456_789, None, 1e21, 1e-7, "b", None, None],
                ],
            }
        ],
    }


def test_time_is_the_extension_influxd_sends() -> None:
    series = Series("m", ["time"], [times(1_500_000_000_123_456_789)], has_time=True)
    assert bytes.fromhex("c70c0500000000" + "59682f00" + "075bcd15") in printed(
        [Result(0, [series])]
    )


def test_whole_floats_stay_floats() -> None:
    assert bytes.fromhex("cb3ff0000000000000") in printed([Result(0, [by_tag("a", 0, 1.0)])])


def test_columns_without_text_read_back_with_nulls_between() -> None:
    n = 1000
    valid = np.arange(n) % 3 == 0
    series = Series(
        "m",
        ["time", "f", "i", "b"],
        [
            times(*range(n)),
            FieldColumn(FieldType.FLOAT, np.arange(n) / 4, valid),
            FieldColumn(FieldType.INTEGER, np.arange(n) - 500, ~valid),
            FieldColumn(FieldType.BOOLEAN, np.arange(n) % 2 == 0, valid),
        ],
        has_time=True,
    )
    [result] = unpacked(printed([Result(0, [series])]))["results"]
    expected = [
        [
            i,
            i / 4 if i % 3 == 0 else None,
            None if i % 3 == 0 else i - 500,
            i % 2 == 0 if i % 3 == 0 else None,
        ]
        for i in range(n)
    ]
    assert result["series"] == [
        {"name": "m", "columns": ["time", "f", "i", "b"], "values": expected}
    ]


def test_epoch_makes_times_integers() -> None:
    [result] = unpacked(printed([Result(0, [many_rows(3)])], 1_000_000_000))["results"]
    assert result["series"] == [
        {"name": "m", "columns": ["time", "f"], "values": [[0, 0.0], [1, 0.5], [2, 1.0]]}
    ]


def test_series_is_always_there_and_an_error_stands_alone() -> None:
    document = unpacked(printed([Result(0), failed(1, "database not found: nodb")]))
    assert document == {
        "results": [{"statement_id": 0, "series": []}, {"error": "database not found: nodb"}]
    }


def test_optional_keys_read_back() -> None:
    series = by_tag("a", 0, 1.0)
    series.partial = True
    result = Result(0, [series], [("warning", "careful")], partial=True)
    [found] = unpacked(printed([result]))["results"]
    assert found["messages"] == [{"level": "warning", "text": "careful"}]
    assert found["partial"] is True
    assert found["series"] == [
        {
            "name": "m",
            "tags": {"host": "a"},
            "columns": ["time", "f"],
            "values": [[0, 1.0]],
            "partial": True,
        }
    ]


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        127,
        128,
        -1,
        2**63 - 1,
        -(2**63),
        2**64 - 1,
        1.5,
        "",
        "x" * 31,
        "x" * 32,
    ]
    + ["x" * 255, "é" * 200, "x" * 65536, [], [1] * 15, [1] * 16, [1] * 70_000]
    + [{str(i): i for i in range(n)} for n in (0, 15, 16)],
    ids=lambda value: repr(value)[:20],
)
def test_packed_value_reads_back(value: object) -> None:
    assert msgpack.unpackb(pack(value)) == value


def test_request_error_is_one_map() -> None:
    assert msgpack.unpackb(MsgpackEncoder().error("x")) == {"error": "x"}


class Made:
    """Series that are made when they are taken, as `takes` says; counts how often."""

    def __init__(self, *takes: list[Series]) -> None:
        self.takes = takes
        self.n_taken = 0

    def __iter__(self) -> Iterator[Series]:
        self.n_taken += 1
        return iter(self.takes[min(self.n_taken, len(self.takes)) - 1])


def part(name: str, rows: range, *, is_open: bool = False, partial: bool = False) -> Series:
    data: list[Column] = [times(*rows), FieldColumn(FieldType.INTEGER, np.array(rows))]
    return Series(name, ["time", "v"], data, has_time=True, is_open=is_open, partial=partial)


PARTS = [
    part("a", range(3), is_open=True),
    part("a", range(3, 5)),
    part("b", range(7)),
    part("c", range(2), is_open=True),
    part("c", range(2, 3), is_open=True),
    part("c", range(3, 4), partial=True),
]


@pytest.mark.parametrize("held", [0, 6, 100])
def test_parts_of_series_are_one(held: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.encoding.msgpack._HELD_ROWS", held)
    monkeypatch.setattr("gateway.encoding.msgpack._PIECE_CELLS", 4)
    made = Made(PARTS)
    [result] = unpacked(printed([Result(0, made)], 1))["results"]
    assert result["series"] == [
        {"name": "a", "columns": ["time", "v"], "values": [[n, n] for n in range(5)]},
        {"name": "b", "columns": ["time", "v"], "values": [[n, n] for n in range(7)]},
        {
            "name": "c",
            "columns": ["time", "v"],
            "values": [[n, n] for n in range(4)],
            "partial": True,
        },
    ]
    assert made.n_taken == (1 if held == 100 else 2)


@pytest.mark.parametrize(
    "again", [PARTS[:2], [*PARTS, part("d", range(1))], [part("a", range(4)), *PARTS[2:]], []]
)
def test_a_changed_answer_is_broken_off(
    again: list[Series], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.encoding.msgpack._HELD_ROWS", 0)
    with pytest.raises(AnswerChanged):
        printed([Result(0, Made(PARTS, again))], 1)
