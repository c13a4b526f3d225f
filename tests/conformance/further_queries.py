"""Still more random statements: several sources, INTO, casts, cardinality, subqueries of all kinds.

Over the data of `random_queries` and a second measurement, `n`. As in `wide_queries`, what
InfluxDB answers by chance or plainly wrong is not asked; a comment says what is avoided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.conformance.random_queries import (
    AGGREGATES,
    LENGTH_S,
    NUMBERS,
    SELECTORS,
    START_S,
    TRANSFORMS,
    WINDOWS,
)
from tests.conformance.wide_queries import WideStatements

if TYPE_CHECKING:
    import random

SOURCES = ("m, n", "n, m", "/m|n/", "/^./", "differential..n", "differential.autogen.m", '"n"')
CONDITIONS = (
    "f + i > 2",
    "abs(f) > 10",
    "f * 2 < i",
    "i / 2 >= 1",
    "h::tag = 'a'",
    "f::float > 0",
    "(f > 0 OR h = 'a') AND i < 5",
    "h = '' OR r = ''",
    "s = 'ok' OR b = false",
    "s !~ /x/ AND f != 0",
    "i & 1 = 1",
    "floor(f) % 2 = 0",
    "-1 * f > 3",
    "missing = 'x'",
    "missing != 'x'",
    "f = 'text'",
)
MANY = ("*", "*::field", "/f|i/", "/^[fi]$/", "/g/")


def other_lines(rng: random.Random) -> list[str]:
    """Return line protocol of the second measurement, no two points of it at one time."""
    found = []
    for offset in range(0, LENGTH_S, 3):
        if rng.random() < 0.3:
            tags = rng.choice(("h=a", "h=b,z=1", "z=2"))
            found.append(
                f"n,{tags} f={rng.randint(-99, 99) / 4},g={rng.randint(0, 9)}i {START_S + offset}"
            )
    return found


@dataclass(slots=True)
class FurtherStatements(WideStatements):
    """A source of random statements of all kinds over both measurements."""

    def any(self) -> str:
        """Return one statement."""
        if self.rng.random() < 0.4:
            return WideStatements.any(self)  # a class with slots has no super()
        kinds = (
            self._sources,
            self._many,
            self._conditions,
            self._casts,
            self._modes,
            self._into,
            self._bounds,
            self._raw_inside,
            self._selected_inside,
            self._two_inside,
            self._regex if self.has_deletes else self._cardinality,
        )
        return self.rng.choice(kinds)()

    def _sources(self) -> str:
        source = self.rng.choice(SOURCES)
        draw = self.rng.random()
        if draw < 0.3:
            columns = self.rng.choice(("f", "f, i", "*", "f, h", "f * 2", "g, f"))
            dims = self.rng.choice(("", "GROUP BY h", "GROUP BY *"))
            text = self._statement(columns, self._where(self._maybe(self._range())), dims, "")
        elif draw < 0.6:
            calls = self.rng.choice(("mean(f)", "count(f), max(i)", "last(*)", "sum(g)", "min(f)"))
            dims = self.rng.choice(("", "GROUP BY h", "GROUP BY h, z"))
            text = self._statement(calls, self._where(self._range()), dims, "")
        else:
            call = self.rng.choice(("mean(f)", "count(f), max(i)", "sum(g)", "max(f) - min(f)"))
            text = self._statement(call, self._where(self._range()), *self._by_time())
        # Which series SLIMIT counts differs where a tag finds more than there are rows.
        return text.split(" SLIMIT ")[0].replace(" FROM m", f" FROM {source}")

    def _many(self) -> str:
        names = self.rng.choice(MANY)
        source = self.rng.choice(("m", "n", "m"))
        if self.rng.random() < 0.4:
            form = self.rng.choice(TRANSFORMS[:-1]).format(names)
            if names in {"*", "*::field"}:  # of text InfluxDB refuses some and skips others
                form = self.rng.choice(("last({})", "count({})", "mean({})")).format(names)
            dims = self.rng.choice(("", "GROUP BY h"))
            text = self._statement(form, self._where(self._range()), dims, "")
        else:
            call = self.rng.choice((*AGGREGATES, *SELECTORS))
            text = self._statement(f"{call}({names})", self._where(self._range()), *self._by_time())
        # With fill(none) InfluxDB counts the rows of each column for itself.
        return text.split(" SLIMIT ")[0].split(" LIMIT ")[0].replace(" FROM m", f" FROM {source}")

    def _conditions(self) -> str:
        condition = self.rng.choice(CONDITIONS)
        if self.rng.random() < 0.3:
            condition = f"({condition}) AND {self._condition()}"
        where = f"WHERE {condition} AND {self._range()}"
        if self.rng.random() < 0.5:
            dims = self.rng.choice(("", "GROUP BY h"))
            return self._statement(self.rng.choice(("f, i", "*", "s, b, f")), where, dims, "")
        return self._statement(self._call(), where, *self._by_time())

    def _casts(self) -> str:
        cast = self.rng.choice(("f::integer", "i::float", "f::float", "s::string", "f::string"))
        name = self.rng.choice(("count", "first", "last"))
        if "string" not in cast:
            name = self.rng.choice((*AGGREGATES, *SELECTORS))
        call = f"{name}({cast})"
        if self.rng.random() < 0.5:
            return self._statement(call, self._where(self._range()), "", "")
        return self._statement(call, self._where(self._range()), *self._by_time())

    def _modes(self) -> str:
        field = self.rng.choice((*NUMBERS, "s", "b"))
        call = self.rng.choice((f"distinct({field})", f"count(distinct({field}))"))
        if self.rng.random() < 0.4:
            return self._statement(call, self._where(self._range()), "GROUP BY h", "")
        by_time, fill = self._by_time()
        fill = "" if call.startswith("distinct") else fill  # as many rows as values: none to fill
        return self._statement(call, self._where(self._range()), by_time, fill)

    def _into(self) -> str:
        """Write what a SELECT answers into a measurement, read it, drop it."""
        draw = self.rng.random()
        if draw < 0.4:
            columns = self.rng.choice(("f, i", "*", "f * 2 AS x, s", "f::integer AS x"))
            dims = self.rng.choice(("", "GROUP BY *", "GROUP BY h, r"))
            select = f"SELECT {columns} INTO written FROM m {self._where(self._range())} {dims}"
        else:
            columns = self.rng.choice(
                ("mean(f)", "max(f) AS x, count(i)", "first(s)", "sum(i)", "count(distinct(i))")
            )
            tags = self.rng.choice(("", ", h", ", *"))
            fill = self.rng.choice(("", "fill(none)", "fill(0)"))
            fill = "" if "(s)" in columns else fill
            select = (
                f"SELECT {columns} INTO written FROM m {self._where(self._range())} "
                f"GROUP BY time({self.rng.choice(WINDOWS)}){tags} {fill}"
            )
        return (
            f"{select}; SELECT * FROM written GROUP BY *; SHOW FIELD KEYS FROM written; "
            "DROP MEASUREMENT written"
        )

    def _bounds(self) -> str:
        low, high = START_S + self.rng.randint(0, 300), START_S + self.rng.randint(300, 620)
        bounds = self.rng.choice(
            (
                f"{low}s < time AND {high}s >= time",
                f"time >= {low}000ms AND time < {high}s + 10s",
                f"time >= '2023-11-14T22:02:00Z' AND time < {high}s",
                f"time >= '2023-11-14 22:02:00.5' AND time < {high}s - 1m",
                f"time = {low}s",
                f"time >= {high}s AND time < {low}s",
                f"time > now() - 36500d AND time < {high}s AND time > {low}s",
            )
        )
        if self.rng.random() < 0.5:
            return self._statement("f, i", f"WHERE {bounds}", "", "")
        dims = f"GROUP BY time({self.rng.choice(WINDOWS)})"
        return self._statement(self._call_mean(), f"WHERE {bounds}", dims, "fill(none)")

    def _cardinality(self) -> str:
        exact = self.rng.choice(("", "EXACT "))
        source = self.rng.choice(("FROM m", "FROM n", "FROM m, n", "FROM /m/"))
        where = self.rng.choice(("", "WHERE h = 'a'", "WHERE r != 'x'", "WHERE h =~ /a|b/"))
        # Of series without r InfluxDB counts no tag values, but lists them.
        present = where if "!=" not in where else ""
        key = self.rng.choice(("= h", "IN (h, r)", "=~ /h|z/", "!= h"))
        return self.rng.choice(
            (
                f"SHOW SERIES {exact}CARDINALITY {source} {where}",
                f"SHOW TAG KEY {exact}CARDINALITY {source} {where}",
                f"SHOW TAG VALUES {exact}CARDINALITY {source} WITH KEY {key} {present}",
                f"SHOW FIELD KEY {exact}CARDINALITY {source}",
                f"SHOW MEASUREMENT EXACT CARDINALITY {source}",
                "SHOW MEASUREMENTS WITH MEASUREMENT =~ /m|q/",
                f"SHOW TAG KEYS {source} {where} LIMIT 1 OFFSET {self.rng.randint(0, 1)}",
                f"SHOW TAG VALUES {source} WITH KEY {key} {where} LIMIT {self.rng.randint(1, 4)}",
                f"SHOW TAG VALUES {source} WITH KEY {key} WHERE _tagKey = 'h'",
                f"SHOW SERIES {source} {where} LIMIT {self.rng.randint(1, 4)}",
                "SHOW FIELD KEYS FROM m, n",
            )
        ).strip()

    # --- subqueries -------------------------------------------------------------------------------
    def _span(self) -> str:
        return f"WHERE time >= {START_S}s AND time < {START_S + 600}s"

    def _outside(self, inner: str, *, tags: bool) -> str:
        """Return a query around one whose numbers are called x."""
        # Text is asked for where the series of the inner query have tags.
        draw, span = self.rng.random(), self._span()
        dims = self.rng.choice(("", "GROUP BY h", "GROUP BY r, h")) if tags else ""
        if draw < 0.3:
            return (
                f"SELECT {self.rng.choice(('x', 'x * 2', 'x AS y'))} FROM ({inner}) {span} {dims}"
            )
        name = self.rng.choice(("sum", "mean", "count", "min", "max", "median", "spread"))
        if draw < 0.6:
            return f"SELECT {name}(x) FROM ({inner}) {span} {dims}"
        window = self.rng.choice(("1m", "2m", "5m"))
        dims = f"GROUP BY time({window}){self.rng.choice(('', ', h')) if tags else ''}"
        fill = self.rng.choice(("", "fill(none)", "fill(0)"))
        return f"SELECT {name}(x) FROM ({inner}) {span} {dims} {fill}"

    def _raw_inside(self) -> str:
        column = self.rng.choice(
            ("f AS x", "i AS x", "f * 2 AS x", "f + i AS x", "abs(f / 2) AS x")
        )
        where = f"{self._span()}{self._maybe(f' AND {self._condition()}')}"
        dims = self.rng.choice(("GROUP BY h, r", "GROUP BY *", ""))
        inner = f"SELECT {column} FROM m {where} {dims}"
        if self.rng.random() < 0.3:
            form = self.rng.choice(TRANSFORMS[2:6]).format("f")
            inner = f"SELECT {form} AS x FROM m {where} GROUP BY h, r"
            dims = "GROUP BY *"
        return self._outside(inner, tags=bool(dims))

    def _selected_inside(self) -> str:
        name = self.rng.choice(("sum", "mean", "count", *SELECTORS))
        # Over several inner series InfluxDB fills windows more often than there are.
        fill = self.rng.choice(("", "fill(none)"))
        inner = (
            f"SELECT {name}({self.rng.choice(NUMBERS)}) AS x FROM m {self._span()} "
            f"GROUP BY time({self.rng.choice(('20s', '30s', '1m'))}), h, r {fill}"
        )
        if self.rng.random() < 0.3:
            return f"SELECT * FROM ({inner}) {self._span()} GROUP BY h, r"
        return self._outside(inner, tags=True)

    def _two_inside(self) -> str:
        names = self.rng.sample(("mean", "sum", "count", "max"), 2)
        window = f"GROUP BY time(1m), h {self.rng.choice(('', 'fill(none)'))}"
        calls = f"{names[0]}(f) AS x, {names[1]}(i) AS y"
        inner = f"SELECT {calls} FROM m {self._span()} {window}"
        # Sums of floats that cancel one another are no divisors: the last digits decide.
        outer = self.rng.choice(("x + y", "x / y", "max(x), min(y)", "sum(x) / max(y)", "mean(y)"))
        dims = self.rng.choice(("GROUP BY h", "GROUP BY *")) if outer[0] == "x" else ""
        return f"SELECT {outer} FROM ({inner}) {self._span()} {dims}"
