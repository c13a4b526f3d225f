"""Times as epoch numbers and as RFC 3339 text."""

from __future__ import annotations

import random

import numpy as np
import pytest

from gateway.encoding.times import epoch_unit, to_epoch, to_rfc3339

TEXTS = [
    (0, "1970-01-01T00:00:00Z"),
    (1_500_000_000_100_000_000, "2017-07-14T02:40:00.1Z"),
    (1_500_000_000_123_456_789, "2017-07-14T02:40:00.123456789Z"),
    (1_500_000_000_000_000_010, "2017-07-14T02:40:00.00000001Z"),
    (1_709_164_800_000_000_000, "2024-02-29T00:00:00Z"),
    (-1, "1969-12-31T23:59:59.999999999Z"),
    (-1_500_000_001, "1969-12-31T23:59:58.499999999Z"),
    (-9223372036854775806, "1677-09-21T00:12:43.145224194Z"),
    (9223372036854775806, "2262-04-11T23:47:16.854775806Z"),
]


@pytest.mark.parametrize("n_copies", [1, 50], ids=["loop", "arrays"])
def test_time_prints_with_as_many_decimals_as_it_needs(n_copies: int) -> None:
    times = np.array([time for time, _ in TEXTS] * n_copies)
    assert to_rfc3339(times) == [text for _, text in TEXTS] * n_copies


def test_many_times_print_as_numpy_prints_them() -> None:
    source = random.Random(7)
    times = [source.randrange(-(2**63) + 2, 2**63 - 1) for _ in range(2000)]
    times += [time // 10**places * 10**places for places in range(10) for time in times[:50]]
    expected = []
    for text in np.array(times).view("datetime64[ns]").astype(str).tolist():
        head, _, decimals = text.partition(".")
        decimals = decimals.rstrip("0")
        expected.append(f"{head}.{decimals}Z" if decimals else f"{head}Z")
    assert to_rfc3339(np.array(times)) == expected


@pytest.mark.parametrize("n_copies", [1, 100], ids=["loop", "arrays"])
def test_time_in_a_zone_prints_its_offset(n_copies: int) -> None:
    times = np.array([1_711_846_800, 1_711_846_799, 1_700_000_000] * n_copies) * 1_000_000_000
    assert (
        to_rfc3339(times, "Europe/Berlin")
        == [
            "2024-03-31T03:00:00+02:00",  # summer time begins here
            "2024-03-31T01:59:59+01:00",
            "2023-11-14T23:13:20+01:00",
        ]
        * n_copies
    )


@pytest.mark.parametrize(
    ("zone", "text"),
    [
        ("", "2023-11-14T22:13:20.5Z"),
        ("UTC", "2023-11-14T22:13:20.5Z"),
        ("Africa/Abidjan", "2023-11-14T22:13:20.5Z"),
        ("America/St_Johns", "2023-11-14T18:43:20.5-03:30"),
        ("Asia/Kathmandu", "2023-11-15T03:58:20.5+05:45"),
    ],
)
def test_zone_without_offset_prints_z(zone: str, text: str) -> None:
    assert to_rfc3339(np.array([1_700_000_000_500_000_000]), zone) == [text]


def test_no_times_print_nothing() -> None:
    assert to_rfc3339(np.zeros(0, np.int64)) == []


@pytest.mark.parametrize(
    ("word", "unit_ns"),
    [
        ("", 0),
        ("ns", 1),
        ("n", 1),
        ("u", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
        ("us", 1),  # influxd knows u only
        ("nonsense", 1),
    ],
)
def test_epoch_names_a_unit_and_unknown_words_mean_ns(word: str, unit_ns: int) -> None:
    assert epoch_unit(word) == unit_ns


def test_epoch_truncates_towards_zero() -> None:
    times = np.array([-1_500_000_001, -1_000_000_000, -1, 0, 1, 999_999_999, 1_999_999_999])
    assert to_epoch(times, 1_000_000_000).tolist() == [-1, -1, 0, 0, 0, 0, 1]
    assert to_epoch(times, 1_000_000).tolist() == [-1500, -1000, 0, 0, 0, 999, 1999]
    assert to_epoch(times, 1).tolist() == times.tolist()
