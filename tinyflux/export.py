"""Points as plain columns, for pandas, Arrow, and whoever takes a dict of arrays.

The columns are named as `select` names them: `time`, `measurement`, `tags.<key>`, `fields.<key>`.
pandas and pyarrow are imported only when asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

from tinyflux.access import Key
from tinyflux.times import us_from_datetimes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from tinyflux.access import Access
    from tinyflux.queries import Query


def to_columns(
    access: Access, query: Query | None, measurement: str | None
) -> dict[str, NDArray[Any]]:
    """Return the matching points as columns of equal length, in insertion order.

    Returns:
        `time`: datetime64[us] in UTC. `measurement` and tags: objects, str or None. Fields: float64
        (NaN where there is no value) if all their values are numbers, otherwise objects.
    """
    keys = [
        Key("time"),
        Key("measurement"),
        *(Key("tags", key) for key in sorted(access.tag_keys(measurement))),
        *(Key("fields", key) for key in sorted(access.field_keys(measurement))),
    ]
    rows = access.select(keys, query, measurement)
    values = list(zip(*rows, strict=True)) if rows else [()] * len(keys)
    return {
        key.attribute + (f".{key.name}" if key.attribute in ("tags", "fields") else ""): _array(
            key, column
        )
        for key, column in zip(keys, values, strict=True)
    }


def _array(key: Key, values: Sequence[Any]) -> NDArray[Any]:
    if key.attribute == "time":
        return us_from_datetimes(values).view("M8[us]")
    kinds = set(map(type, values))
    if key.attribute == "fields" and kinds <= {float, int, type(None)}:
        return np.array([np.nan if value is None else float(value) for value in values], np.float64)
    array = np.empty(len(values), np.object_)
    array[:] = values
    return array


def to_pandas(columns: dict[str, NDArray[Any]]) -> Any:
    """Return columns as a DataFrame; `time` is aware, in UTC.

    Raises:
        ImportError: pandas is not installed.
    """
    frame = importlib.import_module("pandas").DataFrame(columns)
    frame["time"] = frame["time"].dt.tz_localize("UTC")
    return frame


def to_arrow(columns: dict[str, NDArray[Any]]) -> Any:
    """Return columns as an Arrow table; `time` is a timestamp in UTC, NaN is null.

    Raises:
        ImportError: pyarrow is not installed.
    """
    arrow = importlib.import_module("pyarrow")
    arrays = {name: arrow.array(values, from_pandas=True) for name, values in columns.items()}
    arrays["time"] = arrays["time"].cast(arrow.timestamp("us", "UTC"))
    return arrow.table(arrays)
