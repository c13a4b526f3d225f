"""CSVStorage: the bytes it writes and reads, access modes, damage, rewrites."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tinyflux import CSVStorage, FieldQuery, Point, TagQuery, TimeQuery, TinyFlux, TypedPoint
from tinyflux.errors import CorruptionError
from tinyflux.storages import create_file

T = datetime(2024, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
EVERYTHING = TagQuery().noop()
ROW = b"2024-01-01T00:00:00,_default\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is going to be."""
    return tmp_path / "db.csv"


def open_db(path: Path, **kwargs: Any) -> TinyFlux:
    return TinyFlux(path, **kwargs)


# What is written


@pytest.mark.parametrize(
    ("point", "row"),
    [
        (Point(time=T), b"2024-01-01T00:00:00,_default\r\n"),
        (
            Point(
                time=T + timedelta(microseconds=1),
                measurement="cpu",
                tags={"host": "a", "dc": None, "note": ""},
                fields={"usage": 1.0, "idle": 99.5, "gap": None},
            ),
            b"2024-01-01T00:00:00.000001,cpu,_tag_host,a,_tag_dc,_none,_tag_note,"
            b",_field_usage,1.0,_field_idle,99.5,_field_gap,_none\r\n",
        ),
        (
            Point(
                time=T + SECOND,
                measurement='we,ird "m"',
                tags={"k,1": "line1\nline2"},
                fields={
                    "big": 2**60,
                    "nan": float("nan"),
                    "ninf": float("-inf"),
                    "neg0": -0.0,
                    "tiny": 5e-324,
                },
            ),
            b'2024-01-01T00:00:01,"we,ird ""m""","_tag_k,1","line1\nline2"'
            b",_field_big,1152921504606846976,_field_nan,nan,_field_ninf,-inf,_field_neg0,-0.0"
            b",_field_tiny,5e-324\r\n",
        ),
        (Point(time=T, measurement=""), b"2024-01-01T00:00:00,_none\r\n"),
        (
            Point(time=T, fields={"i": 1, "e": 10**16, "p": 2**53}),
            b"2024-01-01T00:00:00,_default,_field_i,1.0,_field_e,10000000000000000"
            b",_field_p,9007199254740992.0\r\n",
        ),
        (
            Point(time=datetime(1, 1, 1, tzinfo=UTC), tags={"\u00e9": "\u20ac"}),
            "0001-01-01T00:00:00,_default,_tag_\u00e9,\u20ac\r\n".encode(),
        ),
        (
            TypedPoint(time=T, fields={"s": "up", "b": True, "c": False, "e": ""}),
            b"2024-01-01T00:00:00,_default,_field_s,s:up,_field_b,b:true,_field_c,b:false"
            b",_field_e,s:\r\n",
        ),
    ],
)
def test_row_is_written_exactly(path: Path, point: Point, row: bytes) -> None:
    with open_db(path) as db:
        db.insert(point)
    assert path.read_bytes() == row


def test_compact_prefixes_may_mix_with_default_ones(path: Path) -> None:
    point = Point(time=T, measurement="cpu", tags={"host": "a"}, fields={"usage": 2.0})
    with open_db(path) as db:
        db.insert(point, compact_key_prefixes=True)
        db.insert_multiple([point], compact_key_prefixes=True)
        db.insert(point)
    compact = b"2024-01-01T00:00:00,cpu,t_host,a,f_usage,2.0\r\n"
    default = b"2024-01-01T00:00:00,cpu,_tag_host,a,_field_usage,2.0\r\n"
    assert path.read_bytes() == 2 * compact + default
    with open_db(path) as db:
        assert db.all() == [point] * 3


# What is read


@pytest.mark.parametrize(
    ("row", "point"),
    [
        (b"2024-01-01,m", Point(time=T, measurement="m")),
        (b"2024-01-01T00:00:00Z,m\n", Point(time=T, measurement="m")),
        (b"2024-01-01T00:00:00.250,m\n", Point(time=T + SECOND / 4, measurement="m")),
        (b"2024-01-01T02:00:00+02:00,m\n", Point(time=T, measurement="m")),
        (b"2024-01-01T00:00:00.0+0000,m\n", Point(time=T, measurement="m")),
        (b"\xef\xbb\xbf2024-01-01T00:00:00,m\r\n", Point(time=T, measurement="m")),
        (b"\r\n\n2024-01-01T00:00:00,m\r\n\r\n", Point(time=T, measurement="m")),
        (
            b"2024-01-01T00:00:00,m,_tag_a,_none,t_b,,f_c,12,_field_d,-3\r\n",
            Point(time=T, measurement="m", tags={"a": None, "b": ""}, fields={"c": 12, "d": -3}),
        ),
        (
            b"2024-01-01T00:00:00,m,f_a,true,f_b,abc,f_c,0x10,f_d,1e3\r\n",
            Point(time=T, measurement="m", fields={"a": None, "b": None, "c": None, "d": 1000.0}),
        ),
        (
            b"2024-01-01T00:00:00,m,_field_a,,_field_b,1.0,\r\n",
            Point(time=T, measurement="m", fields={"b": 1.0}),
        ),
        (
            b"2024-01-01T00:00:00,m,_tag_,x,_field_,1.0\r\n",
            Point(time=T, measurement="m", tags={"": "x"}, fields={"": 1.0}),
        ),
        (
            b"2024-01-01T00:00:00,m,f_a,18446744073709551615,f_a,1.0\r\n",
            Point(time=T, measurement="m", fields={"a": 1.0}),
        ),
        (
            b"2024-01-01T00:00:00,m,f_a,18446744073709551615\r\n",
            Point(time=T, measurement="m", fields={"a": 2**64 - 1}),
        ),
    ],
)
@pytest.mark.parametrize("auto_index", [True, False])
def test_row_is_read_exactly(path: Path, row: bytes, point: Point, auto_index: bool) -> None:
    path.write_bytes(row)
    with open_db(path, auto_index=auto_index) as db:
        assert db.all() == list(db) == [point]
        assert db.search(EVERYTHING) == [point]
        assert db.storage.read() == [point]
        assert len(db) == len(db.storage) == 1
        assert repr(db.all()[0]) == repr(point)


def test_typed_values_come_back(path: Path) -> None:
    point = TypedPoint(time=T, fields={"s": "s:1,2", "b": True, "c": False, "e": ""})
    with open_db(path) as db:
        db.insert(point)
    with open_db(path) as db:
        assert db.all() == [point]


def test_len_counts_points_not_lines(path: Path) -> None:
    with open_db(path) as db:
        db.insert(Point(time=T, tags={"a": "1\n2\r\n3\r4"}))
        db.insert(Point(time=T))
    with open_db(path, auto_index=False) as db:
        assert len(db) == 2
        assert db.all()[0].tags == {"a": "1\n2\r\n3\r4"}


def test_append_adds_a_missing_line_end(path: Path) -> None:
    path.write_bytes(b"2024-01-01T00:00:00,m,_tag_a,b")
    with open_db(path) as db:
        db.insert(Point(time=T, measurement="n"))
        assert len(db.all()) == 2
    assert path.read_bytes() == (b"2024-01-01T00:00:00,m,_tag_a,b\r\n2024-01-01T00:00:00,n\r\n")


def test_dialect_and_encoding_pass_through(path: Path) -> None:
    point = Point(time=T, measurement="\u00e9", tags={"a": "x;y"}, fields={"f": 1.0})
    dialect: dict[str, Any] = {"delimiter": ";", "lineterminator": "\n"}
    with open_db(path, encoding="latin-1", **dialect) as db:
        db.insert(point)
        db.insert(point)
        db.update(EVERYTHING, fields={"f": 2.0})
    row = '2024-01-01T00:00:00;\u00e9;_tag_a;"x;y";_field_f;2.0\n'
    assert path.read_bytes() == 2 * row.encode("latin-1")
    with open_db(path, encoding="latin-1", **dialect) as db:
        assert db.count(TagQuery().a == "x;y") == 2


def test_wide_encodings_work(path: Path) -> None:
    point = Point(time=T, measurement="\u00e9", tags={"a": "b"})
    with open_db(path, encoding="utf-16") as db:
        db.insert_multiple([point, point])
        db.remove(TagQuery().a == "nobody")
        db.update(EVERYTHING, tags={"a": "c"})
    with open_db(path, encoding="utf-16") as db:
        assert db.count(TagQuery().a == "c") == 2


def test_unknown_dialect_arguments_are_a_type_error(path: Path) -> None:
    with pytest.raises(TypeError):
        open_db(path, color="red")


# Opening


def test_missing_directories_are_made_when_asked(tmp_path: Path) -> None:
    nested = tmp_path / "a" / "b" / "db.csv"
    with pytest.raises(FileNotFoundError):
        open_db(nested)
    with open_db(nested, create_dirs=True) as db:
        db.insert(Point())
    assert nested.exists()


def test_bare_file_name_with_create_dirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with TinyFlux("bare.csv", create_dirs=True) as db:
        db.insert(Point())
    create_file("other.csv", create_dirs=False)
    assert (tmp_path / "bare.csv").exists()
    assert (tmp_path / "other.csv").exists()


def test_read_mode_needs_the_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_db(path, access_mode="r")


@pytest.mark.parametrize(
    ("mode", "allowed"),
    [
        ("r", {"read"}),
        ("a", {"append"}),
        ("w", {"append", "reset"}),
        ("a+", {"read", "append"}),
        ("w+", {"read", "append", "reset", "change"}),
        ("r+", {"read", "append", "reset", "change"}),
    ],
)
def test_access_modes_allow_what_they_say(path: Path, mode: str, allowed: set[str]) -> None:
    path.write_bytes(ROW)
    operations: list[tuple[str, Any]] = [
        ("read", lambda db: db.all()),
        ("read", lambda db: db.count(EVERYTHING)),
        ("append", lambda db: db.insert(Point(time=T))),
        ("append", lambda db: db.insert_multiple([Point(time=T)])),
        ("change", lambda db: db.update_all(tags={"a": "b"})),
        ("change", lambda db: db.remove(EVERYTHING)),
        ("change", lambda db: db.drop_measurement("m")),
        ("reset", lambda db: db.remove_all()),
    ]
    with open_db(path, access_mode=mode, auto_index=False) as db:
        assert len(db) == len(db.measurement("_default")) == (0 if "w" in mode else 1)
        for need, operation in operations:
            if need in allowed:
                operation(db)
            else:
                with pytest.raises(OSError, match="access mode"):
                    operation(db)


def test_append_mode_on_a_filled_file_needs_auto_index_off(path: Path) -> None:
    path.write_bytes(ROW)
    with pytest.raises(OSError, match="cannot read"):
        open_db(path, access_mode="a")
    with open_db(path, access_mode="a", auto_index=False) as db:
        db.insert(Point(time=T))
    assert path.read_bytes() == 2 * ROW


def test_write_plus_mode_survives_a_rewrite(path: Path) -> None:
    path.write_bytes(ROW)
    with open_db(path, access_mode="w+") as db:
        assert len(db) == 0
        db.insert_multiple([Point(time=T, tags={"a": str(i)}) for i in range(3)])
        assert db.remove(TagQuery().a == "1") == 1
        db.insert(Point(time=T, tags={"a": "9"}))
        assert db.select("tags.a", EVERYTHING) == ["0", "2", "9"]
    with open_db(path) as db:
        assert db.select("tags.a", EVERYTHING) == ["0", "2", "9"]


def test_write_mode_can_go_on_after_remove_all(path: Path) -> None:
    with open_db(path, access_mode="w") as db:
        db.insert(Point(time=T))
        db.remove_all()
        db.insert(Point(time=T))
    assert path.read_bytes() == ROW


def test_buffered_inserts_are_seen_by_reads_and_kept_by_close(path: Path) -> None:
    with open_db(path, flush_on_insert=False) as db:
        db.insert(Point(time=T))
        assert len(list(db)) == 1
        db.insert(Point(time=T))
    assert path.read_bytes() == 2 * ROW


def test_each_append_is_synced_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    monkeypatch.setattr(os, "fsync", syncs.append)
    with open_db(path) as db:
        db.insert(Point())
        db.insert_multiple([Point() for _ in range(10)])
        db.insert_multiple([Point() for _ in range(10)], batch_size=5)
    assert len(syncs) == 4


# Rewrites


def test_untouched_rows_keep_their_bytes_and_order(path: Path) -> None:
    odd = (
        b'"2024-01-01T00:00:00",m,t_a,"x"\n'
        b"2024-01-01T00:00:01.500,m,t_a,y,f_v,1\r\n"
        b"\r\n"
        b'2024-01-01T00:00:02Z,m,_tag_a,"l1\nl2",_field_v,007'
    )
    path.write_bytes(odd)
    with open_db(path) as db:
        assert db.update(FieldQuery().v == 1, fields={"v": 2}) == 1
    assert path.read_bytes() == (
        b'"2024-01-01T00:00:00",m,t_a,"x"\n'
        b"2024-01-01T00:00:01.500000,m,_tag_a,y,_field_v,2.0\r\n"
        b'2024-01-01T00:00:02Z,m,_tag_a,"l1\nl2",_field_v,007\r\n'
    )


def test_rewrite_syncs_a_file_beside_and_renames_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_db(path, flush_on_insert=False) as db:
        db.insert_multiple(Point(time=T + i * SECOND, fields={"v": i}) for i in range(5000))
        inode = path.stat().st_ino
        path.chmod(0o640)
        files = []
        monkeypatch.setattr(
            os, "fsync", lambda fd: files.append(stat.S_ISREG(os.fstat(fd).st_mode))
        )
        assert db.remove(FieldQuery().v < 10) == 10
    assert files.count(True) == 1
    assert path.stat().st_ino != inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_failed_rewrite_leaves_everything_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_db(path) as db:
        db.insert_multiple([Point(time=T + i * SECOND, fields={"v": i}) for i in range(5)])
        before, points = path.read_bytes(), db.all()

        def fail(storage: CSVStorage) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(CSVStorage, "_swap_temp_with_primary", fail)
        with pytest.raises(OSError, match="disk full"):
            db.remove(FieldQuery().v == 1)
        with pytest.raises(OSError, match="disk full"):
            db.update_all(fields={"v": 9})
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert list(path.parent.iterdir()) == [path]
        assert db.all() == points
        assert db.count(FieldQuery().v == 9) == 0


def test_text_that_cannot_be_encoded_stores_nothing(path: Path) -> None:
    with open_db(path) as db:
        db.insert(Point(time=T))
        with pytest.raises(ValueError, match="surrogates"):
            db.insert_multiple([Point(time=T), Point(time=T, tags={"a": "\ud800"})])
        assert len(db) == len(db.all()) == 1
        db.insert(Point(time=T))
    assert path.read_bytes() == 2 * ROW


def test_cells_that_could_not_be_read_back_are_refused(path: Path) -> None:
    with open_db(path) as db:
        db.insert(Point(time=T, tags={"a": "x" * 100_000}))
        with pytest.raises(ValueError, match="field_size_limit"):
            db.insert(Point(time=T, tags={"a": "x" * 200_000}))
        with pytest.raises(ValueError, match="field_size_limit"):
            db.update_all(tags={"b": "x" * 200_000})
        assert len(db) == 1
        assert db.get_tag_keys() == ["a"]
    with open_db(path) as db:
        assert len(db) == 1


def test_symbolic_links_stay_links(tmp_path: Path, path: Path) -> None:
    real = tmp_path / "real.csv"
    real.write_bytes(ROW + ROW)
    path.symlink_to(real)
    with open_db(path) as db:
        db.update_all(tags={"a": "b"})
    assert path.is_symlink()
    assert real.read_bytes().count(b"_tag_a") == 2


# Damage


@pytest.mark.parametrize(
    "torn",
    [
        b"2024-01-01T00:0",
        b"2024-01-01T00:00:01",
        b"2024-01-01T00:00:01,m,_tag_a",
        b'2024-01-01T00:00:01,m,_tag_a,"x',
        b'2024-01-01T00:00:01,m,_tag_a,"x\n',
        b'2024-01-01T00:00:01,m,_tag_a,"x\ny\n',
        b"\0" * 300,
        b"\0" * 300 + b"\r\n",
        b"garbage\r\n",
    ],
)
@pytest.mark.parametrize("auto_index", [True, False])
def test_damaged_end_is_set_aside_with_a_warning(path: Path, torn: bytes, auto_index: bool) -> None:
    path.write_bytes(ROW + ROW + torn)
    with pytest.warns(RuntimeWarning, match="damaged end was moved to db.csv.torn"):
        db = open_db(path, auto_index=auto_index)
    with db:
        assert len(db) == 2
        assert len(db.all()) == 2
        db.insert(Point(time=T))
        assert len(db.all()) == 3
    assert path.read_bytes() == 3 * ROW
    assert path.with_name("db.csv.torn").read_bytes() == torn


def test_whole_last_row_over_several_lines_is_no_damage(path: Path) -> None:
    row = b'2024-01-01T00:00:00,m,_tag_a,"l1\nl2\n2024-01-01T00:00:00,x,_tag_b",_field_v,1.0\r\n'
    path.write_bytes(ROW + row)
    with open_db(path) as db:
        assert len(db) == 2
    assert path.read_bytes() == ROW + row


def test_torn_only_row_is_set_aside(path: Path) -> None:
    path.write_bytes(b"2024-01-")
    with pytest.warns(RuntimeWarning, match="damaged end"):
        db = open_db(path)
    assert len(db) == 0
    db.close()


def test_file_of_something_else_is_refused_untouched(path: Path) -> None:
    text = b"# a readme\n\nof several lines\n"
    path.write_bytes(text)
    with pytest.raises(CorruptionError, match="no row of a CSV store"):
        open_db(path)
    assert path.read_bytes() == text


def test_damaged_row_in_the_middle_is_left_out_with_a_warning(path: Path) -> None:
    damage = b"\0\0\0\0\r\n"
    path.write_bytes(ROW + damage + ROW)
    with pytest.warns(RuntimeWarning, match="1 damaged row was left out"):
        db = open_db(path)
    with db:
        assert len(db) == len(db.all()) == 2
        with pytest.warns(RuntimeWarning, match="1 damaged row was left out"):
            assert db.update_all(tags={"a": "b"}) == 2


def test_reader_in_read_mode_changes_nothing(path: Path) -> None:
    path.write_bytes(ROW + b"2024-01-01T00:0")
    with (
        pytest.warns(RuntimeWarning, match="1 damaged row was left out"),
        open_db(path, access_mode="r") as db,
    ):
        assert len(db) == 1
    assert path.read_bytes() == ROW + b"2024-01-01T00:0"


WRITER = """
    import sys
    from datetime import datetime, timedelta, timezone
    from tinyflux import FieldQuery, Point, TinyFlux
    T = datetime(2024, 1, 1, tzinfo=timezone.utc)
    db = TinyFlux(sys.argv[1])
    n = 0
    print("ready", flush=True)
    while True:
        n += 1
        db.insert_multiple([Point(time=T, fields={"n": n, "part": p}) for p in range(3)])
        print("in", n, flush=True)
        db.update(FieldQuery().part == 0, fields={"round": n})
        print("up", n, flush=True)
        if n % 5 == 0:
            db.remove(FieldQuery().n <= n - 5)
            print("rm", n, flush=True)
"""


@pytest.mark.parametrize(
    "lines", [1, 8, 21, *(pytest.param(n, marks=pytest.mark.slow) for n in range(30, 60))]
)
def test_killed_writer_leaves_what_it_acknowledged(path: Path, lines: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path.cwd(),
    ) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(lines + 1)]
        process.send_signal(signal.SIGKILL)
        acknowledged += process.stdout.readlines()
    last: dict[str, int] = {"in": 0, "up": 0, "rm": 0}
    for line in acknowledged[1:]:
        if line.endswith("\n") and " " in line:
            operation, n = line.split()
            last[operation] = int(n)
    with open_db(path) as db:
        ns = set(db.get_field_values("n"))
        kept = set(range(max(1, last["rm"] - 4), last["in"] + 1))
        # One operation was under way; it is there as a whole or not at all.
        assert ns >= {n for n in kept if n > last["in"] - 5}
        assert ns <= set(range(max(1, last["rm"] - 4), last["in"] + 2))
        rounds = set(db.get_field_values("round"))
        assert rounds <= {last["up"], last["up"] + 1}
        for n in ns:
            assert db.count(FieldQuery().n == n) == 3


def test_older_times_of_other_zones_sort_by_instant(path: Path) -> None:
    east = timezone(timedelta(hours=9))
    with open_db(path) as db:
        db.insert(Point(time=datetime(2024, 1, 1, 9, tzinfo=east)))
        db.insert(Point(time=T + SECOND))
        assert db.index.valid
        assert db.count(TimeQuery() == T) == 1
