"""Frozen values, and searches in sorted lists."""

from __future__ import annotations

from typing import Any

import pytest

from tinyflux.utils import FrozenDict, find_eq, find_ge, find_gt, find_le, find_lt, freeze


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.__setitem__("a", 1),
        lambda d: d.__delitem__("a"),
        lambda d: d.clear(),
        lambda d: d.pop("a"),
        lambda d: d.pop("a", None),
        lambda d: d.popitem(),
        lambda d: d.update({"a": 1}),
        lambda d: d.setdefault("b", 1),
        lambda d: d.__ior__({"a": 1}),
    ],
)
def test_frozen_dict_refuses_every_change(change: Any) -> None:
    frozen = FrozenDict({"a": 0})
    with pytest.raises(TypeError):
        change(frozen)
    assert frozen == {"a": 0}


def test_hash_of_a_frozen_dict_does_not_know_order() -> None:
    assert hash(FrozenDict({"a": 1, "b": 2})) == hash(FrozenDict({"b": 2, "a": 1}))


def test_freeze_goes_all_the_way_down() -> None:
    frozen = freeze({"a": [1, {"b": {2}}], "c": (3,)})
    assert frozen == {"a": (1, {"b": frozenset({2})}), "c": (3,)}
    assert isinstance(frozen, FrozenDict)
    hash(frozen)
    assert freeze("text") == "text"


@pytest.mark.parametrize(
    ("find", "x", "position"),
    [
        (find_eq, 2, 1),
        (find_eq, 3, None),
        (find_eq, 9, None),
        (find_lt, 2, 0),
        (find_lt, 1, None),
        (find_lt, 9, 3),
        (find_le, 2, 2),
        (find_le, 0, None),
        (find_gt, 2, 3),
        (find_gt, 4, None),
        (find_ge, 2, 1),
        (find_ge, 3, 3),
        (find_ge, 5, None),
    ],
)
def test_find_in_sorted_list(find: Any, x: int, position: int | None) -> None:
    assert find([1, 2, 2, 4], x) == position


def test_find_in_empty_list() -> None:
    assert [find([], 1) for find in (find_eq, find_lt, find_le, find_gt, find_ge)] == [None] * 5
