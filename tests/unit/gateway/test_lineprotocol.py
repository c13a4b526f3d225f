"""Bodies: what the recorded cases cannot say, and where reading in bulk could differ."""

from __future__ import annotations

import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from gateway.lineprotocol import LineError, Parsed, Parser, parse, unit_ns
from gateway.lineprotocol.line import split_lines
from gateway.lineprotocol.parser import MAX_ERRORS, MAX_LINE_TEXT, piece_end
from tinyflux.batch import FieldType, series_key

NOW_NS = 1_700_000_000_123_456_789


def _rows(body: bytes, parser: Parser | None = None) -> list[tuple[object, ...]]:
    """Return measurement, tags, time and fields of each point of a body without bad lines."""
    parsed = (parser or Parser()).parse(body, now_ns=NOW_NS)
    assert not parsed.errors
    assert not parsed.rejected
    return list(parsed.batch.rows())


def _many(line: bytes, n: int = 50) -> bytes:
    return b"\n".join([line] * n) + b"\n"


def _reasons(parsed: Parsed) -> list[str]:
    return [error.reason for error in parsed.errors]


def test_batch_has_the_columns_of_the_points() -> None:
    batch = parse(b'm,b=2,a=1 f=1.5,i=2i,s="x",t=T 7\nm,a=1,b=2 i=3i 8\n', now_ns=0).batch
    assert batch.keys == [series_key("m", [("a", "1"), ("b", "2")])]
    assert batch.key_rows.tolist() == [0, 0]
    assert batch.times.tolist() == [7, 8]
    assert batch.layouts == [
        (
            ("f", FieldType.FLOAT),
            ("i", FieldType.INTEGER),
            ("s", FieldType.STRING),
            ("t", FieldType.BOOLEAN),
        ),
        (("i", FieldType.INTEGER),),
    ]
    assert batch.layout_rows.tolist() == [0, 1]
    assert batch.values[:1].view(np.float64).tolist() == [1.5]
    assert batch.values[1:].tolist() == [2, 0, 1, 3]
    assert batch.strings == ["x"]


@pytest.mark.parametrize("body", [b"", b"\n", b"\r\n", b" \n\t\n", b"# only\n", b"#" * 500])
def test_body_without_points_gives_an_empty_batch(body: bytes) -> None:
    parsed = parse(body, now_ns=NOW_NS)
    assert len(parsed.batch) == 0
    assert parsed.errors == []
    assert parsed.batch.times.dtype == np.int64


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("", NOW_NS),
        ("ns", NOW_NS),
        ("u", 1_700_000_000_123_456_000),
        ("us", 1_700_000_000_123_456_000),
        ("µ", 1_700_000_000_123_456_000),
        ("ms", 1_700_000_000_123_000_000),
        ("s", 1_700_000_000_000_000_000),
        ("m", 1_699_999_980_000_000_000),
        ("h", 1_699_999_200_000_000_000),
    ],
)
@pytest.mark.parametrize("n", [1, 50], ids=["one", "bulk"])
def test_missing_timestamps_are_now_truncated_to_the_precision(
    precision: str, expected: int, n: int
) -> None:
    batch = parse(_many(b"m f=1", n), precision=precision, now_ns=NOW_NS).batch
    assert batch.times.tolist() == [expected] * n


@pytest.mark.parametrize("stamp", [b"1,5", b"1,", b",1", b",", b"1-5", b"--1", b"1.5", b"1e3"])
@pytest.mark.parametrize("n", [0, 50], ids=["one", "bulk"])
def test_bad_timestamp_is_refused_alone(stamp: bytes, n: int) -> None:
    body = _many(b"m f=1 1", n) + b"m,t=" + b"a" * 200 + b" f=1 " + stamp
    parsed = parse(body, now_ns=0)
    assert _reasons(parsed) == ["bad timestamp"]
    assert len(parsed.batch) == n


def test_blanks_behind_the_fields_are_no_timestamp() -> None:
    line = b"m,t=" + b"a" * 200 + b" f=1 "
    for n in (1, 2, 50):
        assert parse(_many(line, n), now_ns=NOW_NS).batch.times.tolist() == [NOW_NS] * n


def test_unknown_precision_is_refused() -> None:
    with pytest.raises(ValueError, match='invalid precision "x"'):
        unit_ns("x")
    with pytest.raises(ValueError, match="invalid precision"):
        parse(b"m f=1", precision="x", now_ns=0)


def test_lines_with_and_without_timestamp_mix_in_order() -> None:
    body = b"".join(b"m f=%di %d\nm f=%di\n" % (n, n, n) for n in range(40))
    batch = parse(body, now_ns=NOW_NS).batch
    assert batch.times.tolist() == [time for n in range(40) for time in (n, NOW_NS)]
    assert batch.values.tolist() == [n for n in range(40) for _ in range(2)]


@pytest.mark.parametrize(
    "line",
    [
        b"m\xff f=1 1",
        b"m,t\xff=a f=1 1",
        b"m,t=\xff f=1 1",
        b"m \xff=1 1",
        b'm f="\xff" 1',
        b'm f="\xed\xa0\x80" 1',
    ],
)
def test_line_that_is_not_utf8_is_refused_alone(line: bytes) -> None:
    parsed = parse(_many(b"m f=1 1", 20) + line + b"\n" + _many(b"m f=2 2", 20), now_ns=0)
    assert _reasons(parsed) == ["invalid UTF-8"]
    assert "\ufffd" in parsed.errors[0].line
    assert len(parsed.batch) == 40


@pytest.mark.parametrize("symbol", [b"\x00", b"\x01", b"\x02", b"\x03", b"\x1f", b"\x7f"])
def test_control_bytes_are_kept(symbol: bytes) -> None:
    line = b'm%st,t=a%sb f%s=1,s="%s" 1\n' % ((symbol,) * 4)
    text = symbol.decode()
    expected = ("m" + text + "t", (("t", f"a{text}b"),), 1, {"f" + text: 1.0, "s": text})
    assert _rows(line * 50) == [expected] * 50


@pytest.mark.parametrize("value", [b"5\x02", b"0\x02", b"1\x03", b"0\x03", b"\x02", b"1\x01"])
def test_marks_of_the_bulk_reader_in_a_body_are_no_values(value: bytes) -> None:
    parsed = parse(_many(b'm f=1,s="x" 1') + b"m f=" + value + b" 1\n", now_ns=0)
    assert parsed.bad_lines == 1
    assert len(parsed.batch) == 50


@pytest.mark.parametrize(
    ("line", "size"),
    [
        pytest.param(b"m" * 65_530 + b" f=1 1", 0, id="longest measurement"),
        pytest.param(b"m" * 65_531 + b" f=1 1", 65_536, id="measurement and field key too long"),
        pytest.param(b"m" * 65_536 + b" f=1 1", 65_536, id="measurement too long"),
        pytest.param(b"m,t=" + b"a" * 65_526 + b" f=1 1", 0, id="longest tag value"),
        pytest.param(b"m,t=" + b"a" * 65_527 + b" f=1 1", 65_536, id="tag value too long"),
        pytest.param(b"m " + b"f" * 65_530 + b"=1 1", 0, id="longest field key"),
        pytest.param(b"m " + b"f" * 65_531 + b"=1 1", 65_536, id="field key too long"),
    ],
)
def test_keys_are_limited_to_65535_bytes(line: bytes, size: int) -> None:
    parsed = parse(line, now_ns=0)
    expected = [f"max key length exceeded: {size} > 65535"] if size else []
    assert _reasons(parsed) == expected
    assert len(parsed.batch) == (0 if size else 1)


@pytest.mark.parametrize("n", [1, 99, 100, 101, 200, 400])
def test_any_number_of_tags_is_fine(n: int) -> None:
    tags = b"".join(b",t%03d=v" % i for i in range(n))
    [(measurement, found, _, _)] = _rows(b"m" + tags + b" f=1 1")
    assert measurement == "m"
    assert found == tuple((f"t{i:03}", "v") for i in range(n))


def test_error_says_it_as_influxd_does() -> None:
    [error] = parse(b"m f=x", now_ns=0).errors
    assert error == LineError("m f=x", "invalid boolean")
    assert str(error) == "unable to parse 'm f=x': invalid boolean"


def test_errors_are_bounded_in_number_and_text() -> None:
    parsed = parse((b"m f=" + b"x" * 5000 + b"\n") * (MAX_ERRORS + 5), now_ns=0)
    assert parsed.bad_lines == MAX_ERRORS + 5
    assert len(parsed.errors) == MAX_ERRORS
    assert {len(error.line) for error in parsed.errors} == {MAX_LINE_TEXT}


def test_bad_lines_are_in_order_and_the_good_ones_stay_in_order() -> None:
    lines = [b"m f=%di %d" % (n, n) for n in range(2000)]
    bad = [0, 7, 8, 1000, 1999]
    for n in bad:
        lines[n] = b"m f=x%d" % n
    parsed = parse(b"\n".join(lines), now_ns=0)
    good = [n for n in range(2000) if n not in bad]
    assert [error.line for error in parsed.errors] == [f"m f=x{n}" for n in bad]
    assert parsed.batch.times.tolist() == good
    assert parsed.batch.values.tolist() == good


def test_body_of_only_bad_lines_gives_them_all() -> None:
    parsed = parse(b"\n".join(b"m%d" % n for n in range(300)), now_ns=0)
    assert [error.line for error in parsed.errors] == [f"m{n}" for n in range(300)]
    assert set(_reasons(parsed)) == {"missing fields"}


def test_strings_of_parts_read_apart_keep_their_places() -> None:
    lines = [b'm s="%d",f=%d %d' % (n, n, n) for n in range(200)]
    lines[100] = b"bad"
    parsed = parse(b"\n".join(lines), now_ns=0)
    expected = [({"s": str(n), "f": float(n)}, n) for n in range(200) if n != 100]
    assert [(fields, time) for _, _, time, fields in parsed.batch.rows()] == expected
    assert len(parsed.batch.layouts) == 1


def test_rejections_are_counted_by_reason_tags_first() -> None:
    body = b"a time=1 1\nb,time=x f=1 1\na time=2 2\nc f=1 1\nb,time=y f=2 2\n"
    parsed = parse(body, now_ns=0)
    assert [(rejection.points, rejection.reason) for rejection in parsed.rejected] == [
        (2, 'invalid tag key: input tag "time" on measurement "b" is invalid'),
        (2, 'invalid field name: input field "time" on measurement "a" is invalid'),
    ]
    assert [measurement for measurement, *_ in parsed.batch.rows()] == ["c"]


@pytest.mark.parametrize(
    "text",
    [
        "0", "-0", "-0.0", "1", "1.", ".5", "-.5", "007.5", "1e5", "1E+5", "5e-324", "1e-400",
        "0.1", "0.30000000000000004", "9007199254740993", "18446744073709551615",
        "18446744073709551616", "-9223372036854775809", "123456789012345678901234567890",
        "2.2250738585072011e-308", "1.7976931348623157e308", "8.41245432111123e-15",
        "9" * 300, "0." + "0" * 300 + "1", "1" * 25 + "." + "3" * 25,
    ],
)  # fmt: skip
def test_floats_are_the_nearest_double_to_the_bit(text: str) -> None:
    expected = struct.pack("<d", float(text))
    for body in (b"m f=%s 1" % text.encode(), _many(b"m f=%s,g=1.5 1" % text.encode())):
        batch = parse(body, now_ns=0).batch
        assert batch.values[:1].tobytes() == expected


@pytest.mark.parametrize("text", ["0", "-0", "007", str(2**63 - 1), str(-(2**63)), "9" * 18])
def test_integers_are_exact(text: str) -> None:
    for body in (b"m f=%si 1" % text.encode(), _many(b"m f=%si,g=1.5 1" % text.encode())):
        assert parse(body, now_ns=0).batch.values[0] == int(text)


def test_integer_beyond_int64_is_refused_beside_good_ones() -> None:
    parsed = parse(_many(b"m f=1i 1") + b"m f=9223372036854775808i 1\n", now_ns=0)
    assert _reasons(parsed) == [
        "unable to parse integer 9223372036854775808: "
        'strconv.ParseInt: parsing "9223372036854775808": value out of range'
    ]
    assert len(parsed.batch) == 50


def test_fraction_with_suffix_i_is_refused_in_bulk() -> None:
    parsed = parse(_many(b"m f=1i 1") + b"m f=1.5i 1\nm f=1e2i 1\n", now_ns=0)
    assert _reasons(parsed) == ["invalid number", "invalid number"]


def test_fields_of_a_series_may_change_and_change_back() -> None:
    parser = Parser()
    one, two = _many(b"m f=1,g=2i 1"), _many(b"m f=1i 1")
    for body, fields in [
        (one, {"f": 1.0, "g": 2}),
        (two, {"f": 1}),
        (one, {"f": 1.0, "g": 2}),
        (_many(b'm g="x",f=t 1'), {"g": "x", "f": True}),
    ]:
        assert {repr(row[3]) for row in _rows(body, parser)} == {repr(fields)}


def test_field_keys_that_differ_in_digits_only_are_told_apart() -> None:
    body = b"".join(b"a,t=%d temp%d=%d 1\n" % (n, n, n) for n in range(60))
    parser = Parser()
    for _ in range(2):
        fields = [row[3] for row in _rows(body, parser)]
        assert fields == [{f"temp{n}": float(n)} for n in range(60)]


def test_separators_in_the_wrong_order_are_refused_in_bulk() -> None:
    parser = Parser()
    parser.parse(_many(b"m a=1,b=2 1"), now_ns=0)
    for bad in (b"m a,1=b,2 1", b"m a=1=b,2 1", b"m a,1=b=2 1", b"m a=1,b,2= 1", b"m a=1b=2,, 1"):
        parsed = parser.parse(_many(b"m a=1,b=2 1") + bad + b"\n", now_ns=0)
        assert parsed.bad_lines == 1
        assert len(parsed.batch) == 50


@pytest.mark.parametrize(
    "value",
    [b"null", b"[1", b"1]", b"{}", b"0x1", b"1\t", b"+1", b"1_0", b"01e", b"--1", b"", b"i"],
)
def test_what_only_json_would_take_is_refused_in_bulk(value: bytes) -> None:
    parser = Parser()
    parser.parse(_many(b"m a=1,b=2i 1"), now_ns=0)
    parsed = parser.parse(_many(b"m a=1,b=2i 1") + b"m a=%s,b=2i 1\n" % value, now_ns=0)
    assert parsed.bad_lines == 1
    assert len(parsed.batch) == 50


def test_words_of_booleans_in_tags_are_text() -> None:
    rows = _rows(_many(b"m,ok=true,t=t ok=true,t=F 1"))
    assert rows == [("m", (("ok", "true"), ("t", "t")), 1, {"ok": True, "t": False})] * 50


def test_quotes_in_tags_are_text() -> None:
    rows = _rows(_many(b'm,t="a",u="b" f="x",g=1 1'))
    assert rows == [("m", (("t", '"a"'), ("u", '"b"')), 1, {"f": "x", "g": 1.0})] * 50


def test_escaped_blanks_in_heads_are_read() -> None:
    rows = _rows(_many(b"my\\ m,a\\ b=c\\ d f=1i 1"))
    assert rows == [("my m", (("a b", "c d"),), 1, {"f": 1})] * 50


def test_strings_with_line_feeds_commas_and_escapes_are_read_in_bulk() -> None:
    rows = _rows(_many(b'm s="a\n b,c=\\"d\\" \\\\ \\e",f=1 5'))
    assert rows == [("m", (), 5, {"s": 'a\n b,c="d" \\ \\e', "f": 1.0})] * 50


def test_carriage_returns_in_strings_stay() -> None:
    rows = _rows(_many(b'm s="a\r\nb" 5\r'))
    assert rows == [("m", (), 5, {"s": "a\r\nb"})] * 50


def test_byte_order_mark_is_ignored() -> None:
    assert _rows(b"\xef\xbb\xbfm f=1 1") == [("m", (), 1, {"f": 1.0})]


def test_series_keys_are_distinct_whatever_the_order_of_tags() -> None:
    batch = parse(b"m,a=1,b=2 f=1 1\nm,b=2,a=1 f=2 2\n" * 30, now_ns=0).batch
    assert batch.keys == [series_key("m", [("a", "1"), ("b", "2")])]


def test_layouts_are_distinct_across_parts() -> None:
    batch = parse(_many(b"m f=1,g=2 1") + b"m f=1.,g=2 1\nbad\n", now_ns=0).batch
    assert batch.layouts == [(("f", FieldType.FLOAT), ("g", FieldType.FLOAT))]
    assert len(batch) == 51


def test_caches_stay_within_their_bound() -> None:
    parser = Parser(max_cache_bytes=100_000)
    for start in range(0, 20_000, 500):
        body = b"".join(b"m,t=%d f%d=1 1\n" % (n, n) for n in range(start, start + 500))
        assert len(parser.parse(body, now_ns=0).batch) == 500
        assert len(parser._bulk._heads) <= 1_000
        assert len(parser._bulk._templates) <= 1_000


def test_large_body_is_read_in_pieces_of_whole_lines() -> None:
    lines = [b"m,t=%d f=%di %d" % (n % 7, n, n) for n in range(30_000)]
    body = b"\n".join(lines)
    parsed = Parser(native=False).parse(b"\n".join([body, body, body]), now_ns=0)
    assert parsed.batch.values.tolist() == list(range(30_000)) * 3
    assert len(parsed.batch.keys) == 7


@pytest.mark.parametrize(
    "body",
    [b"m f=1 1\n" * 50, b'm f="a\n\nb",g=1 1\r\n\n' * 50, b"a\\\nb f=1 1\n\n" * 50, b"x" * 400],
    ids=["plain", "strings", "backslashes", "one line"],
)
def test_pieces_are_whole_lines_of_about_a_size(body: bytes) -> None:
    is_plain = b'"' not in body and b"\\" not in body
    start, lines = 0, []
    while start < len(body):
        end = piece_end(body, start, 50, is_plain=is_plain)
        assert start < end <= start + 70 or body == b"x" * 400
        lines += split_lines(body[start:end])
        start = end
    assert lines == split_lines(body)


HOSTILE = """
import resource
from gateway.lineprotocol import Parser
parser, calls, body = Parser(), [], b"x\\n" * 1_500_000
parser.parse(b"m v=1 1\\n" * 1000, now_ns=0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
parsed = parser.parse(body, now_ns=0, between=lambda: calls.append(1))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert parsed.bad_lines == 1_500_000 and len(parsed.errors) == 1000
print(1024 * (after - before) / len(body), len(calls))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit there")
def test_body_of_bad_lines_takes_no_more_memory_than_itself_and_lets_others_in() -> None:
    answer = subprocess.run([sys.executable, "-c", HOSTILE], check=True, capture_output=True)
    ratio, calls = map(float, answer.stdout.split())
    assert ratio < 5  # it was 20 when all lines were split at once
    assert calls > 10


def test_only_one_carriage_return_before_a_line_feed_is_ignored() -> None:
    parsed = parse(b"m f=1 1\r\n" * 9 + b"bad\n" + b"m f=1 2\r\r\n" * 9, now_ns=0)
    assert parsed.batch.times.tolist() == [1] * 9
    assert {error.reason for error in parsed.errors[1:]} == {"bad timestamp"}
    assert parsed.bad_lines == 10


def test_other_threads_run_while_a_long_body_of_known_lines_is_read() -> None:
    line = b"cpu,host=a f=1,g=2,h=3 1\n"
    parser = Parser()
    parser.parse(line, now_ns=NOW_NS)
    body, starts, is_over = line * 400_000, 0, threading.Event()

    def count() -> None:
        nonlocal starts
        while not is_over.is_set():
            starts += 1
            time.sleep(0)

    before_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    other = threading.Thread(target=count)
    other.start()
    try:
        known = parser._bulk.known(1) if parser.is_native else None
        first = starts
        if known is None:
            parser.parse(body, now_ns=NOW_NS)
        else:
            assert known.read(body, 0, NOW_NS) == len(body)  # one call of compiled code
        assert starts - first > 2  # held to the end it would be one or none
    finally:
        is_over.set()
        other.join()
        sys.setswitchinterval(before_s)


def test_what_is_done_between_known_lines_may_read_others() -> None:
    line, other = b'cpu,host=a f=1,s="x" 1\n', b'mem,host=b\\ c f=2,s="y" 2\n'
    parser = Parser(max_cache_bytes=1000)  # so that it forgets in between
    parser.parse(line + other, now_ns=NOW_NS)
    inner: list[Parsed] = []

    def between() -> None:
        new = b"m%d v=1 1\n" % len(inner)
        inner.append(parser.parse(new + other * 3, now_ns=NOW_NS))

    rows = list(parser.parse(line * 5000, now_ns=NOW_NS, between=between).batch.rows())
    assert inner
    assert rows == [*_rows(line)] * 5000
    assert all(
        list(parsed.batch.rows()) == _rows(b"m%d v=1 1\n" % n + other * 3)
        for n, parsed in enumerate(inner)
    )


def test_error_between_known_lines_is_raised() -> None:
    line = b"cpu,host=a f=1 1\n"
    parser = Parser()
    parser.parse(line, now_ns=NOW_NS)

    def fail() -> None:
        raise KeyError("stop")

    if parser.is_native:
        with pytest.raises(KeyError, match="stop"):
            parser.parse(line * 5000, now_ns=NOW_NS, between=fail)
    assert len(parser.parse(line * 5000, now_ns=NOW_NS).batch) == 5000


def test_batch_does_not_view_the_body() -> None:
    body = bytearray(_many(b'm f=1,s="x" 1'))
    parsed = parse(bytes(body), now_ns=0)
    for array in (parsed.batch.times, parsed.batch.values, parsed.batch.key_rows):
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        assert not isinstance(base.base, bytes)


@pytest.mark.parametrize("native", [True, False])
def test_body_of_bad_lines_counts_all_keeps_some_and_loses_no_good_one(*, native: bool) -> None:
    calls: list[int] = []
    body = b"x\n" * 5000 + b"m v=1 1\n" + b"no field\n" * 3000 + b"m v=2 2\n" + b"x v=1z\n" * 2000
    parsed = Parser(native=native).parse(body, now_ns=0, between=lambda: calls.append(1))
    assert parsed.batch.times.tolist() == [1, 2]
    assert parsed.bad_lines == 10_000
    assert len(parsed.errors) == 1000
    assert {str(error) for error in parsed.errors} == {"unable to parse 'x': missing fields"}
    assert calls
