"""Gaps: what the answer of a query lacks because a file is damaged, in words for its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.encoding.times import to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyflux.columnar.base import Gap

_MOST_NAMED: Final = 5  # in one answer; the rest is counted


def warnings_of(gaps: Sequence[Gap]) -> list[str]:
    """Return a text for each gap, the first few of many."""
    texts = [
        f"data is missing: up to {gap.rows} points of {gap.measurement} between "
        f"{_time(gap.first_ns)} and {_time(gap.last_ns)} were in a damaged file, now in "
        f"quarantine: {gap.reason}"
        for gap in gaps[:_MOST_NAMED]
    ]
    if len(gaps) > _MOST_NAMED:
        rows = sum(gap.rows for gap in gaps[_MOST_NAMED:])
        texts.append(
            f"data is missing: up to {rows} points of {len(gaps) - _MOST_NAMED} more files"
        )
    return texts


def _time(time_ns: int) -> str:
    return to_rfc3339(np.array([time_ns]))[0]
