"""Limits of series: what a client that makes up tag values must not fill memory with.

Only series that are not there yet are looked at, and only when a limit may be near: points of known
series pass untouched. What is refused is told in influxd's words.
Source: measured, influxd 1.6.7 with max-series-per-database and max-values-per-tag.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from tinyflux.batch import parse_series_key
from tinyflux.columnar.base import Rejection

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tinyflux.batch import PointBatch, Tags
    from tinyflux.columnar.series import SeriesIndex

_MOST_REASONS = 1000  # that are told apart, of one batch
_MOST_SHOWN = 200  # characters of a name in a reason


class SeriesLimits:
    """How many series some stores may have together, and how many values each of their tags.

    Differs from influxd: it refuses a whole batch that would pass the limit of series, and lets one
    batch pass that of values; here each new series counts.

    Args:
        max_series: The most series of all stores that joined; 0 is no limit.
        max_values: The most values of one tag key of one measurement in a store; 0 is no limit.
    """

    def __init__(self, max_series: int = 0, max_values: int = 0) -> None:
        self._max_series = max_series
        self._max_values = max_values
        self._indexes: tuple[SeriesIndex, ...] = ()

    def join(self, index: SeriesIndex) -> None:
        """Count the series of a store that opens."""
        self._indexes = (*self._indexes, index)

    def leave(self, index: SeriesIndex) -> None:
        """Count the series of a store no more."""
        self._indexes = tuple(other for other in self._indexes if other is not index)

    def admit(
        self, batch: PointBatch, key_ids: Sequence[int], index: SeriesIndex
    ) -> tuple[PointBatch, tuple[Rejection, ...]]:
        """Return the points whose series are known or have room, and what was refused.

        Args:
            batch: The points; its keys stay as they are.
            key_ids: The id of each key in the index; -1 where the series is new.
            index: The series of the store; not changed.
        """
        points = np.bincount(batch.key_rows, minlength=len(batch.keys))
        new = np.flatnonzero((np.array(key_ids, np.int64) < 0) & (points > 0))
        room = self._room(len(new))
        is_near = 0 < self._max_values < len(index) + len(new)  # no tag has more values than that
        if len(new) <= room and not is_near:
            return batch, ()
        values = _TagValues(index, self._max_values)
        reasons: Counter[str] = Counter()
        gone = np.zeros(len(batch.keys), np.bool_)
        too_many = ""
        for row in new.tolist():
            reason = values.refusal(*parse_series_key(batch.keys[row]))
            if not reason and room <= 0:
                reason = too_many = too_many or self._too_many_series()
            if reason:
                if len(reasons) >= _MOST_REASONS and reason not in reasons:
                    reason = next(iter(reasons))  # counted there: each may be about another value
                reasons[reason] += int(points[row])
                gone[row] = True
            else:
                values.accept()
                room -= 1
        if not reasons:
            return batch, ()
        rejected = tuple(Rejection(n, reason, is_limit=True) for reason, n in reasons.items())
        return batch.take(~gone[batch.key_rows]), rejected

    def _room(self, wanted: int) -> int:
        """Return how many series may come; as many as wanted without a limit."""
        if not self._max_series:
            return wanted
        return self._max_series - sum(index.view().count for index in self._indexes)

    def _too_many_series(self) -> str:
        widest = max((index.widest_tag() for index in self._indexes), default=(0, "", ""))
        count, measurement, key = widest
        hint = f"; tag {_shown(key)} of measurement {_shown(measurement)} has most values: {count}"
        text = f"max-series-per-database limit exceeded: ({self._max_series})"
        return text + hint if count else text


class _TagValues:
    """The values of tags as they are in an index, and as new series would add to them."""

    def __init__(self, index: SeriesIndex, most: int) -> None:
        self._index = index
        self._most = most
        self._added: dict[tuple[str, str], dict[str | None, None]] = {}
        self._pending: list[tuple[tuple[str, str], str | None]] = []

    def refusal(self, measurement: str, tags: Tags) -> str:
        """Return why a new series would pass the limit; "" when it would not."""
        self._pending = []
        for key, value in tags if self._most else ():
            known = self._index.tag_values(measurement, key)
            added = self._added.get((measurement, key), {})
            if value in known or value in added:
                continue
            count = len(known) + len(added)
            if count >= self._most:
                return (
                    f"max-values-per-tag limit exceeded ({count}/{self._most}): measurement="
                    f"{_shown(measurement)} tag={_shown(key)} value={_shown(value or '')}"
                )
            self._pending.append(((measurement, key), value))
        return ""

    def accept(self) -> None:
        """Count the values of the series that was asked about last."""
        for place, value in self._pending:
            self._added.setdefault(place, {})[value] = None


def _shown(name: str) -> str:
    shown = name if len(name) <= _MOST_SHOWN else f"{name[:_MOST_SHOWN]}..."
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
