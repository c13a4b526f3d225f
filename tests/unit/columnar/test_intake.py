"""Intake: field types, new series, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinyflux.batch import BatchBuilder, FieldType, PointBatch, series_key
from tinyflux.columnar.base import Rejection
from tinyflux.columnar.intake import MAX_FIELDS, Intake, join
from tinyflux.columnar.series import SeriesIndex
from tinyflux.errors import FieldTypeConflict


def batch_of(*points: tuple[str, str, int, dict[str, Any]]) -> PointBatch:
    builder = BatchBuilder()
    for measurement, host, time, fields in points:
        builder.add(series_key(measurement, [("host", host)]), time, fields.items())
    return builder.build()


def intake_on(*, overwrite: bool = True) -> tuple[Intake, SeriesIndex]:
    index = SeriesIndex()
    return Intake(index, overwrite=overwrite), index


def test_a_batch_gets_the_numbers_of_the_store() -> None:
    intake, index = intake_on()
    intake.take(batch_of(("mem", "z", 0, {"x": 1})))
    taken = intake.take(
        batch_of(("cpu", "a", 1, {"f": 1.0}), ("mem", "z", 2, {"x": 2}), ("cpu", "b", 3, {}))
    )
    assert taken.block.ids.tolist() == [1, 0, 2]
    assert taken.block.times.tolist() == [1, 2, 3]
    shapes = [intake.shapes[i] for i in taken.block.shapes]
    assert [index.measurement(shape.measurement).name for shape in shapes] == ["cpu", "mem", "cpu"]
    assert [dict(shape.layout) for shape in shapes] == [
        {"f": FieldType.FLOAT},
        {"x": FieldType.INTEGER},
        {},
    ]


@pytest.mark.parametrize(("value", "kind"), [(1, "integer"), ("x", "string"), (True, "boolean")])
def test_a_value_of_another_type_is_refused_in_the_words_of_influxdb(value: Any, kind: str) -> None:
    intake, index = intake_on()
    intake.take(batch_of(("cpu", "a", 0, {"f": 1.0})))
    taken = intake.take(batch_of(("cpu", "a", 1, {"f": value}), ("cpu", "b", 2, {"f": 2.0})))
    reason = (
        'field type conflict: input field "f" on measurement "cpu" is type '
        f"{kind}, already exists as type float"
    )
    assert taken.rejected == (Rejection(1, reason),)
    assert taken.block.times.tolist() == [2]
    assert len(taken.batch) == 1
    assert index.view().fields("cpu") == {"f": FieldType.FLOAT}


def test_a_refused_point_makes_no_series_and_no_field() -> None:
    intake, index = intake_on()
    intake.take(batch_of(("cpu", "a", 0, {"f": 1.0})))
    intake.take(batch_of(("cpu", "new", 0, {"g": 1, "f": "text"})))
    assert index.view().count == 1
    assert index.view().fields("cpu") == {"f": FieldType.FLOAT}


def test_within_a_batch_the_first_point_settles_the_type() -> None:
    intake, _ = intake_on()
    first, second, third = (
        ("cpu", "a", 1, {"f": 1}),
        ("cpu", "a", 2, {"f": 1.0}),
        ("cpu", "a", 3, {"f": 2}),
    )
    taken = intake.take(batch_of(first, second, third))
    assert taken.block.times.tolist() == [1, 3]
    assert [rejection.points for rejection in taken.rejected] == [1]


def test_numbers_mix_where_points_are_not_merged() -> None:
    intake, index = intake_on(overwrite=False)
    intake.take(batch_of(("cpu", "a", 0, {"f": 1})))
    assert index.view().fields("cpu") == {"f": FieldType.INTEGER}
    taken = intake.take(batch_of(("cpu", "a", 1, {"f": 1.5}), ("cpu", "a", 2, {"f": 3})))
    assert not taken.rejected
    assert index.view().fields("cpu") == {"f": FieldType.FLOAT}
    assert intake.take(batch_of(("cpu", "a", 3, {"f": "x"}))).rejected


def test_a_field_that_only_was_none_takes_any_type() -> None:
    intake, index = intake_on()
    intake.take(batch_of(("cpu", "a", 0, {"f": None})))
    assert index.view().fields("cpu") == {"f": FieldType.NONE}
    intake.take(batch_of(("cpu", "a", 0, {"f": "x"})))
    assert not intake.take(batch_of(("cpu", "a", 0, {"f": None}))).rejected
    assert index.view().fields("cpu") == {"f": FieldType.STRING}


def test_strict_takes_all_or_nothing() -> None:
    intake, index = intake_on()
    intake.take(batch_of(("cpu", "a", 0, {"f": 1.0})))
    with pytest.raises(FieldTypeConflict, match="is type string"):
        intake.take(batch_of(("cpu", "b", 1, {"g": 1}), ("cpu", "b", 1, {"f": "x"})), strict=True)
    assert index.view().count == 1
    assert index.view().fields("cpu") == {"f": FieldType.FLOAT}


def test_keys_without_a_point_make_no_series() -> None:
    intake, index = intake_on()
    batch = batch_of(("cpu", "a", 0, {"f": 1.0}), ("cpu", "b", 0, {"f": 1.0}))
    intake.take(batch.take(np.array([False, True])))
    assert index.view().count == 1


def test_the_block_shares_no_memory_with_a_view_of_the_request() -> None:
    intake, _ = intake_on()
    batch = batch_of(("cpu", "a", 0, {"f": 1.0}))
    body = np.concatenate([batch.times, batch.values])
    batch.times, batch.values = body[:1], body[1:]
    block = intake.take(batch).block
    assert not np.shares_memory(block.times, body)
    assert not np.shares_memory(block.values, body)


def test_many_measurements_and_layouts_need_no_table_of_all_pairs() -> None:
    intake, index = intake_on()
    points = [(f"m{i}", "a", i, {f"f{i}": i}) for i in range(1000)]
    taken = intake.take(batch_of(*points))  # a million pairs, a thousand of which occur
    assert len(intake.shapes) == 1000
    assert taken.block.shapes.tolist() == list(range(1000))
    assert index.view().fields("m7") == {"f7": FieldType.INTEGER}


def test_joined_batches_hold_the_points_of_all() -> None:
    first = batch_of(("cpu", "a", 0, {"s": "x", "i": 1}), ("cpu", "b", 1, {"f": 2.0}))
    second = batch_of(("cpu", "b", 2, {"f": 3.0}), ("mem", "a", 3, {"i": 4, "s": "y"}))
    joined = join([first, second])
    assert list(joined.rows()) == [*first.rows(), *second.rows()]
    assert len(set(joined.keys)) == len(joined.keys) == 3
    assert len(join([])) == 0


def test_an_empty_batch_is_taken() -> None:
    intake, index = intake_on()
    assert len(intake.take(BatchBuilder().build()).block) == 0
    nothing = batch_of(("cpu", "a", 0, {"f": 1.0})).take(np.array([False]))
    assert len(intake.take(nothing).block) == 0
    nothing.keys = []
    assert len(intake.take(nothing).block) == 0
    assert index.view().count == 0


def test_points_that_would_give_a_measurement_too_many_fields_are_refused() -> None:
    intake, index = intake_on()
    intake.take(batch_of(("cpu", "a", 0, {f"f{i}": 1.0 for i in range(MAX_FIELDS - 1)})))
    taken = intake.take(
        batch_of(("cpu", "a", 1, {"x": 1.0, "y": 1.0}), ("cpu", "a", 2, {"x": 1.0, "f1": 2.0}))
    )
    reason = f'too many fields: measurement "cpu" may have {MAX_FIELDS}'
    assert taken.rejected == (Rejection(1, reason),)
    assert taken.block.times.tolist() == [2]
    assert len(index.view().fields("cpu")) == MAX_FIELDS
    later = intake.take(batch_of(("cpu", "b", 3, {"f7": 1.0}), ("mem", "a", 3, {"new": 1.0})))
    assert later.rejected == ()
