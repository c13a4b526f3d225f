"""Random data and random SELECT statements, for asking two servers the same.

Everything comes from a seeded `random.Random`: a failure is found again by its seed. Two series
never have a point at one time, because InfluxDB leaves the order of such rows open.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

START_S = 1_699_999_200
LENGTH_S = 600

NUMBERS = ("f", "i")
FIELDS = ("f", "i", "s", "b")
TAGS = ("h", "r")
SERIES = ("h=a,r=x", "h=b,r=y", "h=c", "h=d,r=x", "r=y")
AGGREGATES = ("count", "sum", "mean", "median", "spread", "stddev")
SELECTORS = ("first", "last", "min", "max")
ANY_TYPE = ("count", "first", "last")
WINDOWS = ("10s", "20s", "30s", "1m", "90s", "10m", "1h", "20s, 5s", "1m, -10s")
FILLS = ("", "fill(null)", "fill(none)", "fill(previous)", "fill(linear)", "fill(0)", "fill(2.5)")
CONDITIONS = (
    "h = 'a'",
    "h != 'a'",
    "r = ''",
    "r != 'x'",
    "h =~ /^(a|c)$/",
    "r !~ /x/",
    "f > 0",
    "f <= 10.5",
    "i != 3",
    "i % 2 = 0",
    "i = 4",
    "f > i",
    "s = 'ok'",
    "s != 'ok'",
    "s =~ /a/",
    "b = true",
)
TRANSFORMS = (
    "derivative({}, 1s)",
    "derivative({})",
    "non_negative_derivative({}, 1s)",
    "difference({})",
    "non_negative_difference({})",
    "moving_average({}, 2)",
    "moving_average({}, 3)",
    "cumulative_sum({})",
    "elapsed({}, 1s)",
)


def lines(rng: random.Random) -> list[str]:
    """Return line protocol of some series with gaps, precision s, no two points at one time."""
    found = []
    for offset in range(LENGTH_S):
        if rng.random() > 0.15:
            continue
        found.append(f"m,{rng.choice(SERIES)} {_fields(rng)} {START_S + offset}")
    return found


def overwriting(rng: random.Random, written: Sequence[str]) -> list[str]:
    """Return lines with new fields at the times and series of some that were written."""
    chosen = [line for line in written if rng.random() < 0.3]
    rng.shuffle(chosen)
    return [f"{line.split(' ')[0]} {_fields(rng)} {line.split(' ')[-1]}" for line in chosen]


def deletes(rng: random.Random) -> list[str]:
    """Return statements that delete some ranges and series."""
    low = START_S + rng.randint(0, LENGTH_S)
    return [
        f"DELETE FROM m WHERE time >= {low}s AND time < {low + 60}s",
        f"DELETE FROM m WHERE h = 'b' AND time < {low}s",
        f"DELETE WHERE r = '{rng.choice('xy')}' AND time > {low + 120}s",
        rng.choice(("DELETE FROM m WHERE h = 'd'", "DROP SERIES FROM m WHERE h = 'c'")),
    ]


def _fields(rng: random.Random) -> str:
    values = [
        f"f={rng.choice((rng.randint(-20, 20), round(rng.uniform(-50, 50), 2)))}",
        f"i={rng.randint(-9, 9)}i",
        f's="{rng.choice(("ok", "warn", "", "x y"))}"',
        f"b={rng.choice(('true', 'false'))}",
    ]
    return ",".join([value for value in values if rng.random() < 0.75] or values[:1])


@dataclass(slots=True)
class Statements:
    """A source of random SELECT statements over `lines`."""

    rng: random.Random

    def select(self) -> str:
        """Return one statement."""
        kinds = (
            self._raw,
            self._aggregate,
            self._windows,
            self._windows,
            self._transform,
            self._top,
            self._nested,
        )
        return self.rng.choice(kinds)()

    def _some(self, items: Sequence[str], most: int) -> list[str]:
        return self.rng.sample(items, self.rng.randint(1, min(most, len(items))))

    def _maybe(self, text: str, chance: float = 0.5) -> str:
        return text if self.rng.random() < chance else ""

    def _raw(self) -> str:
        names = ", ".join(self._some((*FIELDS, *TAGS), 4))
        operand = self.rng.choice(("i", "2", "f", "0"))
        product = f"{self.rng.choice(NUMBERS)} {self.rng.choice('+-*/')} {operand}"
        alias = f"f AS x, {self.rng.choice(FIELDS)}"
        columns = self.rng.choice(("*", "*::field", names, product, alias))
        dims = self.rng.choice(("", "", "GROUP BY h", "GROUP BY r, h", "GROUP BY *"))
        return self._statement(columns, self._where(self._maybe(self._range())), dims, "")

    def _call(self) -> str:
        draw = self.rng.random()
        if draw < 0.45:
            return f"{self.rng.choice(AGGREGATES)}({self.rng.choice(NUMBERS)})"
        if draw < 0.75:
            return f"{self.rng.choice(SELECTORS)}({self.rng.choice(NUMBERS)})"
        if draw < 0.9:
            return f"{self.rng.choice(ANY_TYPE)}({self.rng.choice(FIELDS)})"
        # From 50 on a percentile has a point: where it has none, InfluxDB loses or doubles windows.
        return f"percentile({self.rng.choice(NUMBERS)}, {self.rng.choice((50, 75.5, 90, 99.9))})"

    def _calls(self) -> str:
        draw = self.rng.random()
        if draw < 0.6:
            calls = [self._call() for _ in range(self.rng.randint(1, 3))]
            # Which of equal points a percentile alone would show is open: never alone.
            if len(set(calls)) == 1 and calls[0].startswith("percentile"):
                calls.append("count(f)")
            return ", ".join(calls)
        if draw < 0.7:
            return f"{self.rng.choice(SELECTORS)}(f), {self.rng.choice((*FIELDS, *TAGS))}"
        if draw < 0.8:
            return f"{self.rng.choice((*AGGREGATES, *SELECTORS))}(*)"
        if draw < 0.85:
            return f"distinct({self.rng.choice(FIELDS)})"
        if draw < 0.9:
            return f"count(distinct({self.rng.choice(FIELDS)}))"
        left = f"{self.rng.choice(AGGREGATES)}({self.rng.choice(NUMBERS)})"
        return f"{left} {self.rng.choice('+-*/')} {self.rng.choice(('2', 'max(f)', 'count(i)'))}"

    def _aggregate(self) -> str:
        dims = self.rng.choice(("", "", "GROUP BY h", "GROUP BY r", "GROUP BY *"))
        return self._statement(self._calls(), self._where(self._maybe(self._range())), dims, "")

    def _windows(self) -> str:
        return self._statement(self._calls(), self._where(self._range()), *self._by_time())

    def _transform(self) -> str:
        transform = self.rng.choice(TRANSFORMS)
        if self.rng.random() < 0.4:
            column = transform.format(self.rng.choice(NUMBERS))
            dims = self.rng.choice(("", "GROUP BY h", "GROUP BY *"))
            return self._statement(column, self._where(self._maybe(self._range())), dims, "")
        call = f"{self.rng.choice((*AGGREGATES, *SELECTORS))}({self.rng.choice(NUMBERS)})"
        return self._statement(transform.format(call), self._where(self._range()), *self._by_time())

    def _top(self) -> str:
        name, field = self.rng.choice(("top", "bottom")), self.rng.choice(NUMBERS)
        tags = self._maybe("h, ", 0.3)
        call = f"{name}({field}, {tags}{self.rng.randint(1, 4)})"
        where = self._where(self._range())
        dims = self.rng.choice(("", "GROUP BY r", "GROUP BY time(1m)", "GROUP BY time(90s), r"))
        return f"SELECT {call} FROM m {where} {dims}"

    def _nested(self) -> str:
        inner = f"{self.rng.choice((*AGGREGATES, *SELECTORS))}({self.rng.choice(NUMBERS)}) AS x"
        tags = self.rng.choice((", h", ", r", ", *", ""))
        source = f"SELECT {inner} FROM m {self._where('')} GROUP BY time(20s){tags} "
        # Over several inner series InfluxDB fills windows more often than there are.
        fills = ("", "fill(none)", "fill(0)", "fill(previous)")
        source += self.rng.choice(fills[: 2 if tags else 4])
        outer = self.rng.choice(("sum", "mean", "count", "spread"))
        dims = self.rng.choice(("", "GROUP BY h", "GROUP BY time(1m)", "GROUP BY time(1m), h"))
        having = self._maybe("x > 0 AND ", 0.3)
        # Without outer windows InfluxDB answers nothing when the first inner window begins before
        # the range: so it starts with one.
        lows = (0, 60, 300, 7, 75, 310) if "time(" in dims else (0, 60, 300)
        low, high = START_S + self.rng.choice(lows), START_S + self.rng.choice((420, 600))
        where = f"WHERE {having}time >= {low}s AND time < {high}s"
        return f"SELECT {outer}(x) FROM ({source}) {where} {dims}"

    def _by_time(self) -> tuple[str, str]:
        tags = self.rng.choice(("", "", ", h", ", r", ", *"))
        return f"GROUP BY time({self.rng.choice(WINDOWS)}){tags}", self.rng.choice(FILLS)

    def _range(self) -> str:
        low = START_S + self.rng.choice((-30, 0, 0, 7, 60, 300))
        high = START_S + self.rng.choice((400, 500, 599, 600, 650))
        above, below = self.rng.choice((">=", ">")), self.rng.choice(("<", "<="))
        return f"time {above} {low}s AND time {below} {high}s"

    def _where(self, bounds: str) -> str:
        parts = [bounds] if bounds else []
        if self.rng.random() < 0.35:
            parts.append(self._condition())
        return f"WHERE {' AND '.join(parts)}" if parts else ""

    def _condition(self) -> str:
        one = self.rng.choice(CONDITIONS)
        if self.rng.random() < 0.3:
            return f"({one} {self.rng.choice(('AND', 'OR'))} {self._condition()})"
        return one

    def _statement(self, columns: str, where: str, dims: str, fill: str) -> str:
        order = self._maybe("ORDER BY time DESC", 0.25)
        limit = f"LIMIT {self.rng.randint(1, 6)}"
        # Fields beside a selector are filled after OFFSET has cut rows off.
        if fill != "fill(previous)":
            limit += self._maybe(f" OFFSET {self.rng.randint(1, 4)}")
        # With fill(none) InfluxDB counts the rows of each column for itself.
        several = fill == "fill(none)" and any(mark in columns for mark in ",*/+-")
        limit = "" if several else self._maybe(limit, 0.25)
        # SLIMIT counts what the tags find, whether it has rows or not, as one point has no change.
        is_change = any(
            word in columns for word in ("derivative", "difference", "moving", "elapsed")
        )
        whole = not where and dims == "GROUP BY h" and not is_change
        slimit = self._maybe(f"SLIMIT {self.rng.randint(1, 3)}", 0.3) if whole else ""
        parts = ("SELECT", columns, "FROM m", where, dims, fill, order, limit, slimit)
        return " ".join(part for part in parts if part)
