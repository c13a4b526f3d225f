"""Every InfluxQL function in one table: what kind it is, what it takes, what it gives.

A new function is one entry here and one kernel: aggregates and selectors in `tinyflux.windows`,
transformations in `gateway.functions.transforms` (holt_winters in `gateway.forecast`), functions
of one row in `gateway.functions.math`, of several rows a window in `gateway.functions.rows`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from tinyflux.batch import FieldType

_F, _I, _S, _B = FieldType.FLOAT, FieldType.INTEGER, FieldType.STRING, FieldType.BOOLEAN
_NUMBERS: Final = frozenset([_F, _I])
_ORDERED: Final = frozenset([_F, _I, _B])
_ANY: Final = frozenset([_F, _I, _S, _B])


class Kind(Enum):
    """What a function does to rows."""

    AGGREGATE = auto()  # one value a window
    SELECTOR = auto()  # one point a window
    ROWS = auto()  # several rows a window: distinct, top, bottom, sample
    TRANSFORM = auto()  # a row an input row, from its neighbours
    MATH = auto()  # a value from the values of the same row


@dataclass(frozen=True, slots=True)
class Function:
    """What the planner has to know of a function.

    Attributes:
        kind: What it does to rows.
        accepts: The field types it takes; wildcards expand over fields of these.
        output: The type it gives; None keeps the type of its input.
        min_args: How many arguments at least.
        max_args: How many at most.
    """

    kind: Kind
    accepts: frozenset[FieldType]
    output: FieldType | None = None
    min_args: int = 1
    max_args: int = 1


def _function(
    kind: Kind,
    accepts: frozenset[FieldType],
    output: FieldType | None = None,
    args: tuple[int, int] = (1, 1),
) -> Function:
    return Function(kind, accepts, output, *args)


FUNCTIONS: Final[dict[str, Function]] = {
    "count": _function(Kind.AGGREGATE, _ANY, _I),
    "sum": _function(Kind.AGGREGATE, _NUMBERS),
    "mean": _function(Kind.AGGREGATE, _NUMBERS, _F),
    "median": _function(Kind.AGGREGATE, _NUMBERS, _F),
    "mode": _function(Kind.AGGREGATE, _ANY),
    "spread": _function(Kind.AGGREGATE, _NUMBERS),
    "stddev": _function(Kind.AGGREGATE, _NUMBERS, _F),
    "integral": _function(Kind.AGGREGATE, _NUMBERS, _F, (1, 2)),
    "sum_hll": _function(Kind.AGGREGATE, _ANY, _S),
    "first": _function(Kind.SELECTOR, _ANY),
    "last": _function(Kind.SELECTOR, _ANY),
    "min": _function(Kind.SELECTOR, _ORDERED),
    "max": _function(Kind.SELECTOR, _ORDERED),
    "percentile": _function(Kind.SELECTOR, _NUMBERS, None, (2, 2)),
    "distinct": _function(Kind.ROWS, _ANY),
    "top": _function(Kind.ROWS, _NUMBERS, None, (2, 64)),
    "bottom": _function(Kind.ROWS, _NUMBERS, None, (2, 64)),
    "sample": _function(Kind.ROWS, _ANY, None, (2, 2)),
    "derivative": _function(Kind.TRANSFORM, _NUMBERS, _F, (1, 2)),
    "non_negative_derivative": _function(Kind.TRANSFORM, _NUMBERS, _F, (1, 2)),
    "difference": _function(Kind.TRANSFORM, _NUMBERS),
    "non_negative_difference": _function(Kind.TRANSFORM, _NUMBERS),
    "cumulative_sum": _function(Kind.TRANSFORM, _NUMBERS),
    "moving_average": _function(Kind.TRANSFORM, _NUMBERS, _F, (2, 2)),
    "elapsed": _function(Kind.TRANSFORM, _ANY, _I, (1, 2)),
    **{
        name: _function(Kind.TRANSFORM, _NUMBERS, _F, (2, 4))
        for name in (
            "exponential_moving_average",
            "double_exponential_moving_average",
            "triple_exponential_moving_average",
            "triple_exponential_derivative",
            "relative_strength_index",
            "chande_momentum_oscillator",
        )
    },
    "holt_winters": _function(Kind.TRANSFORM, _NUMBERS, _F, (3, 3)),
    "holt_winters_with_fit": _function(Kind.TRANSFORM, _NUMBERS, _F, (3, 3)),
    "kaufmans_efficiency_ratio": _function(Kind.TRANSFORM, _NUMBERS, _F, (2, 3)),
    "kaufmans_adaptive_moving_average": _function(Kind.TRANSFORM, _NUMBERS, _F, (2, 3)),
    **{
        name: _function(Kind.MATH, _NUMBERS, _F)
        for name in (
            "sin",
            "cos",
            "tan",
            "asin",
            "acos",
            "atan",
            "exp",
            "ln",
            "log2",
            "log10",
            "sqrt",
        )
    },
    "count_hll": _function(Kind.MATH, frozenset([_S]), _I),
    **{name: _function(Kind.MATH, _NUMBERS) for name in ("abs", "floor", "ceil", "round")},
    **{name: _function(Kind.MATH, _NUMBERS, _F, (2, 2)) for name in ("atan2", "pow", "log")},
}


# These give rows behind the range as well.
FORECASTS: Final = frozenset(["holt_winters", "holt_winters_with_fit"])

# What the planner writes itself; nobody can call it by this name.
INTERNAL: Final[dict[str, Function]] = {"count_distinct": FUNCTIONS["count"]}


def is_kind(name: str, *kinds: Kind) -> bool:
    """Return whether a function exists and is of one of these kinds."""
    function = FUNCTIONS.get(name) or INTERNAL.get(name)
    return function is not None and function.kind in kinds
