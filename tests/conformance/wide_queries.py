"""More random statements: what `random_queries` leaves out, over the same data.

Math, casts, regexes, wildcards in functions, technical analysis, integral, tz(), deeper
subqueries, several sources, SHOW. Where InfluxDB's answer is a matter of chance or known to be
wrong the statement is not made; a comment says what is avoided.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.conformance.random_queries import (
    AGGREGATES,
    NUMBERS,
    SELECTORS,
    START_S,
    TRANSFORMS,
    WINDOWS,
    Statements,
)

MATH = ("abs", "floor", "ceil", "round", "sqrt", "exp", "ln", "log2", "log10", "sin", "cos", "atan")
TECHNICAL = (
    "exponential_moving_average({}, 3)",
    "double_exponential_moving_average({}, 2)",
    "triple_exponential_moving_average({}, 2)",
    "triple_exponential_derivative({}, 2)",
    "relative_strength_index({}, 3)",
    "chande_momentum_oscillator({}, 3)",
    "kaufmans_efficiency_ratio({}, 3)",
    "kaufmans_adaptive_moving_average({}, 3)",
)
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC")
EXPRESSIONS = (
    "f + i",
    "f - 2",
    "i * 3",
    "f / i",
    "i % 4",
    "(f + 1) * i",
    "-f",
    "i / 2 + f",
    "i & 3",
)
CASTS = ("f::integer", "i::float", "f::float", "i::integer", "s::string", "b::boolean", "h::tag")


@dataclass(slots=True)
class WideStatements(Statements):
    """A source of random statements of all kinds.

    Attributes:
        has_deletes: Series were deleted, whose tag values InfluxDB goes on to show.
    """

    has_deletes: bool = False

    def any(self) -> str:
        """Return one statement."""
        kinds = (
            self.select,
            self._expression,
            self._math,
            self._zoned,
            self._technical,
            self._regex,
            self._other_aggregates,
            self._streams,
            self._deep,
            self._regex if self.has_deletes else self._show,
        )
        return self.rng.choice(kinds)()

    def _expression(self) -> str:
        columns = ", ".join(self._some((*EXPRESSIONS, *CASTS), 2))
        dims = self.rng.choice(("", "GROUP BY h", "GROUP BY *"))
        return self._statement(columns, self._where(self._maybe(self._range())), dims, "")

    def _math(self) -> str:
        name = self.rng.choice(MATH)
        if self.rng.random() < 0.5:
            inner = self.rng.choice(("f / 10", "f / 7"))  # abs of integers does nothing there
            return self._statement(f"{name}({inner})", self._where(self._range()), "", "")
        # abs leaves integers as they are there, exp shows the last digits of sums as whole numbers.
        name = self.rng.choice([name for name in MATH if name not in {"abs", "exp"}])
        call = f"{self.rng.choice(AGGREGATES)}({self.rng.choice(NUMBERS)})"
        column = self.rng.choice((f"{name}({call})", f"{name}({call}) * 2", f"pow({call}, 2)"))
        return self._statement(column, self._where(self._range()), *self._by_time())

    def _zoned(self) -> str:
        window = self.rng.choice(("1m", "10m", "1h", "1d", "1d", "12h"))
        tags = self.rng.choice(("", ", h"))
        fill = self.rng.choice(("", "fill(none)", "fill(0)", "fill(previous)"))
        text = self._statement(self._call_mean(), self._where(self._range()), "", "")
        order = self._maybe("ORDER BY time DESC", 0.3)
        base = text.split(" ORDER BY ")[0].split(" LIMIT ")[0]
        zone = f"tz('{self.rng.choice(ZONES)}')"
        return " ".join(filter(None, (base, f"GROUP BY time({window}){tags}", fill, order, zone)))

    def _call_mean(self) -> str:
        name = self.rng.choice((*AGGREGATES, *SELECTORS))
        return f"{name}({self.rng.choice(NUMBERS)})"

    def _technical(self) -> str:
        form = self.rng.choice(TECHNICAL)
        # Sums of floats that cancel one another depend on the order of adding.
        if self.rng.random() < 0.5:
            column = form.format("i")
            dims = self.rng.choice(("", "GROUP BY *"))
            return self._statement(column, self._where(self._maybe(self._range())), dims, "")
        # The stddev of one point is NaN there, which some of these take for a number.
        column = form.format(f"{self.rng.choice(AGGREGATES[:-1])}(i)")
        return self._statement(column, self._where(self._range()), *self._by_time())

    def _regex(self) -> str:
        draw = self.rng.random()
        pattern = self.rng.choice(("/f/", "/^[fi]$/", "/./", "/x/", "/s|b/", "/h|r/"))
        if draw < 0.3:
            dims = self.rng.choice(("", "GROUP BY /h/", "GROUP BY /./"))
            return self._statement(pattern, self._where(self._maybe(self._range())), dims, "")
        name = self.rng.choice(("mean", "count", "first", "last", "min", "max", "sum"))
        if draw < 0.6:
            dims = self.rng.choice(("", "GROUP BY h", "GROUP BY /r/"))
            return self._statement(f"{name}({pattern})", self._where(self._range()), dims, "")
        source = self.rng.choice(("/m/", "/^m$/", "/nothing/"))
        dims = self.rng.choice(("", "GROUP BY h"))
        return f"SELECT {name}(f) FROM {source} {self._where(self._range())} {dims}".strip()

    def _other_aggregates(self) -> str:
        if self.rng.random() < 0.2:
            return self._integral()
        column = self.rng.choice(
            (
                f"percentile({self.rng.choice(NUMBERS)}, 95), count(f)",
                f"sum({self.rng.choice(NUMBERS)}) / count({self.rng.choice(NUMBERS)})",
                "max(f) - min(f), mean(i) AS m",
                "first(f) AS a, last(f) AS b, spread(i)",
            )
        )
        if self.rng.random() < 0.4:
            dims = self.rng.choice(("", "GROUP BY h", "GROUP BY r, h"))
            return self._statement(column, self._where(self._maybe(self._range())), dims, "")
        return self._statement(column, self._where(self._range()), *self._by_time())

    def _streams(self) -> str:
        """Functions side by side that give rows at times of their own, samples of all there is."""
        fields = (*NUMBERS, "s")
        samples = [f"sample({self.rng.choice(fields)}, 1000)" for _ in range(2)]
        aggregate = f"{self.rng.choice((*AGGREGATES, *SELECTORS))}({self.rng.choice(NUMBERS)})"
        fill = self.rng.choice(("", "fill(none)", "fill(0)", "fill(2.5)", "fill(previous)"))
        tags = self.rng.choice(("", "h", "*"))
        if self.rng.random() < 0.5:
            form = self.rng.choice(TRANSFORMS)
            changes = [form.format(self.rng.choice(NUMBERS)) for _ in range(2)]
            columns = self._some((*samples, aggregate, *changes, "sample(i, 1000) * 2"), 4)
            where = self._where(self._maybe(self._range()))
            dims = self._maybe(f"GROUP BY {tags}") if tags else ""
        else:
            form = self.rng.choice(TRANSFORMS)
            columns = self._some((*samples, aggregate, form.format(aggregate)), 3)
            where = self._where(self._range())
            dims = f"GROUP BY time({self.rng.choice(WINDOWS)}){tags and ', ' + tags}"
        return f"SELECT {', '.join(columns)} FROM m {where} {dims} {fill}".strip()

    def _integral(self) -> str:
        # InfluxDB fills no windows here, gets descending ones wrong, loses a part of integers.
        column = f"integral(f{self._maybe(', 1m')})"
        where = f"WHERE h = 'a' AND {self._range()}"
        if self.rng.random() < 0.5:
            return f"SELECT {column} FROM m {where}"
        return (
            f"SELECT {column} FROM m {where} GROUP BY time({self.rng.choice(WINDOWS)}) fill(none)"
        )

    def _deep(self) -> str:
        inner = f"SELECT mean({self.rng.choice(NUMBERS)}) AS x FROM m "
        low, high = START_S, START_S + 600
        where = f"WHERE time >= {low}s AND time < {high}s"
        inner += f"{where} GROUP BY time(20s), h, r fill(none)"
        call = self.rng.choice(("max(x)", "min(x)", "sum(x)", "mean(x)"))
        middle = f"SELECT {call} AS y FROM ({inner}) {where} GROUP BY time(1m), h fill(none)"
        last = self.rng.choice(("sum(y)", "count(y)", "max(y)", "y", "y * 2", "derivative(y, 1m)"))
        dims = "" if last[0] in "yd" else self.rng.choice(("", "GROUP BY h", "GROUP BY time(5m)"))
        if last.startswith("derivative"):
            dims = "GROUP BY h"
        return f"SELECT {last} FROM ({middle}) {where} {dims}".strip()

    def _show(self) -> str:
        tag_where = self.rng.choice(
            ("", "", "WHERE h = 'a'", "WHERE r != 'x'", "WHERE h =~ /a|b/", "WHERE r = ''")
        )
        limit = self._maybe(f"LIMIT {self.rng.randint(1, 4)}", 0.3)
        if limit:
            limit += self._maybe(" OFFSET 1", 0.4)
        key = self.rng.choice(("= h", "= r", "IN (h, r)", "!= h", "=~ /h|r/", "!~ /h/"))
        form = self.rng.choice(
            (
                "SHOW MEASUREMENTS",
                "SHOW TAG KEYS",
                "SHOW TAG KEYS FROM m",
                f"SHOW TAG VALUES WITH KEY {key}",
                f"SHOW TAG VALUES FROM m WITH KEY {key}",
                "SHOW SERIES",
                "SHOW SERIES FROM m",
                "SHOW FIELD KEYS",
            )
        )
        if form == "SHOW FIELD KEYS" or (form == "SHOW MEASUREMENTS" and "=~" not in tag_where):
            return f"{form} {limit}".strip()  # it finds no measurement by a tag's absence
        return " ".join(part for part in (form, tag_where, limit) if part)
