"""A file system double that forgets what was not synced, and stops after any operation.

`CrashFS` lives in memory and knows of each file what was synced. `crash(random)` gives the file
system as a power cut
might have left it: synced bytes are there; of the bytes behind them any prefix may be, with holes
of zeros where pages were not written; names that were not synced may be missing. `fail_at` raises
`Crash` in the n-th operation, which may be half done. `fault` lets operations fail as those of a
disk do that is full or broken, for as long as it is set: an append has then written a part.
"""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from tinyflux.errors import StorageLocked

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

T = TypeVar("T")
_SEEDS = 3


class Crash(BaseException):
    """The machine is gone. No OSError: nothing may catch it."""


class Node:
    """The bytes of a file.

    Attributes:
        data: All bytes, as a running process sees them.
        synced: How many of them are on the disk for sure.
    """

    def __init__(self, data: bytes = b"", synced: int = 0) -> None:
        self.data = bytearray(data)
        self.synced = synced


class CrashFS:
    """A FileSystem in memory.

    Attributes:
        n_operations: How many changing operations there were.
        fail_at: The operation in which the machine stops; None for never.
        fault: What the operations of `faulty` raise; None for nothing.
        faulty: Names of methods.
    """

    def __init__(self) -> None:
        self.n_operations = 0
        self.fail_at: int | None = None
        self.fault: OSError | None = None
        self.faulty: Collection[str] = ()
        self._names: dict[Path, Node] = {}
        self._durable: dict[Path, Node] = {}  # names that a crash does not undo
        self._directories: set[Path] = set()
        self._locked: set[Path] = set()
        self._random = random.Random(0)

    def _step(self, operation: str) -> None:
        self.n_operations += 1
        if self.fail_at is not None and self.n_operations >= self.fail_at:
            raise Crash
        if self.fault is not None and operation in self.faulty:
            raise self.fault

    def crash(self, seed: int) -> CrashFS:
        """Return what a machine finds after a power cut now."""
        chance = random.Random(seed)
        after = CrashFS()
        after._directories = set(self._directories)
        for path in self._names.keys() | self._durable.keys():
            # A rename or an unlink that was not synced may have reached the disk or not.
            candidates = [self._durable.get(path), self._names.get(path)]
            node = candidates[1] if chance.random() < 0.5 else candidates[0]
            if node is None:
                continue
            survived = Node(_after_power_cut(node, chance))
            survived.synced = len(survived.data)
            after._names[path] = after._durable[path] = survived
        return after

    def make_directory(self, path: Path) -> None:
        self._directories.add(path)

    def names(self, directory: Path) -> list[str]:
        inside = (path for path in self._names if directory in path.parents)
        return sorted({path.relative_to(directory).parts[0] for path in inside})

    def read(self, path: Path) -> bytes:
        if path not in self._names:
            raise FileNotFoundError(path)
        return bytes(self._names[path].data)

    def readable(self, path: Path) -> BinaryIO:
        return io.BytesIO(self.read(path))

    def create(self, path: Path) -> CrashFile:
        self._step("create")
        if path in self._names:
            raise FileExistsError(path)
        self._names[path] = Node()
        return CrashFile(self, self._names[path])

    def truncate(self, path: Path, size: int) -> None:
        self._step("truncate")
        node = self._names[path]
        del node.data[size:]
        node.synced = size

    def replace(self, source: Path, target: Path) -> None:
        self._step("replace")
        self._names[target] = self._names.pop(source)

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        self._names.pop(path, None)

    def sync_directory(self, directory: Path) -> None:
        self._step("sync_directory")
        for path in [path for path in self._durable if path.parent == directory]:
            del self._durable[path]
        for path, node in self._names.items():
            if path.parent == directory:
                self._durable[path] = node

    def lock(self, path: Path) -> CrashLock:
        if path in self._locked:
            raise StorageLocked(f"data directory is in use: {path.parent}")
        self._locked.add(path)
        return CrashLock(self._locked, path)


def _after_power_cut(node: Node, chance: random.Random) -> bytes:
    """Return the synced bytes and whatever the kernel happened to write of the others."""
    loose = len(node.data) - node.synced
    data = bytearray(node.data[: node.synced + chance.randint(0, loose)])
    if len(data) > node.synced and chance.random() < 0.3:
        hole = chance.randint(node.synced, len(data))
        data[node.synced : hole] = bytes(hole - node.synced)
    return bytes(data)


class CrashFile:
    """An AppendFile of a CrashFS."""

    def __init__(self, files: CrashFS, node: Node) -> None:
        self._files = files
        self._node = node

    def append(self, buffers: Sequence[bytes]) -> None:
        data = b"".join(buffers)
        try:
            self._files._step("append")
        except (Crash, OSError):
            self._node.data += data[: self._files._random.randint(0, len(data))]
            raise
        self._node.data += data

    def sync(self) -> None:
        self._files._step("sync")
        self._node.synced = len(self._node.data)

    def close(self) -> None:
        pass


class CrashLock:
    """A lock of a CrashFS."""

    def __init__(self, locked: set[Path], path: Path) -> None:
        self._locked = locked
        self._path = path

    def release(self) -> None:
        self._locked.discard(self._path)


def crashes(
    run: Callable[[CrashFS], T], operations: Iterable[int]
) -> Iterator[tuple[int, int, CrashFS, T]]:
    """Yield what the machine's stop in each of these operations of `run` may have left, several
    times: the operation, the seed, the file system, and what `run` returned.
    """
    for fail_at in operations:
        files = CrashFS()
        files.fail_at = fail_at
        returned = run(files)
        for seed in range(_SEEDS):
            yield fail_at, seed, files.crash(seed), returned
