"""Queries on columns: which series, and which rows of a frame, a TinyFlux query matches.

Whatever is answered here equals calling the query on each Point (a property test holds it to that).
To be right by
construction, a leaf is asked itself wherever the number of questions is small: once per distinct
tag value, once per measurement, once for True and once for False. Only comparisons of numbers, text
and times, and `exists`, are done on whole columns; functions (`test`, `map`, regular expressions on
fields) see the rows that are left one by one.

On the series level a condition on fields or time is unknown. There an answer is a pair of masks:
the series for which the query can be true, and those for which it can be false.
"""

from __future__ import annotations

import math
import operator
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS, FieldType
from tinyflux.columnar.points import field_dicts, present_values
from tinyflux.membership import OneOf, OneTime, TimeSpan
from tinyflux.point import make_point
from tinyflux.queries import COMPARISONS, CompoundQuery, SimpleQuery
from tinyflux.times import EPOCH, datetimes_from_us, us_from_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from tinyflux.batch import Bools, FieldValue, Int64s
    from tinyflux.columnar.base import FieldColumn, Frame, Query, SeriesSet, TagColumn


_TIME_TESTS = (TimeSpan, OneTime)
_VALUES_PER_SERIES = 16  # from here on a table of all values costs more than looking for codes


class Prepared(NamedTuple):
    """A query taken apart for a scan.

    Attributes:
        series_part: Conditions on tags and the measurement alone; all must hold.
        row_part: The other conditions; all must hold.
        start_ns: No row before it can match.
        end_ns: No row after it can match.
    """

    series_part: tuple[Query, ...]
    row_part: tuple[Query, ...]
    start_ns: int
    end_ns: int

    def prune(self, series: SeriesSet) -> SeriesSet:
        """Return the series that can have matching rows."""
        return matching_series((*self.series_part, *self.row_part), series)

    def keep(self, frame: Frame) -> Bools | None:
        """Return bool[n], the rows of a frame of pruned series that match; None when all do."""
        mask: Bools | None = None
        for query in sorted(self.row_part, key=_asks_python):
            rows = match_rows(query, frame, mask)
            mask = rows if mask is None else mask & rows
        return mask

    def fields(self) -> set[str] | None:
        """Return the fields that `keep` looks at; None when it may look at any."""
        names: set[str] = set()
        for leaf in _all_leaves(self.row_part):
            if leaf.point_attr == "_fields" and leaf.operator != "noop":
                key = leaf.path[0]
                if not isinstance(key, str):
                    return None
                names.add(key)
        return names


def prepare(query: Query | None) -> Prepared:
    """Take a query apart. None matches everything."""
    series_part: list[Query] = []
    row_part: list[Query] = []
    start_ns, end_ns = MIN_TIME_NS, MAX_TIME_NS
    for part in _conjuncts(query) if query is not None else ():
        if needs_rows(part):
            row_part.append(part)
            first, last = _time_bounds(part)
            start_ns, end_ns = max(start_ns, first), min(end_ns, last)
        else:
            series_part.append(part)
    return Prepared(tuple(series_part), tuple(row_part), start_ns, end_ns)


def needs_rows(query: Query) -> bool:
    """Return whether the answer depends on fields or time."""
    if isinstance(query, SimpleQuery):
        return query.point_attr in ("_fields", "_time") and query.operator != "noop"
    return any(map(needs_rows, _all_leaves((query,))))


def _conjuncts(query: Query) -> Iterator[Query]:
    if isinstance(query, CompoundQuery) and query.operator is operator.and_:
        assert query.query2 is not None
        yield from _conjuncts(query.query1)
        yield from _conjuncts(query.query2)
    else:
        yield query


def _all_leaves(queries: Iterable[Query]) -> Iterator[SimpleQuery]:
    pending = list(queries)
    while pending:
        query = pending.pop()
        if isinstance(query, SimpleQuery):
            yield query
        else:
            pending.append(query.query1)
            if query.query2 is not None:
                pending.append(query.query2)


def _asks_python(query: Query) -> bool:
    """Return whether a query calls Python for each row: those go last, on what is left."""
    return any(
        leaf.point_attr in ("_fields", "_time") and not _is_columnar(leaf)
        for leaf in _all_leaves((query,))
    )


def _is_columnar(leaf: SimpleQuery) -> bool:
    if leaf.operator == "noop":
        return True
    if leaf.point_attr == "_time":
        return not leaf.path and (leaf.operator in COMPARISONS or isinstance(leaf.rhs, _TIME_TESTS))
    if isinstance(leaf.rhs, OneOf):
        return len(leaf.path) == 1
    plain = len(leaf.path) == 1 and isinstance(leaf.path[0], str)
    return plain and (leaf.operator in COMPARISONS or leaf.operator == "exists")


# Series


def matching_series(queries: Iterable[Query], series: SeriesSet) -> SeriesSet:
    """Return the series for which all the queries can be true."""
    mask: Bools | None = None
    for query in queries:
        more = series_masks(query, series)[0]
        mask = more if mask is None else mask & more
    if mask is None:
        return series
    [rows] = mask.nonzero()
    return series if len(rows) == len(series) else series.take(rows)


def series_masks(query: Query, series: SeriesSet) -> tuple[Bools, Bools]:
    """Return two masks bool[k]: series for which a query can be true; can be false."""
    if isinstance(query, SimpleQuery):
        if query.operator == "noop":
            return np.ones(len(series), np.bool_), np.zeros(len(series), np.bool_)
        if query.point_attr in ("_fields", "_time"):
            return np.ones(len(series), np.bool_), np.ones(len(series), np.bool_)
        mask = _match_tags(query, series)
        return mask, ~mask
    true1, false1 = series_masks(query.query1, series)
    if query.query2 is None:
        return false1, true1
    true2, false2 = series_masks(query.query2, series)
    if query.operator is operator.and_:
        return true1 & true2, false1 | false2
    return true1 | true2, false1 & false2


def _match_tags(leaf: SimpleQuery, series: SeriesSet) -> Bools:
    """Return bool[k] for a leaf on the measurement or the tags."""
    n = len(series)
    if leaf.point_attr == "_measurement":
        return np.full(n, leaf(make_point(EPOCH, series.measurement, {}, {})), np.bool_)
    key = leaf.path[0]
    if not isinstance(key, str):
        points = (make_point(EPOCH, "", series.tags(row), {}) for row in range(n))
        return np.fromiter((leaf(point) for point in points), np.bool_, n)
    column = series.columns.get(key)
    if column is None:
        return np.zeros(n, np.bool_)
    choice = leaf.rhs if isinstance(leaf.rhs, OneOf) and len(leaf.path) == 1 else None
    if choice is not None and not choice.is_negated and column.lookup is not None:
        known = [column.lookup[text] for text in choice.texts if text in column.lookup]
        if len(column.values) > _VALUES_PER_SERIES * n:
            return np.isin(column.codes, known)
        return _of_codes(column, known, True)
    if leaf.operator == "==" and len(leaf.path) == 1 and column.lookup is not None:
        code = column.lookup.get(leaf.rhs, -1) if _is_tag_value(leaf.rhs) else -1
        return column.codes == code if code >= 0 else np.zeros(n, np.bool_)
    return _match_values(leaf, key, column)


def _is_tag_value(value: object) -> bool:
    return value is None or isinstance(value, str)


def _match_values(leaf: SimpleQuery, key: str, column: TagColumn) -> Bools:
    """Return bool[k]; the leaf is asked once for each value that occurs."""
    values = column.values
    used: Sequence[int] = range(len(values))
    if len(column.codes) < len(values):
        used = [code for code in np.unique(column.codes).tolist() if code >= 0]
    if len(leaf.path) == 1:  # the value itself is tested: a third of the time of asking with Points
        answers = (leaf.value_test(values[code]) for code in used)
    else:
        answers = (leaf(make_point(EPOCH, "", {key: values[code]}, {})) for code in used)
    return _of_codes(column, used, np.fromiter(answers, np.bool_, len(used)))


def _of_codes(column: TagColumn, codes: Sequence[int], answers: Bools | bool) -> Bools:
    """Return bool[k], the answers of some codes for each series; false for all others."""
    table = np.zeros(len(column.values) + 1, np.bool_)  # the last entry is for code -1: no tag
    table[codes] = answers
    return table[column.codes]


# Rows


def match_rows(query: Query, frame: Frame, live: Bools | None = None) -> Bools:
    """Return bool[n], the rows of a frame that a query matches.

    Args:
        query: Its fields are among the columns of the frame, as far as the measurement has them.
        frame: The rows.
        live: bool[n], the rows that matter; the answer for the others is arbitrary. None is all.
    """
    if isinstance(query, SimpleQuery):
        return _match_leaf(query, frame, live)
    if query.query2 is None:
        return ~match_rows(query.query1, frame, live)
    first, second = query.query1, query.query2
    if _asks_python(first) and not _asks_python(second):
        first, second = second, first
    left = match_rows(first, frame, live)
    if query.operator is operator.and_:
        rest = left if live is None else left & live
        return left & match_rows(second, frame, rest) if rest.any() else rest
    rest = ~left if live is None else ~left & live
    return left | match_rows(second, frame, rest) if rest.any() else left


def _match_leaf(leaf: SimpleQuery, frame: Frame, live: Bools | None) -> Bools:
    n = len(frame)
    if leaf.operator == "noop":
        return np.ones(n, np.bool_)
    if leaf.point_attr == "_time":
        return _match_times(leaf, frame.times, live)
    if leaf.point_attr != "_fields":
        return np.repeat(_match_tags(leaf, frame.series), np.diff(frame.offsets))
    key = leaf.path[0]
    if not isinstance(key, str):
        rows = _rows(n, live)
        answers = (leaf(make_point(EPOCH, "", {}, f)) for f in field_dicts(frame, rows))
        return _scatter(n, rows, answers)
    column = frame.columns.get(key)
    if column is None:
        return np.zeros(n, np.bool_)
    if _is_columnar(leaf):
        mask = _match_column(leaf, key, column)
        if mask is not None:
            return mask
    return _match_one_by_one(leaf, key, column, live)


def _rows(n: int, live: Bools | None) -> Int64s:
    return np.arange(n) if live is None else np.flatnonzero(live)


def _scatter(n: int, rows: Int64s, answers: Iterable[bool]) -> Bools:
    mask = np.zeros(n, np.bool_)
    mask[rows] = np.fromiter(answers, np.bool_, len(rows))
    return mask


def _ask(leaf: SimpleQuery, key: str, value: FieldValue) -> bool:
    return leaf(make_point(EPOCH, "", {}, {key: value}))


def _match_column(leaf: SimpleQuery, key: str, column: FieldColumn) -> Bools | None:
    """Return bool[n] for what `_is_columnar`; None when values must be asked one by one."""
    if column.type is FieldType.BOOLEAN:
        mask = np.where(column.values, _ask(leaf, key, True), _ask(leaf, key, False))
    elif leaf.operator == "exists":
        mask = np.ones(len(column.values), np.bool_)
    elif isinstance(leaf.rhs, OneOf):
        test = leaf.rhs
        is_text = column.type is FieldType.STRING
        mask = test.match_texts(column.values) if is_text else test.match_numbers(column.values)
    elif column.type is FieldType.STRING:
        if not (isinstance(leaf.rhs, str) and leaf.operator in ("==", "!=")):
            return None
        mask = (column.values == leaf.rhs) == (leaf.operator == "==")
    elif column.type is FieldType.NONE:
        mask = np.zeros(len(column.values), np.bool_)
    elif leaf.rhs is None or (leaf.typed and not _is_number(leaf.rhs)):
        mask = np.full(len(column.values), _ask(leaf, key, 0), np.bool_)  # all numbers alike
    elif isinstance(leaf.rhs, (int, float)):
        mask = compare_numbers(column.values, leaf.operator, leaf.rhs)
    else:
        return None
    if column.valid is not None:
        mask = mask & column.valid
    if column.none is not None and _ask(leaf, key, None):
        mask = mask | column.none
    return mask


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def compare_numbers(values: np.ndarray, op: str, rhs: float) -> Bools:
    """Return bool[n]: values op rhs, exactly as Python compares int with float.

    Args:
        values: float64[n] or int64[n].
        op: One of == != < <= > >=.
        rhs: Any int or float.
    """
    if op == "!=":
        return ~compare_numbers(values, "==", rhs)
    if values.dtype == np.int64 and isinstance(rhs, float):
        return _compare_ints_with_float(values, op, rhs)
    if values.dtype == np.float64 and isinstance(rhs, int):
        return _compare_floats_with_int(values, op, int(rhs))
    mask: Bools = COMPARISONS[op](values, rhs)
    return mask


def _compare_ints_with_float(values: Int64s, op: str, rhs: float) -> Bools:
    if math.isnan(rhs):
        return np.zeros(len(values), np.bool_)
    if math.isinf(rhs):
        return np.full(len(values), COMPARISONS[op](0, rhs), np.bool_)
    if op == "==" and rhs != math.floor(rhs):
        return np.zeros(len(values), np.bool_)
    bound = math.floor(rhs) if op in ("<=", ">", "==") else math.ceil(rhs)
    mask: Bools = COMPARISONS[op](values, bound)
    return mask


def _compare_floats_with_int(values: np.ndarray, op: str, rhs: int) -> Bools:
    try:
        near = float(rhs)
    except OverflowError:
        near = math.inf if rhs > 0 else -math.inf
    exact = not math.isinf(near) and int(near) == rhs
    if not exact:
        if op == "==":
            return np.zeros(len(values), np.bool_)
        # `near` is the float next to rhs: whether it lies above or below decides on which side it
        # belongs itself.
        above = near > rhs
        op = ("<" if above else "<=") if op in ("<", "<=") else (">=" if above else ">")
    mask: Bools = COMPARISONS[op](values, near)
    return mask


def _match_one_by_one(
    leaf: SimpleQuery, key: str, column: FieldColumn, live: Bools | None
) -> Bools:
    """Return bool[n]; the leaf is asked for the values in live rows, for equal texts once."""
    n = len(column.values)
    rows = _rows(n, live)
    places, values = present_values(column, rows)
    if column.type in (FieldType.STRING, FieldType.BOOLEAN):
        known = {value: _ask(leaf, key, value) for value in set(values)}
        answers: Iterable[bool] = map(known.__getitem__, values)
    else:
        answers = (_ask(leaf, key, value) for value in values)
    return _scatter(n, rows[places], answers)


# Time


def _match_times(leaf: SimpleQuery, times: Int64s, live: Bools | None) -> Bools:
    """Return bool[n]; a time of the engine is the microsecond it lies in."""
    n = len(times)
    if _is_columnar(leaf):
        if isinstance(leaf.rhs, _TIME_TESTS):
            return leaf.rhs.match_times(times)
        if not isinstance(leaf.rhs, datetime):
            return np.full(
                n, leaf(make_point(EPOCH, "", {}, {})), np.bool_
            )  # not a time: all alike
        first, last = _microsecond(leaf.rhs)
        if leaf.operator in ("==", "!="):
            inside = (times >= first) & (times <= last)
            return inside if leaf.operator == "==" else ~inside
        bound = first if leaf.operator in ("<", ">=") else last
        mask: Bools = COMPARISONS[leaf.operator](times, bound)
        return mask
    rows = _rows(n, live)
    points = (make_point(t, "", {}, {}) for t in datetimes_from_us(times[rows] // 1000))
    return _scatter(n, rows, (leaf(point) for point in points))


def _microsecond(time: datetime) -> tuple[int, int]:
    """Return the first and the last nanosecond of the microsecond of an aware time."""
    first = us_from_datetime(time) * 1000
    return first, first + 999


def _time_bounds(query: Query) -> tuple[int, int]:
    """Return a closed time interval (ns) that holds every match."""
    everything = MIN_TIME_NS, MAX_TIME_NS
    if isinstance(query, SimpleQuery):
        is_time = query.point_attr == "_time" and _is_columnar(query)
        if is_time and isinstance(query.rhs, _TIME_TESTS):
            return _clamp(query.rhs.bounds())
        if not is_time or query.operator == "!=" or not isinstance(query.rhs, datetime):
            return everything
        first, last = _microsecond(query.rhs)
        bounds: dict[str, tuple[int, int]] = {
            "==": (first, last),
            "<": (MIN_TIME_NS, first - 1),
            "<=": (MIN_TIME_NS, last),
            ">": (last + 1, MAX_TIME_NS),
            ">=": (first, MAX_TIME_NS),
        }
        return _clamp(bounds[query.operator])
    if query.query2 is None:
        return everything
    (first1, last1), (first2, last2) = _time_bounds(query.query1), _time_bounds(query.query2)
    if query.operator is operator.and_:
        return max(first1, first2), min(last1, last2)
    return min(first1, first2), max(last1, last2)


def _clamp(bounds: tuple[int, int]) -> tuple[int, int]:
    """Return the bounds inside int64; an interval outside becomes an empty one."""
    return min(bounds[0], MAX_TIME_NS + 1), max(bounds[1], MIN_TIME_NS - 1)
