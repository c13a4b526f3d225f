"""Technical analysis: moving averages and oscillators. Recurrences, so a loop over the values.

Each one is a function of a row of values that gives as many results; how many of the first ones are
held back is the `hold`, by default as many as it needs to warm up.
Source: measured, `tests/conformance/technical.case`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from gateway.functions.transforms import Argument
    from tinyflux.batch import Float64s, Int64s
    from tinyflux.columnar.base import Values

_FAST, _SLOW = 2 / (2 + 1), 2 / (30 + 1)  # Kaufman's smoothing constants
_LONG_PERIOD: Final = 1000


class _Average:
    """An exponential moving average that warms up over its first `period` values.

    While it warms up it is the mean of the values so far (simple), or gives each new value the
    weight 2 / (k + 2) after k values (exponential).
    """

    __slots__ = ("_is_simple", "_period", "_seen", "_weight", "value")

    def __init__(self, period: int, weight: float, *, is_simple: bool) -> None:
        self._period = period
        self._weight = weight
        self._is_simple = is_simple
        self._seen = 0
        self.value = 0.0

    def add(self, value: float) -> float:
        weight = self._weight
        if self._seen < self._period:
            weight = 1 / (self._seen + 1) if self._is_simple else 2 / (self._seen + 2)
        self._seen += 1
        self.value += (value - self.value) * weight
        return self.value

    @property
    def is_warm(self) -> bool:
        return self._seen >= self._period


def _chained(
    values: Sequence[float], period: int, depth: int, *, is_simple: bool
) -> list[list[float]]:
    """Return the average, the average of the average and so on.

    With a simple warm-up each one waits until the one before is warm, and shows its value
    meanwhile.
    """
    averages = [_Average(period, 2 / (period + 1), is_simple=is_simple) for _ in range(depth)]
    rows: list[list[float]] = [[] for _ in range(depth)]
    for value in values:
        current = value
        is_waiting = False
        for average, row in zip(averages, rows, strict=True):
            if not is_waiting:
                current = average.add(current)
                is_waiting = is_simple and not average.is_warm
            row.append(current)
    return rows


def _ema(values: Sequence[float], period: int, warmup: str) -> list[float]:
    return _chained(values, period, 1, is_simple=warmup == "simple")[0]


def _dema(values: Sequence[float], period: int, warmup: str) -> list[float]:
    one, two = _chained(values, period, 2, is_simple=warmup == "simple")
    return [2 * a - b for a, b in zip(one, two, strict=True)]


def _tema(values: Sequence[float], period: int, warmup: str) -> list[float]:
    one, two, three = _chained(values, period, 3, is_simple=warmup == "simple")
    return [3 * a - 3 * b + c for a, b, c in zip(one, two, three, strict=True)]


def _ratio(a: float, b: float) -> float:
    """Return a / b; of a division by 0 NaN or, of what is not 0, infinity."""
    if b:
        return a / b
    return math.inf if a else math.nan


def _trix(values: Sequence[float], period: int, warmup: str) -> list[float]:
    """Return the change of the triple average in percent."""
    triple = _chained(values, period, 3, is_simple=warmup == "simple")[2]
    changes = [(_ratio(b, a) - 1) * 100 for a, b in itertools.pairwise(triple)]
    return [0.0, *changes]


def _moves(values: Sequence[float], period: int, warmup: str) -> list[tuple[float, float]]:
    """Return the averages of the upward and of the downward moves, the first one from 0."""
    is_simple = warmup == "simple"
    up, down = (_Average(period + 1, 1 / period, is_simple=is_simple) for _ in range(2))
    rows = []
    last = 0.0
    for value in values:
        move, last = value - last, value
        rows.append((up.add(max(move, 0.0)), down.add(max(-move, 0.0))))
    return rows


def _rsi(values: Sequence[float], period: int, warmup: str) -> list[float]:
    moves = _moves(values, period, warmup)
    return [100 - 100 / (1 + _ratio(up, down)) for up, down in moves]


def _trailing_sums(steps: Float64s, period: int) -> Float64s:
    """Return the sum of the last `period` steps up to each row, of all where there are fewer.

    Short windows are added step by step, as influxd does; long ones are differences of running
    sums, which keeps the cost in bounds and may differ in the last digits.
    """
    sums: Float64s = np.add.accumulate(steps)
    n_full = len(steps) - period
    if n_full <= 0:
        return sums
    if period > _LONG_PERIOD:
        sums[period:] -= sums[:n_full].copy()
        return sums
    full = np.zeros(n_full)
    for first in range(1, period + 1):
        full += steps[first : first + n_full]
    sums[period:] = full
    return sums


def _cmo(values: Sequence[float], period: int, warmup: str) -> list[float]:
    empty = math.nan
    if warmup == "none":
        empty = 0.0
        steps = np.diff(np.array(values), prepend=values[:1])
        ups = _running_sums(np.maximum(steps, 0.0), period)
        downs = _running_sums(np.maximum(-steps, 0.0), period)
        rows = list(zip(ups.tolist(), downs.tolist(), strict=True))
    else:
        rows = _moves(values, period, warmup)
    return [100 * (up - down) / (up + down) if up + down else empty for up, down in rows]


def _running_sums(values: Float64s, period: int) -> Float64s:
    """Return the sums of the last `period` values, rounded as influxd rounds them.

    It takes the oldest value off the sum and then adds the newest: of values that cancel one
    another something may be left.
    """
    steps = np.zeros(2 * len(values))
    steps[1::2] = values
    steps[2 * period :: 2] = -values[:-period]
    sums: Float64s = np.cumsum(steps)[1::2]
    return sums


def _efficiency(values: Sequence[float], period: int, _warmup: str) -> list[float]:
    """Return how straight the last `period` steps went, the first one from 0: 1 is a line."""
    padded = np.array([0.0, *values])
    ways = _trailing_sums(np.abs(np.diff(padded)), period)
    first = np.maximum(np.arange(1, len(padded)) - period, 0)
    moves = np.abs(padded[1:] - padded[first])
    ratios: list[float] = np.divide(moves, ways, out=np.zeros_like(ways), where=ways != 0).tolist()
    return ratios


def _kama(values: Sequence[float], period: int, warmup: str) -> list[float]:
    ratios = _efficiency(values, period, warmup)
    rows: list[float] = []
    for row, (value, ratio) in enumerate(zip(values, ratios, strict=True)):
        weight = (ratio * (_FAST - _SLOW) + _SLOW) ** 2
        before = rows[-1] if row > period else values[row - 1] if row else 0.0
        rows.append(before + weight * (value - before))
    return rows


Compute: TypeAlias = Callable[[Sequence[float], int, str], list[float]]
Hold: TypeAlias = Callable[[int, bool], int]


@dataclass(frozen=True, slots=True)
class Indicator:
    """One function: its results, its default hold, and its warm-ups (the first is the default)."""

    compute: Compute
    hold: Hold
    warmups: tuple[str, ...] = ()

    def __call__(
        self, groups: Int64s, _times: Int64s, values: Values, args: Sequence[Argument]
    ) -> tuple[Int64s, Values]:
        """Return the rows after the hold of each group, and their results (float64).

        NaN is a result and prints as null; a row that would be infinite is left out.
        """
        period, hold, warmup = self._arguments(args)
        rows, results = [np.zeros(0, np.int64)], [np.zeros(0)]
        starts = np.flatnonzero(np.diff(groups, prepend=groups[:1] - 1))
        for first, part in zip(starts, np.split(values, starts[1:]), strict=True):
            answer = np.array(self.compute(part.astype(np.float64).tolist(), period, warmup)[hold:])
            shown = np.flatnonzero(~np.isinf(answer))
            rows.append(first + hold + shown)
            results.append(answer[shown])
        return np.concatenate(rows), np.concatenate(results)

    def _arguments(self, args: Sequence[Argument]) -> tuple[int, int, str]:
        period = int(args[0])
        warmup = str(args[2]) if len(args) > 2 else next(iter(self.warmups), "")
        hold = int(args[1]) if len(args) > 1 else -1
        if hold < 0:
            hold = period - 1 if warmup == "none" else self.hold(period, warmup == "simple")
        return period, hold, warmup


_WARMUPS: Final = ("exponential", "simple")

INDICATORS: Final[dict[str, Indicator]] = {
    "exponential_moving_average": Indicator(_ema, lambda p, _: p - 1, _WARMUPS),
    "double_exponential_moving_average": Indicator(
        _dema, lambda p, simple: (p - 1) * (2 if simple else 1), _WARMUPS
    ),
    "triple_exponential_moving_average": Indicator(
        _tema, lambda p, simple: (p - 1) * (3 if simple else 1), _WARMUPS
    ),
    "triple_exponential_derivative": Indicator(
        _trix, lambda p, simple: 3 * (p - 1) + 1 if simple else p, _WARMUPS
    ),
    "relative_strength_index": Indicator(_rsi, lambda p, _: p, _WARMUPS),
    "kaufmans_efficiency_ratio": Indicator(_efficiency, lambda p, _: p),
    "kaufmans_adaptive_moving_average": Indicator(_kama, lambda p, _: p),
    "chande_momentum_oscillator": Indicator(_cmo, lambda p, _: p, ("none", *_WARMUPS)),
}
