"""Joins of named sources against loops over all pairs of rows."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.errors import StatementError
from gateway.executor import run_select
from gateway.lineprotocol.parser import parse as parse_lines
from gateway.session import Session
from grammar import ast
from grammar.parser import parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Tags = frozenset[tuple[str, str]]
Row = tuple[int, Tags, dict[str, float]]  # time, tags, values


def _sources(tags: list[str]) -> st.SearchStrategy[dict[tuple[int, Tags], float]]:
    """Return points of one field by time and tags."""
    sets = st.fixed_dictionaries({tag: st.sampled_from(["", "p", "q"]) for tag in tags})
    keys = st.tuples(
        st.integers(0, 3),
        sets.map(lambda given: frozenset(item for item in given.items() if item[1])),
    )
    return st.dictionaries(keys, st.integers(1, 9).map(float), max_size=6)


def _lines(measurement: str, points: Mapping[tuple[int, Tags], float]) -> Iterator[str]:
    for (time, tags), value in points.items():
        yield ",".join([measurement, *("=".join(tag) for tag in tags)]) + f" v={value} {time}"


def _joined(left: list[Row], right: list[Row]) -> list[Row] | None:
    """Return all pairs of the same time and common tags, and the rows that have none."""
    keys = [{key for _, tags, _ in side for key, _ in tags} for side in (left, right)]
    common = keys[0] & keys[1]

    def same(one: Row, other: Row) -> bool:
        shared = [{(k, v) for k, v in tags if k in common} for _, tags, _ in (one, other)]
        return one[0] == other[0] and shared[0] == shared[1]

    partners = [[row for row in right if same(row, one)] for one in left]
    several = [found for found in partners if len(found) > 1]
    if any(sum(same(one, row) for one in left) > 1 for found in several for row in found):
        return None
    rows: list[Row] = []
    for one, found in zip(left, partners, strict=True):
        rows += [(one[0], one[1] | other[1], {**one[2], **other[2]}) for other in found] or [one]
    return rows + [row for row in right if not any(same(one, row) for one in left)]


CONDITIONS: dict[str, Callable[[dict[str, str], dict[str, float]], bool]] = {
    "": lambda _tags, _values: True,
    " WHERE h = 'p'": lambda tags, _: tags.get("h") == "p",
    " WHERE h =~ /^(p|x)$/ AND a.v > 3": lambda tags, values: (
        tags.get("h") == "p" and values.get("a.v", 0) > 3
    ),
    " WHERE (i = 'p' OR i = 'q') AND b.v > 3": lambda tags, values: (
        tags.get("i") in {"p", "q"} and values.get("b.v", 0) > 3
    ),
    " WHERE h != 'p'": lambda tags, _: tags.get("h") != "p",
    " WHERE h = '' OR h = 'q'": lambda tags, _: tags.get("h") in {None, "q"},
    " WHERE h = 'p' OR j = 'q'": lambda tags, _: tags.get("h") == "p" or tags.get("j") == "q",
    " WHERE h IN ('p', 'x') AND i LIKE '_'": lambda tags, _: (
        tags.get("h") == "p" and tags.get("i", "") != ""
    ),
    " WHERE NOT (h IN ('p', 'x'))": lambda tags, _: tags.get("h") != "p",
    " WHERE h LIKE '%'": lambda _tags, _values: True,
    " WHERE h = i": lambda tags, _: tags.get("h", "") == tags.get("i", "") != "",
}


@settings(max_examples=80, deadline=None)
@given(
    _sources(["h", "i"]),
    _sources(["h", "j"]),
    st.one_of(st.none(), _sources(["h"])),
    st.sampled_from(list(CONDITIONS)),
    st.sampled_from(["", " ORDER BY time DESC"]),
)
def test_join_is_all_pairs_that_match(
    a: dict[tuple[int, Tags], float],
    b: dict[tuple[int, Tags], float],
    c: dict[tuple[int, Tags], float] | None,
    condition: str,
    order: str,
) -> None:
    catalog = Catalog(None, Settings())
    catalog.create_database("d")
    sources = {"a": a, "b": b} | ({} if c is None else {"c": c})
    lines = "\n".join(line for name, points in sources.items() for line in _lines(name, points))
    catalog.storage("d").append_batch(parse_lines(lines.encode(), now_ns=0).batch)
    columns = [f"{name}.v" for name in sources]
    (select,) = parse(
        f"SELECT {', '.join(columns)} FROM {', '.join(f'{name} AS {name}' for name in sources)}"
        f"{condition} GROUP BY *{order}"
    )
    assert isinstance(select, ast.Select)
    session = Session(catalog, Settings(), 0, "d")

    expected: list[Row] | None = []
    for name, points in sources.items():
        side = [(time, tags, {f"{name}.v": value}) for (time, tags), value in points.items()]
        if expected:
            expected = _joined(expected, side)
        elif expected is not None:
            expected = side
    if expected is None and condition:
        return  # whether they match several to several is found out among the rows that are read
    if expected is None:
        with pytest.raises(StatementError, match="group both by the same tags"):
            run_select(select, session)
        return

    found: Counter[object] = Counter()
    for series in run_select(select, session):
        assert series.name == "_".join(sources)
        tags = frozenset(item for item in (series.tags or {}).items() if item[1])
        cells = [cells.values.tolist() for cells in series.cells()]  # type: ignore[union-attr]
        masks = [cells.mask().tolist() for cells in series.cells()]  # type: ignore[union-attr]
        times = cells[0]
        assert times == sorted(times, reverse=bool(order))
        for n, time in enumerate(times):
            values = [
                column[n] if mask[n] else None for column, mask in zip(cells, masks, strict=True)
            ]
            found[(time, tags, tuple(values[1:]))] += 1
    assert found == Counter(
        (time, tags, tuple(values.get(column) for column in columns))
        for time, tags, values in expected
        if CONDITIONS[condition](dict(tags), values)
    )
