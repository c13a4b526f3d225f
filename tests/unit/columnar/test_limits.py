"""Limits of series: which points come in, what is said of the others, what is never refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings, strategies as st

from tinyflux.batch import BatchBuilder, PointBatch, series_key
from tinyflux.columnar.base import DeleteRequest, Rejection, ScanRequest
from tinyflux.columnar.limits import SeriesLimits
from tinyflux.columnar.parquet import ParquetStorage
from tinyflux.errors import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Series = tuple[str, tuple[tuple[str, str], ...]]


def batch_of(rows: Iterable[Series]) -> PointBatch:
    builder = BatchBuilder()
    for time, (measurement, tags) in enumerate(rows):
        builder.add(series_key(measurement, tags), time, [("v", 1.0)])
    return builder.build()


def of_hosts(*hosts: str, measurement: str = "m") -> PointBatch:
    return batch_of((measurement, (("h", host),)) for host in hosts)


def hosts_of(store: ParquetStorage, measurement: str = "m") -> list[str | None]:
    series = store.series(measurement)
    return [series.tags(row)["h"] for row in range(len(series))]


def test_series_beyond_the_limit_are_refused_and_points_of_known_series_kept() -> None:
    store = ParquetStorage(overwrite=True, limits=SeriesLimits(max_series=2))
    result = store.append_batch(of_hosts("a", "b", "c", "a", "c", "d"))
    reason = "max-series-per-database limit exceeded: (2)"
    assert (result.stored, result.rejected) == (3, (Rejection(3, reason, is_limit=True),))
    assert hosts_of(store) == ["a", "b"]


def test_series_of_a_hidden_measurement_are_not_counted() -> None:
    store = ParquetStorage(overwrite=True, limits=SeriesLimits(max_series=2))
    store.append_batch(of_hosts("a", "b"))
    store.rename_measurement("m", "\0m")
    assert store.append_batch(of_hosts("c", "d", measurement="n")).stored == 2
    result = store.append_batch(of_hosts("d", "e", measurement="n"))
    assert (result.stored, store.stats()["series"]) == (1, 2)
    assert result.rejected[0].reason.endswith('tag "h" of measurement "n" has most values: 2')


def test_the_tag_with_most_values_is_named() -> None:
    store = ParquetStorage(overwrite=True, limits=SeriesLimits(max_series=3))
    store.append_batch(batch_of([("z", (("g", "1"),)), ("m", (("g", "1"), ("h", "2")))]))
    store.append_batch(of_hosts("3"))
    (rejection,) = store.append_batch(of_hosts("2", "4")).rejected
    assert rejection.points == 2
    assert rejection.reason == (
        'max-series-per-database limit exceeded: (3); tag "h" of measurement "m" has most values: 2'
    )


def test_values_beyond_the_limit_are_refused_with_the_first_of_them() -> None:
    store = ParquetStorage(overwrite=True, limits=SeriesLimits(max_values=2))
    result = store.append_batch(of_hosts("a", "b", 'c"', "a"))
    reason = r'max-values-per-tag limit exceeded (2/2): measurement="m" tag="h" value="c\""'
    assert (result.stored, result.rejected) == (3, (Rejection(1, reason, is_limit=True),))
    assert store.append_batch(of_hosts("c", "d", measurement="n")).stored == 2


def test_stores_that_share_limits_share_the_room_until_one_closes() -> None:
    limits = SeriesLimits(max_series=3)
    one, two = (ParquetStorage(overwrite=True, limits=limits) for _ in range(2))
    assert one.append_batch(of_hosts("a", "b")).stored == 2
    assert two.append_batch(of_hosts("a", "b")).stored == 1
    one.close()
    assert two.append_batch(of_hosts("b", "c")).stored == 2


def test_deleting_makes_room() -> None:
    store = ParquetStorage(overwrite=True, limits=SeriesLimits(max_series=2, max_values=2))
    store.append_batch(of_hosts("a", "b"))
    assert store.append_batch(of_hosts("c")).stored == 0
    store.delete(DeleteRequest("m", None, 1, 1))
    assert store.append_batch(of_hosts("c")).stored == 1


def test_what_is_stored_is_there_after_reopening_under_a_lower_limit(tmp_path: Path) -> None:
    with_three = ParquetStorage(tmp_path, overwrite=True, limits=SeriesLimits(max_series=3))
    assert with_three.append_batch(of_hosts("a", "b", "c", "d")).stored == 3
    with_three.close()
    store = ParquetStorage(tmp_path, overwrite=True, limits=SeriesLimits(1, 1))
    assert hosts_of(store) == ["a", "b", "c"]
    assert store.append_batch(of_hosts("a", "b", "e")).stored == 2
    store.close()


def test_long_names_are_cut_in_reasons() -> None:
    store = ParquetStorage(overwrite=True, limits=SeriesLimits(max_values=1))
    (rejection,) = store.append_batch(of_hosts("a", "b" * 60_000)).rejected
    assert len(rejection.reason) < 400


SERIES = st.tuples(
    st.sampled_from(["m", "n"]),
    st.dictionaries(st.sampled_from("gh"), st.sampled_from("abcd")).map(
        lambda tags: tuple(sorted(tags.items()))
    ),
)


def naive(
    known: list[Series], rows: Iterable[Series], max_series: int, max_values: int
) -> list[Series]:
    """Return the rows that come in; known grows."""
    accepted = []
    refused: set[Series] = set()
    for series in rows:
        name, tags = series
        if series not in known:
            values = {
                key: {dict(t)[key] for n, t in known if n == name and key in dict(t)}
                for key, _ in tags
            }
            is_full = any(len(values[k] | {v}) > max_values and v not in values[k] for k, v in tags)
            if (max_values and is_full) or (max_series and len(known) >= max_series):
                refused.add(series)
        if series in refused:
            continue
        if series not in known:
            known.append(series)
        accepted.append(series)
    return accepted


@given(
    batches=st.lists(st.lists(SERIES, max_size=8), max_size=4),
    max_series=st.integers(0, 5),
    max_values=st.integers(0, 3),
)
@settings(max_examples=80)
def test_the_points_that_come_in_are_those_of_a_naive_check(
    batches: list[list[Series]], max_series: int, max_values: int
) -> None:
    store = ParquetStorage(overwrite=False, limits=SeriesLimits(max_series, max_values))
    known: list[Series] = []
    n_stored = 0
    for rows in batches:
        accepted = naive(known, rows, max_series, max_values)
        batch = batch_of(rows)
        refused = len(rows) - len(accepted)
        if refused:
            with pytest.raises(LimitExceeded):
                store.append_batch(batch, strict=True)
        result = store.append_batch(batch)
        assert result.stored == len(accepted)
        assert sum(r.points for r in result.rejected if r.is_limit) == refused
        n_stored += len(accepted)
    assert store.series_count() == len(known)
    names = store.measurements()
    assert sum(len(f) for name in names for f in store.scan(ScanRequest(name))) == n_stored


def test_reasons_are_bounded_and_all_points_counted() -> None:
    store = ParquetStorage(overwrite=True, limits=SeriesLimits(0, 1))
    rows = [("m", (("t", f"v{number}"),)) for number in range(2_000)]
    result = store.append_batch(batch_of(rows))
    assert result.stored == 1
    assert sum(rejection.points for rejection in result.rejected) == 1_999
    assert len(result.rejected) == 1_000
