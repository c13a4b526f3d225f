"""Line protocol: what is printed reads back, and bodies hold what their lines hold one by one.

The compiled reader is built for these tests if a compiler is there; nothing is installed.
"""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import struct
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from hypothesis import given, settings, strategies as st

from gateway.lineprotocol import Parsed, Parser, bulk, format_points, parse, parser as reading
from gateway.lineprotocol.line import (
    BLANKS,
    LineRefusedError,
    PointRefusedError,
    read_line,
    split_lines,
)
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, FieldValue, Tags, series_key

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

Row: TypeAlias = tuple[str, Tags, int, dict[str, FieldValue]]
Canonical: TypeAlias = list[tuple[bytes, int, list[tuple[str, str, object]]]]

NOW_NS = 1_700_000_000_123_456_789

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\\"), min_size=1, max_size=8
).filter(lambda name: name != "time")
measurements = names.filter(lambda name: not name.startswith("#"))
values = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    text,
    st.booleans(),
)
rows = st.tuples(
    measurements,
    st.dictionaries(names, names, max_size=4).map(lambda tags: tuple(sorted(tags.items()))),
    st.integers(MIN_TIME_NS, MAX_TIME_NS),
    st.dictionaries(names, values, min_size=1, max_size=4),
)


def _compiled(folder: Path) -> ModuleType:
    """Return native.c, compiled with every warning an error and what NATIVE_CFLAGS adds."""
    compiler = shutil.which("cc")
    include = sysconfig.get_paths()["include"]
    if compiler is None or not Path(include, "Python.h").exists():
        pytest.skip("no C compiler, or no Python.h")
    source = Path(bulk.__file__).with_name("native.c")
    target = folder / "_native.so"
    flags = ["-O1", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", f"-I{include}"]
    flags += os.environ.get("NATIVE_CFLAGS", "").split()
    subprocess.run([compiler, *flags, str(source), "-o", str(target)], check=True)
    spec = importlib.util.spec_from_file_location("_native", target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=[False, True], ids=["pure", "compiled"])
def native(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[bool]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param:
            module = _compiled(tmp_path_factory.mktemp("native"))
            patch.setattr(bulk, "read_lines", module.read_lines)
        yield bool(request.param)


def _field_bits(fields: dict[str, FieldValue]) -> list[tuple[str, str, object]]:
    """Return fields in a form where 0.0 differs from -0.0 and 1 from True."""
    return sorted(
        (name, type(value).__name__, struct.pack("<d", value) if type(value) is float else value)
        for name, value in fields.items()
    )


def _found(parsed: Parsed) -> Canonical:
    return [
        (series_key(measurement, tags), time, _field_bits(fields))
        for measurement, tags, time, fields in parsed.batch.rows()
    ]


@settings(deadline=None)
@given(st.lists(rows, max_size=30))
def test_printed_points_read_back_to_the_bit(points: list[Row]) -> None:
    expected = [(series_key(m, tags), time, _field_bits(f)) for m, tags, time, f in points]
    parsed = parse(format_points(points), now_ns=0)
    assert not parsed.errors
    assert _found(parsed) == expected


USUAL = [
    b"cpu,host=a usage_user=1.5,usage_sys=2.5,n=3i 10",
    b"cpu,host=b usage_user=7,usage_sys=-0,n=-3i 11",
    b"sys,host=a load1=1,load5=2 5",
    b"sys,host=a up=5i 5",
    b'sys,host=a fmt="up 3, days" 5',
    b'log,host=a m="a\nb=\\"c\\"",n=1i 5',
    b"m\\ x,t=a\\ b f=1i 4",
    b"t,a=1 temp1=5 1",
    b"t,a=2 temp2=5 1",
    b"sw on=t,off=False,n=1 5",
    b"nots f=1",
    b'm,t="q" f=1e5,g=9223372036854775807i 7',
    b"m time=1,f=2 1",
    b"m,time=a f=1 1",
    b"# comment",
]
PIECES = [bytes([symbol]) for symbol in b'\\", =\n\r#\t\x00\x02\x031-.eEi+nNtf'] + [
    b"time", b"T", b'\\"', b"\\ ", b'""', b",f=1", b"=1", b" 5", b"u", b"\xff", b"9" * 20 + b"i",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A line that is nearly one of the usual ones."""
    line = draw(st.sampled_from(USUAL))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(line)))
        cut = draw(st.integers(0, 2))
        line = line[:at] + draw(st.sampled_from([*PIECES, b""])) + line[at + cut :]
    return line


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Some usual lines over and over, and a few that are not."""
    kinds = draw(st.lists(st.sampled_from(USUAL), min_size=1, max_size=4))
    lines = kinds * draw(st.integers(1, 12))
    for line in draw(st.lists(damaged(), max_size=3)):
        lines.insert(draw(st.integers(0, len(lines))), line)
    return draw(st.sampled_from([b"\n", b"\n", b"\n\n", b"\r\n"])).join(lines)


def _one_by_one(body: bytes, default_ns: int) -> tuple[Canonical, list[str], int]:
    """Return the points, the reasons of bad lines and the number of refused points."""
    points: Canonical = []
    reasons: list[str] = []
    refused = 0
    for whole in split_lines(body):
        line = whole.lstrip(BLANKS)
        if line and not line.startswith(b"#"):
            try:
                point = read_line(line)
            except LineRefusedError as error:
                reasons.append(str(error))
            except PointRefusedError:
                refused += 1
            else:
                time = default_ns if point.time_ns is None else point.time_ns
                points.append((point.key, time, _field_bits(point.fields)))
    return points, reasons, refused


@settings(max_examples=150, deadline=None)
@given(
    st.lists(bodies(), min_size=1, max_size=3),
    st.sampled_from([reading.MAX_PIECE_BYTES, 200]),  # the small ones often end within a string
)
def test_bodies_hold_what_their_lines_hold_one_by_one(
    native: bool, texts: list[bytes], piece_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "MAX_PIECE_BYTES", piece_bytes)
        parser = Parser(max_cache_bytes=5_000, native=native)
        assert parser.is_native == native
        _check_one_by_one(parser, texts)


def _check_one_by_one(parser: Parser, texts: list[bytes]) -> None:
    for body in [*texts, *texts]:
        parsed = parser.parse(body, now_ns=NOW_NS)
        points, reasons, refused = _one_by_one(body, NOW_NS)
        assert _found(parsed) == points
        assert [error.reason for error in parsed.errors] == reasons
        assert sum(rejection.points for rejection in parsed.rejected) == refused
        assert len(set(parsed.batch.keys)) == len(parsed.batch.keys)
        assert len(set(parsed.batch.layouts)) == len(parsed.batch.layouts)


@settings(max_examples=100, deadline=None)
@given(st.lists(bodies(), min_size=1, max_size=6))
def test_bodies_taken_together_hold_what_each_holds_alone(native: bool, texts: list[bytes]) -> None:
    parser = Parser(native=native)
    for body in texts:
        parser.parse(body, now_ns=0)
    together = parser.together("ns")
    expected: Canonical = []
    for number, body in enumerate(texts):
        points, reasons, refused = _one_by_one(body, NOW_NS + number)
        if together.add(body, NOW_NS + number):
            assert not reasons
            assert not refused
            expected += points
    batch = together.batch()
    assert _found(Parsed(batch)) == expected
    assert len(set(batch.keys)) == len(batch.keys)
    assert len(set(batch.layouts)) == len(batch.layouts)


def _number_texts(seed: int) -> list[str]:
    """Return finite numbers in many notations."""
    rng = random.Random(seed)
    texts = []
    for _ in range(2_000):
        bits = struct.unpack("<d", rng.randbytes(8))[0]
        texts += [
            repr(bits),
            f"{rng.random() * 10.0 ** rng.randrange(-5, 20):.{rng.randrange(1, 25)}f}",
            str(rng.getrandbits(rng.randrange(1, 80))),
            f"{rng.getrandbits(64)}.{rng.getrandbits(60)}e{rng.randrange(-330, 280)}",
            f"-{rng.getrandbits(54) | 1 << 53}.5",
            f"{rng.getrandbits(70)}E+{rng.randrange(30)}",
        ]
    return [text for text in texts if text not in ("nan", "inf", "-inf")]


def test_numbers_are_the_nearest_double_and_integers_exact(native: bool) -> None:
    parser = Parser(native=native)
    rng = random.Random(7)
    floats = _number_texts(7)
    integers = [rng.getrandbits(64) - 2**63 for _ in floats]
    body = "\n".join(f"m f={f},i={i}i 1" for f, i in zip(floats, integers, strict=True)).encode()
    for _ in range(2):
        values = parser.parse(body, now_ns=0).batch.values
        assert values[::2].tobytes() == b"".join(struct.pack("=d", float(text)) for text in floats)
        assert values[1::2].tolist() == integers


def test_compiled_reader_reads_all_usual_lines_it_has_seen(native: bool) -> None:
    body = b"".join(line + b"\n" for line in USUAL[:5] + USUAL[6:11]) * 20
    parser = Parser(native=native)
    first, second = (_found(parser.parse(body, now_ns=5)) for _ in range(2))
    assert first == second == _one_by_one(body, 5)[0]
    if native:
        assert parser._bulk.known(1).read(body, 0, 5) == len(body)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_read_without_an_exception(body: bytes) -> None:
    parsed = parse(body, now_ns=0)
    assert len(parsed.batch.times) == len(parsed.batch)
