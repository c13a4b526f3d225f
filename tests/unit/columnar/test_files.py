"""The seam to the file system."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tinyflux.columnar.files import OsFiles, log_name, log_number, write_file
from tinyflux.errors import StorageLocked


def test_log_names_and_numbers_belong_together() -> None:
    assert log_name(7) == "000007.wal"
    assert [log_number(log_name(n)) for n in (1, 999_999, 1_000_000)] == [1, 999_999, 1_000_000]
    for name in ("x.wal", "1.walx", "1", ".wal", "-1.wal", "²3.wal"):
        assert log_number(name) is None


def test_many_and_large_buffers_are_written_whole(tmp_path: Path) -> None:
    file = OsFiles().create(tmp_path / "f")
    buffers = [b"%d," % i for i in range(3000)] + [b"", b"x" * 5_000_000]
    file.append(buffers)
    file.append([b"end"])
    file.sync()
    file.close()
    file.close()
    assert OsFiles().read(tmp_path / "f") == b"".join(buffers) + b"end"


def test_a_short_write_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev

    def short(fd: int, buffers: list[bytes]) -> int:
        return real(fd, [buffers[0][:2]])

    monkeypatch.setattr(os, "writev", short)
    file = OsFiles().create(tmp_path / "f")
    file.append([b"abcde", b"fg", b"h"])
    file.close()
    assert (tmp_path / "f").read_bytes() == b"abcdefgh"


def test_a_file_is_made_once(tmp_path: Path) -> None:
    OsFiles().create(tmp_path / "f").close()
    with pytest.raises(FileExistsError):
        OsFiles().create(tmp_path / "f")


def test_write_file_replaces_the_whole_content(tmp_path: Path) -> None:
    (tmp_path / "f.tmp").write_bytes(b"left by a crash")
    for content in (b"long content", b"short"):
        write_file(OsFiles(), tmp_path / "f", content)
        assert (tmp_path / "f").read_bytes() == content
    assert OsFiles().names(tmp_path) == ["f"]


def test_directories_are_made_with_their_parents(tmp_path: Path) -> None:
    files = OsFiles()
    files.make_directory(tmp_path / "a" / "b")
    files.make_directory(tmp_path / "a" / "b")
    assert files.names(tmp_path / "a") == ["b"]
    assert files.names(tmp_path / "missing") == []


def test_truncate_and_unlink(tmp_path: Path) -> None:
    files = OsFiles()
    write_file(files, tmp_path / "f", b"abcdef")
    files.truncate(tmp_path / "f", 2)
    assert files.read(tmp_path / "f") == b"ab"
    files.unlink(tmp_path / "f")
    files.unlink(tmp_path / "f")
    assert files.names(tmp_path) == []


def test_a_lock_is_held_by_one_and_says_by_whom(tmp_path: Path) -> None:
    lock = OsFiles().lock(tmp_path / "lock")
    with pytest.raises(StorageLocked, match=f"in use by process {os.getpid()}: "):
        OsFiles().lock(tmp_path / "lock")
    lock.release()
    lock.release()
    OsFiles().lock(tmp_path / "lock").release()


def test_the_lock_of_a_dead_process_is_free(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from tinyflux.columnar.files import OsFiles;"
        "OsFiles().lock(Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    ended = subprocess.run(command, check=False, cwd=Path(__file__).parents[3])
    assert ended.returncode == -9
    assert (tmp_path / "lock").read_text().strip().isdigit()
    OsFiles().lock(tmp_path / "lock").release()
