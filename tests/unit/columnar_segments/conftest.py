"""Segments written to a temporary directory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import pytest

from tinyflux.columnar.base import SeriesSet
from tinyflux.columnar.chunks import ChunkCache
from tinyflux.columnar.files import OsFiles
from tinyflux.columnar.footer import SegmentInfo
from tinyflux.columnar.segment import Segment
from tinyflux.columnar.segmentfile import encode_segment

if TYPE_CHECKING:
    from pathlib import Path

    from tinyflux.columnar.scan import Run


class MakeSegment(Protocol):
    def __call__(
        self,
        run: Run,
        series: SeriesSet | None = None,
        *,
        group_rows: int = 8,
        cache: ChunkCache | None = None,
    ) -> Segment: ...


@pytest.fixture
def make_segment(tmp_path: Path) -> MakeSegment:
    """Return a function that writes a run and opens the segment."""
    made: list[Path] = []

    def make(
        run: Run,
        series: SeriesSet | None = None,
        *,
        group_rows: int = 8,
        cache: ChunkCache | None = None,
    ) -> Segment:
        path = tmp_path / f"{len(made)}.parquet"
        made.append(path)
        if series is None:
            series = SeriesSet("m", run.ids, {})
        data, crc = encode_segment(run, series, group_rows)
        path.write_bytes(data)
        info = SegmentInfo(
            len(made), "m", 0, 0, len(run), run.first_ns, run.last_ns, len(data), crc
        )
        return Segment(path, info, ChunkCache() if cache is None else cache, OsFiles())

    return make
