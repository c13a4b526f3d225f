"""Any text in a CSV file is read back as written, by index and scan, and after rewrites."""

from __future__ import annotations

import copy
import tempfile
from datetime import UTC
from pathlib import Path

from hypothesis import given, settings, strategies as st

from tinyflux import FieldQuery, Point, TagQuery, TimeQuery, TinyFlux

text = st.text(st.sampled_from("ab_,\"'\r\n\0\ufeff\u20ac t.f0"), max_size=6) | st.text(max_size=4)
points = st.builds(
    Point,
    time=st.datetimes(timezones=st.just(UTC)),
    measurement=text,
    tags=st.dictionaries(text, st.none() | text, max_size=3),
    fields=st.dictionaries(
        text,
        st.none() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False),
        max_size=3,
    ),
)


def read_back(point: Point) -> str:
    return repr(Point()._deserialize_from_list(point._serialize_to_list()))


@given(st.lists(points, min_size=1, max_size=6), st.data())
@settings(max_examples=60, deadline=None)
def test_any_text_survives_a_csv_file(given_points: list[Point], data: st.DataObject) -> None:
    expected = [read_back(point) for point in given_points]
    compact = data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "db.csv"
        with TinyFlux(path, flush_on_insert=False) as db:
            db.insert_multiple(copy.deepcopy(given_points), compact_key_prefixes=compact)
            assert [repr(point) for point in db.all(sorted=False)] == expected
        with TinyFlux(path) as db, TinyFlux(path, auto_index=False, access_mode="r") as scanned:
            assert [repr(point) for point in db.all(sorted=False)] == expected
            assert [repr(point) for point in scanned.all(sorted=False)] == expected
            assert [repr(point) for point in db] == expected
            gone = data.draw(st.sampled_from(given_points))
            query = TimeQuery() == gone.time
            assert db.count(query) == scanned.count(query)
            kept = [
                text for text, point in zip(expected, given_points, strict=True) if not query(point)
            ]
            db.remove(query)
            assert [repr(point) for point in db.all(sorted=False)] == kept
            db.update(~FieldQuery().new.exists() & TagQuery().noop(), fields={"new": 1.0})
        with TinyFlux(path) as db:
            assert len(db) == len(kept)
            assert db.get_field_values("new") == [1.0] * len(kept)
            db.update_all(unset_fields="new")
            if not any("new" in point.fields for point in given_points):
                assert [repr(point) for point in db.all(sorted=False)] == kept
