"""The series index, and views of it while it grows."""

from __future__ import annotations

import sys
import threading
import tracemalloc

import numpy as np
import pytest

from tinyflux.batch import FieldType, series_key
from tinyflux.columnar.series import IndexView, SeriesIndex


def key(host: str, measurement: str = "cpu") -> bytes:
    return series_key(measurement, [("host", host)])


def tags_of(view: IndexView, measurement: str = "cpu") -> list[dict[str, str | None]]:
    series = view.series(measurement)
    return [series.tags(i) for i in range(len(series))]


def test_ids_are_dense_and_a_known_key_keeps_its_id() -> None:
    index = SeriesIndex()
    assert [index.add(key(host)) for host in ("a", "b", "a", "c")] == [0, 1, 0, 2]
    assert index.lookup([key("c"), key("x")]) == [2, -1]
    assert len(index) == 3
    assert index.keys([2, 0]) == [key("c"), key("a")]


def test_tags_are_dictionary_coded_with_missing_as_minus_one() -> None:
    index = SeriesIndex()
    index.add(series_key("cpu", [("host", "a"), ("dc", None)]))
    index.add(series_key("cpu", [("host", "b")]))
    index.add(series_key("cpu", [("host", "a")]))
    series = index.view().series("cpu")
    assert series.columns["host"].codes.tolist() == [0, 1, 0]
    assert list(series.columns["host"].values) == ["a", "b"]
    assert series.columns["dc"].codes.tolist() == [0, -1, -1]
    assert tags_of(index.view()) == [{"dc": None, "host": "a"}, {"host": "b"}, {"host": "a"}]


def test_a_view_does_not_see_later_series_tags_fields_or_measurements() -> None:
    index = SeriesIndex()
    index.add(key("a"))
    index.set_fields(0, {"f": FieldType.FLOAT})
    view = index.view()
    for i in range(100):
        index.add(series_key("cpu", [("host", str(i)), ("dc", "x")]))
    index.add(key("a", "mem"))
    index.set_fields(0, {"f": FieldType.FLOAT, "g": FieldType.FLOAT})
    assert view.measurements() == ["cpu"]
    assert tags_of(view) == [{"host": "a"}]
    assert view.tag_keys("cpu") == ["host"]
    assert view.fields("cpu") == {"f": FieldType.FLOAT}
    assert view.count == 1
    assert index.view().measurements() == ["cpu", "mem"]
    assert index.view().tag_keys("cpu") == ["dc", "host"]
    assert index.view().count == 102


def test_an_unknown_measurement_is_empty() -> None:
    view = SeriesIndex().view()
    assert view.measurements() == []
    assert view.fields("x") == {}
    assert view.tag_keys("x") == []
    assert len(view.series("x")) == 0
    assert view.number("x") == -1


def test_an_opened_measurement_shows_only_once_it_has_a_series() -> None:
    index = SeriesIndex()
    index.open_measurement("cpu")
    assert index.view().measurements() == []
    index.add(key("a"))
    assert index.view().measurements() == ["cpu"]


def test_discarded_series_vanish_and_others_keep_their_ids() -> None:
    index = SeriesIndex()
    for host in "abc":
        index.add(key(host))
    before = index.view()
    index.discard("cpu", np.array([False, True, False]))
    after = index.view()
    assert after.series("cpu").ids.tolist() == [0, 2]
    assert tags_of(after) == [{"host": "a"}, {"host": "c"}]
    assert tags_of(before) == [{"host": "a"}, {"host": "b"}, {"host": "c"}]
    assert index.lookup([key("b")]) == [-1]
    assert index.add(key("b")) == 3


def test_a_measurement_without_series_forgets_its_fields() -> None:
    index = SeriesIndex()
    index.add(key("a"))
    number = index.view().number("cpu")
    index.set_fields(number, {"f": FieldType.FLOAT})
    index.discard("cpu", np.array([True]))
    assert index.view().measurements() == []
    index.add(key("a"))
    assert index.view().fields("cpu") == {}
    assert index.view().number("cpu") != number


def test_restore_gives_back_ids_with_their_gaps() -> None:
    index = SeriesIndex()
    index.restore([(2, key("a")), (5, key("b")), (40, key("c", "mem"))], 50)
    assert index.lookup([key("a"), key("b"), key("c", "mem")]) == [2, 5, 40]
    assert index.view().series("cpu").ids.tolist() == [2, 5]
    assert index.numbers(np.array([5, 40])).tolist() == [0, 1]
    assert index.add(key("d")) == 50


def test_views_taken_while_the_index_grows_are_consistent() -> None:
    index = SeriesIndex()
    n = 3000
    failures: list[str] = []
    done = threading.Event()

    def read() -> None:
        while not done.wait(0.0002):  # without a pause it may keep the interpreter for seconds
            view = index.view()
            series = view.series("cpu")
            if series.ids.tolist() != list(range(len(series))):
                failures.append("ids")
            hosts = series.columns.get("host")
            if hosts is None:
                continue
            if [hosts.values[code] for code in hosts.codes.tolist()] != [
                str(i) for i in range(len(series))
            ]:
                failures.append("tags")

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(n):
        index.add(series_key("cpu", [("host", str(i)), (f"k{i % 50}", "x")]))
    done.set()
    reader.join(60)
    assert not failures
    assert index.view().count == n


@pytest.mark.parametrize("name", ["", "ü", 'a"b,c= d\\'])
def test_any_text_is_a_name(name: str) -> None:
    index = SeriesIndex()
    index.add(series_key(name, [(name, name)]))
    assert index.view().measurements() == [name]
    assert tags_of(index.view(), name) == [{name: name}]


def test_series_keys_take_little_more_memory_than_their_bytes() -> None:
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    keys = [series_key("cpu", [("host", f"server{number}")]) for number in range(1000)]
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert size < 2 * sum(map(sys.getsizeof, keys))
