"""Batches and ranges as bytes."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tinyflux.batch import BatchBuilder, PointBatch, series_key
from tinyflux.columnar.batchcodec import (
    Ranges,
    decode,
    decode_ranges,
    decode_rewrite,
    encode,
    encode_ranges,
    encode_rewrite,
)

FIELD_VALUES = st.one_of(
    st.floats(), st.integers(-(2**63), 2**63 - 1), st.text(), st.booleans(), st.none()
)
POINTS = st.lists(
    st.tuples(
        st.text(),
        st.dictionaries(st.text(max_size=5), st.one_of(st.text(), st.none()), max_size=3),
        st.integers(-(2**63) + 2, 2**63 - 2),
        st.dictionaries(st.text(max_size=5), FIELD_VALUES, max_size=4),
    ),
    max_size=6,
)


def batch_of(points: list[tuple[Any, ...]]) -> PointBatch:
    builder = BatchBuilder()
    for measurement, tags, time, fields in points:
        builder.add(series_key(measurement, tags.items()), time, fields.items())
    return builder.build()


def some_batch() -> PointBatch:
    return batch_of(
        [
            ("cpu", {"host": "a"}, 1, {"f": 0.5, "s": "up", "b": True}),
            ("cpu", {"host": "b"}, 2, {"i": 7, "n": None}),
            ("mem", {}, 3, {}),
            ("cpu", {"host": "a"}, 4, {"f": 1.5, "s": "down", "b": False}),
        ]
    )


def some_ranges() -> Ranges:
    keys = [series_key("cpu", [("host", host)]) for host in "ab"]
    return Ranges(keys, np.array([0, 1, 0], np.int32), np.array([1, 2, 3]), np.array([4, 5, 6]))


@given(points=POINTS)
@settings(max_examples=100, deadline=None)
def test_a_batch_comes_back_as_it_was(points: list[tuple[Any, ...]]) -> None:
    batch = batch_of(points)
    back = decode(encode(batch))
    assert back.keys == batch.keys
    assert back.layouts == batch.layouts
    assert repr(list(back.rows())) == repr(list(batch.rows()))


def test_a_decoded_batch_owns_its_memory() -> None:
    back = decode(encode(some_batch()))
    for array in (back.times, back.values, back.key_rows, back.layout_rows):
        assert array.flags.owndata


def test_ranges_and_rewrites_come_back_as_they_were() -> None:
    ranges, batch = decode_rewrite(encode_rewrite(some_ranges(), some_batch()))
    for back in (ranges, decode_ranges(encode_ranges(some_ranges()))):
        assert list(back.keys) == list(some_ranges().keys)
        assert back.key_rows.tolist() == [0, 1, 0]
        assert back.starts.tolist() == [1, 2, 3]
        assert back.ends.tolist() == [4, 5, 6]
    assert list(batch.rows()) == list(some_batch().rows())


def test_a_batch_of_nothing_has_an_encoding() -> None:
    assert len(decode(encode(BatchBuilder().build()))) == 0


@pytest.mark.parametrize("what", ["batch", "ranges", "rewrite"])
def test_a_payload_of_another_length_is_refused(what: str) -> None:
    encoded = {
        "batch": encode(some_batch()),
        "ranges": encode_ranges(some_ranges()),
        "rewrite": encode_rewrite(some_ranges(), some_batch()),
    }[what]
    read = {"batch": decode, "ranges": decode_ranges, "rewrite": decode_rewrite}[what]
    for size in range(len(encoded)):
        with pytest.raises(ValueError, match=r".+"):
            read(encoded[:size])
    with pytest.raises(ValueError, match="too long"):
        read(encoded + b"\0")


def test_every_change_of_the_head_of_a_batch_is_refused() -> None:
    encoded = bytearray(encode(some_batch()))
    for at in range(20):  # the five counts
        encoded[at] ^= 1
        with pytest.raises(ValueError, match=r".+"):
            decode(bytes(encoded))
        encoded[at] ^= 1


@pytest.mark.parametrize("part", ["key_rows", "layout_rows", "strings"])
def test_a_number_that_points_nowhere_is_refused(part: str) -> None:
    batch = some_batch()
    if part == "strings":
        batch.strings.pop()
    else:
        getattr(batch, part)[1] = -1
        if part == "layout_rows":  # as many slots as before
            batch.values = batch.values[:-1]
    with pytest.raises(ValueError, match=r"outside 0\.\.|slots"):
        decode(encode(batch))


@pytest.mark.parametrize(
    "names",
    [b"[]", b"{}", b"[1,2]", b"[[[[1,1]]],[]]", b'[[[["f",9]]],[]]', b'[[[["f",1],["f",1]]],[]]'],
)
def test_names_of_another_shape_are_refused(names: bytes) -> None:
    payload = struct.pack("<IIIIII", 0, 0, 0, 0, len(names), 0) + names
    with pytest.raises(ValueError, match=r".+"):
        decode(payload)


def test_text_that_is_no_unicode_is_refused() -> None:
    batch = batch_of([("cpu", {}, 0, {"s": "x"})])
    batch.strings[0] = "\ud800"
    with pytest.raises(ValueError, match="not valid Unicode"):
        encode(batch)
