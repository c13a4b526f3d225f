"""Datetimes to UTC and to microseconds and back, nothing lost."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, strategies as st

from tinyflux.times import (
    datetime_from_us,
    datetimes_from_us,
    to_utc,
    us_from_datetime,
    us_from_datetimes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=["UTC", "America/New_York", "Asia/Tokyo"])
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The time zone of this process, for a while."""
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@given(st.datetimes(timezones=st.just(UTC)))
def test_microseconds_go_there_and_back(moment: datetime) -> None:
    us = us_from_datetime(moment)
    assert datetime_from_us(us) == moment
    assert us_from_datetimes([moment]).tolist() == [us]
    assert datetimes_from_us(np.array([us])) == [moment]
    assert datetimes_from_us(np.array([us]))[0].tzinfo is UTC


def test_naive_times_are_local_and_fold_counts(zone: str) -> None:
    naive = datetime(2024, 11, 3, 1, 30)  # noqa: DTZ001
    assert to_utc(naive) == naive.astimezone(UTC)
    second = naive.replace(fold=1)
    shift = timedelta(hours=1 if zone == "America/New_York" else 0)
    assert to_utc(second) - to_utc(naive) == shift


def test_first_and_last_days_there_are(zone: str) -> None:
    for naive in (datetime.min, datetime.max):  # noqa: DTZ901
        try:
            moment = to_utc(naive)
        except ValueError as error:
            assert "time outside the years 1 to 9999" in str(error)  # noqa: PT017
            assert zone != "UTC"
        else:
            assert moment.tzinfo is UTC
            assert abs(moment.replace(tzinfo=None) - naive) < timedelta(days=1)


def test_instants_beyond_the_years_are_refused() -> None:
    with pytest.raises(ValueError, match="outside the years"):
        to_utc(datetime.min.replace(tzinfo=timezone(timedelta(hours=1))))
    with pytest.raises(ValueError, match="outside the years"):
        to_utc(datetime.max.replace(tzinfo=timezone(-timedelta(hours=1))))
