"""holt_winters: exponential smoothing with a damped trend and seasons, fitted and carried on.

The parameters (alpha, beta, gamma, phi), the level, the trend and the seasons are fitted together,
to the least sum of squared errors, by the simplex method of Nelder and Mead from sixteen starts.
That finds no optimum in general: what it finds is what InfluxDB finds, step by step, which is what
its users have. Source: measured on influxd 1.6.7; `tests/conformance/technical.case` has answers,
and these are what its answers show and nobody would guess:

- each row is smoothed from the row before as it was forecast, never from the data;
- the seasons are read at 3h - 2 and replaced at 2h - 2 (mod their number) for row h;
- fitting writes on: evaluating a vertex clamps its parameters and replaces its seasons in place, so
  the rows that are answered begin with the seasons that the last evaluation left;
- a shrinking simplex evaluates the worst two vertices only;
- the start that is chosen is the one whose answered rows have the least error.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import cycle, product
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tinyflux.batch import Float64s

Vertex: TypeAlias = list[float]

_GUESSES: Final = (0.3, 0.7)  # of each of the four parameters
_N_PARAMETERS: Final = 4
_SEASONS: Final = 6  # where the seasons begin in a vertex, behind level and trend
_EPSILON: Final = 1e-4
_MAX_STEPS: Final = 1000


def forecast(
    values: Sequence[float], n_rows: int, season: int, check: Callable[[], None]
) -> Float64s | None:
    """Return the fitted rows, one a value, and `n_rows` after them.

    Args:
        values: One a window, from the first that has one to the last; NaN where there is none.
        n_rows: How many to add.
        season: How many windows a season has; 0 and 1 are none.
        check: Called between the steps; raises when this shall stop.

    Returns:
        float64[len(values) + n_rows], not all finite; None for fewer than two values, or than a
        season has.
    """
    season = 0 if season == 1 else season
    if len(values) < max(2, season):
        return None
    found: tuple[float, Vertex] | None = None
    for guess in product(_GUESSES, repeat=_N_PARAMETERS):
        vertex = _fitted([*guess, *_start(values, season)], values, season, check)
        error = _error(list(vertex), values, season)
        if found is None or error < found[0]:
            found = error, vertex
    assert found is not None
    return np.array(_rows(found[1], values[0], season, len(values) + n_rows))


def simplex_size(season: int) -> int:
    """Return how many vertices of how many numbers stand in memory while a season is fitted."""
    return _SEASONS + season


def _start(values: Sequence[float], season: int) -> Vertex:
    """Return the level, the trend and the seasons to start from; what is missing counts as 0."""
    if not season:
        return [values[0] / 2, _known((values[1] - values[0]) / 2)]
    level = sum(map(_known, values[:season])) / season
    pairs = zip(values, values[season : 2 * season], strict=False)
    trend = sum(_known((later - earlier) / (season * season)) for earlier, later in pairs)
    return [level, trend, *(_over(_known(value), level) for value in values[:season])]


def _known(value: float) -> float:
    return 0.0 if math.isnan(value) else value


def _over(a: float, b: float) -> float:
    if b:
        return a / b
    return math.copysign(math.inf, a) if a else math.nan


def _rows(vertex: Vertex, first: float, season: int, size: int) -> Vertex:
    """Return the rows of a vertex, whose seasons are left as they become.

    This is where the time goes: hence two plain loops.
    """
    alpha, beta, gamma, phi, level, trend = vertex[:_SEASONS]
    keep, keep_season, keep_trend = 1 - alpha, 1 - gamma, (1 - beta) * phi
    dampings = _dampings(phi, size)
    value, rows = first, [first]
    if not season:
        for damping in dampings:
            smoothed = alpha * value + keep * (level + phi * trend)
            trend = beta * (smoothed - level) + keep_trend * trend
            level = smoothed
            value = level + damping * trend
            rows.append(value)
        return rows
    for damping, replaced, read in zip(dampings, *map(cycle, _places(season)), strict=False):
        seasonal, old = vertex[read], vertex[replaced]
        before = level + phi * trend
        smoothed = alpha * _over(value, old) + keep * before
        vertex[replaced] = gamma * _over(value, before) + keep_season * old
        trend = beta * (smoothed - level) + keep_trend * trend
        level = smoothed
        value = (level + damping * trend) * seasonal
        rows.append(value)
    return rows


@lru_cache(maxsize=64)
def _places(season: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return for each row after the first which season it replaces, and which it reads.

    After as many rows as there are seasons they come again.
    """
    rows = range(1, season + 1)
    replaced = tuple(_SEASONS + 2 * (h - 1) % season for h in rows)
    return replaced, tuple(_SEASONS + (3 * h - 2) % season for h in rows)


def _dampings(phi: float, size: int) -> list[float]:
    """Return phi for the first row, and from there on the sum with the powers of phi.

    The powers are products of squares: their last digits are those of Go, not those of C.
    """
    powers, square, damping = [1.0], phi, phi
    dampings = []
    for h in range(1, size):
        if h & (h - 1) == 0:  # a power of 2
            half, square = 0, square if h == 1 else square * square
        dampings.append(damping)
        powers.append(powers[half] * square)
        half += 1
        damping += powers[h]
    return dampings


def _error(vertex: Vertex, values: Sequence[float], season: int) -> float:
    """Return the sum of squared errors of a vertex, which is clamped and whose seasons change."""
    for place in range(_N_PARAMETERS):
        vertex[place] = min(max(vertex[place], 0.0), 1.0)
    rows = _rows(vertex, values[0], season, len(values))
    error = 0.0
    for row, value in zip(rows, values, strict=True):
        if not math.isnan(value):
            error += (row - value) * (row - value)
    return error if math.isfinite(error) else math.inf


def _fitted(
    start: Vertex, values: Sequence[float], season: int, check: Callable[[], None]
) -> Vertex:
    """Return the best vertex that the simplex method finds from a start."""
    size = len(start)
    vertices = _simplex(start)
    errors = [_error(vertex, values, season) for vertex in vertices]
    for _ in range(_MAX_STEPS):
        check()
        worst = max(range(size + 1), key=errors.__getitem__)
        best = min(range(size + 1), key=errors.__getitem__)
        second = best
        for place, error in enumerate(errors):
            if errors[second] < error < errors[worst]:
                second = place
        others = [vertex for place, vertex in enumerate(vertices) if place != worst]
        centre = [sum(column) / size for column in zip(*others, strict=True)]

        def moved(target: Vertex, factor: float, centre: Vertex = centre) -> tuple[float, Vertex]:
            vertex = [c + factor * (t - c) for c, t in zip(centre, target, strict=True)]
            return _error(vertex, values, season), vertex

        error, vertex = moved(vertices[worst], -1.0)
        if error < errors[best]:
            further = moved(vertex, 2.0)
            error, vertex = min((further, (error, vertex)), key=lambda pair: pair[0])
        elif error >= errors[second]:
            error, vertex = moved(vertex if error < errors[worst] else vertices[worst], 0.5)
            if error >= errors[worst]:
                _shrink(vertices, best)
                for place in (worst, second):
                    errors[place] = _error(vertices[place], values, season)
                error, vertex = errors[worst], vertices[worst]
        vertices[worst], errors[worst] = vertex, error
        if _spread(errors) < _EPSILON:
            break
    return vertices[min(range(size + 1), key=errors.__getitem__)]


def _simplex(start: Vertex) -> list[Vertex]:
    """Return a regular simplex with edges of length 1 and one corner at the start."""
    size = len(start)
    near = (math.sqrt(size + 1) - 1) / (size * math.sqrt(2))
    far = (math.sqrt(size + 1) - 1 + size) / (size * math.sqrt(2))
    corners = [
        [value + (far if place == axis else near) for place, value in enumerate(start)]
        for axis in range(size)
    ]
    return [list(start), *corners]


def _shrink(vertices: list[Vertex], best: int) -> None:
    """Halve the way of all vertices to the best one."""
    target = vertices[best]
    for place, vertex in enumerate(vertices):
        if place != best:
            vertices[place] = [t + (v - t) / 2 for t, v in zip(target, vertex, strict=True)]


def _spread(errors: Sequence[float]) -> float:
    """Return the standard deviation of the errors; NaN once one is infinite."""
    mean = sum(errors) / len(errors)
    return math.sqrt(sum((error - mean) * (error - mean) for error in errors) / (len(errors) - 1))
