"""Points as line protocol, for SELECT INTO, exports and tests.

What the format cannot say is refused, never changed: names that end in a backslash, NaN, a
measurement like "#x".
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Final

from gateway.lineprotocol.line import BLANKS, read_line, split_lines
from tinyflux.batch import series_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tinyflux.batch import FieldValue, Tags

_IN_MEASUREMENT: Final = str.maketrans({",": "\\,", " ": "\\ "})
_IN_TAG: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\="})
_IN_FIELD_KEY: Final = str.maketrans({",": "\\,", " ": "\\ ", "=": "\\=", '"': '\\"'})
_IN_STRING: Final = str.maketrans({'"': '\\"', "\\": "\\\\"})

# Text in names that a reader might take otherwise than it was meant; such lines are read back
# before they are given out.
_DOUBTFUL = re.compile(r'["\\\n\r#\t\x00]')


def format_points(
    rows: Iterable[tuple[str, Tags, int | None, Mapping[str, FieldValue]]],
) -> bytes:
    """Return points as line protocol, a line each, timestamps in ns.

    Args:
        rows: Measurement, tags, time in ns since 1970 UTC (None prints none) and fields, as
            `PointBatch.rows` yields them. Tags and fields that are None, and tags that are "",
            are left out, as InfluxDB has no such things.

    Raises:
        ValueError: A point that line protocol cannot express.
    """
    return b"".join(map(_format_point, rows))


def _format_point(row: tuple[str, Tags, int | None, Mapping[str, FieldValue]]) -> bytes:
    measurement, tags, time_ns, fields = row
    kept_tags = [(key, value) for key, value in tags if value]
    kept = {key: value for key, value in fields.items() if value is not None}
    head = measurement.translate(_IN_MEASUREMENT) + "".join(
        f",{key.translate(_IN_TAG)}={value.translate(_IN_TAG)}" for key, value in kept_tags
    )
    field_set = ",".join(
        f"{key.translate(_IN_FIELD_KEY)}={format_value(value)}" for key, value in kept.items()
    )
    text = f"{head} {field_set}" + ("" if time_ns is None else f" {time_ns}")
    line = text.encode() + b"\n"
    if not measurement or not kept or _is_doubtful(measurement, kept_tags, kept):
        _check(line, series_key(measurement, kept_tags), kept, time_ns)
    return line


def format_value(value: FieldValue) -> str:
    """Return a field value as line protocol writes it.

    Raises:
        ValueError: NaN, an infinity, or None.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}i"
    if isinstance(value, str):
        return f'"{value.translate(_IN_STRING)}"'
    if value is None or not math.isfinite(value):
        raise ValueError(f"line protocol has no field value {value}")
    return repr(value)


def _is_doubtful(measurement: str, tags: Iterable[tuple[str, str]], fields: Iterable[str]) -> bool:
    names = [measurement, *(text for tag in tags for text in tag), *fields]
    return "time" in names or not all(names) or _DOUBTFUL.search("".join(names)) is not None


def _check(line: bytes, key: bytes, fields: Mapping[str, FieldValue], time_ns: int | None) -> None:
    """Refuse a line that does not read as the point it was made of."""
    try:
        [found] = split_lines(line)
        point = read_line(found)
    except ValueError as refused:
        raise ValueError(f"line protocol cannot express the point {line!r}") from refused
    if found[:1] in BLANKS + b"#" or (point.key, point.fields, point.time_ns) != (
        key,
        fields,
        time_ns,
    ):
        raise ValueError(f"line protocol cannot express the point {line!r}")
