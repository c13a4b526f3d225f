"""Bound parameters: what the value of `$name` is to the parser.

A value becomes a token, never text to be read again, so nothing in it can change the statement
around it. Source: measured on influxd 1.6.7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from grammar.durations import format_duration

_INT64 = range(-(2**63), 2**63)


class BindError(ValueError):
    """A value that no parameter can have; the text is influxd's."""


def bind(value: object) -> tuple[str, str]:
    """Return the terminal and the text of the token that stands for a bound value.

    Args:
        value: A str, int, float or bool, or a dict with one entry: the type's name and the value.

    Raises:
        BindError: The value has another type or does not fit its type.
    """
    if isinstance(value, Mapping):
        if len(value) != 1:
            raise BindError("bound object parameter value must have exactly one entry")
        ((kind, inner),) = value.items()
        return _bind_typed(str(kind), inner)
    if isinstance(value, bool):
        return ("TRUE", "TRUE") if value else ("FALSE", "FALSE")
    if isinstance(value, str):
        return "STRING", _text(value)
    if isinstance(value, int):
        return "INTEGER", _int64(value)
    if isinstance(value, float):
        return "NUMBER", _finite(value)
    go_type = {type(None): "<nil>", list: "[]interface {}", tuple: "[]interface {}"}
    raise BindError(f"unable to bind parameter with type {go_type.get(type(value), type(value))}")


def _bind_typed(kind: str, value: object) -> tuple[str, str]:
    match kind, value:
        case (("ident" | "identifier"), str()):
            return "IDENT", _text(value)
        case (("ident" | "identifier"), _):
            raise BindError("identifier must be a string value")
        case "regex", str():
            return "REGEX", _text(value)
        case "regex", _:
            raise BindError("regex literal must be a string value")
        case "string", str():
            return "STRING", _text(value)
        case "string", _:
            raise BindError("string literal must be a string value")
        case (("float" | "number"), (int() | float())) if not isinstance(value, bool):
            return "NUMBER", _finite(float(value))
        case (("float" | "number"), _):
            raise BindError("number literal must be a float value")
        case (("int" | "integer"), int()) if not isinstance(value, bool):
            return "INTEGER", _int64(value)
        case (("int" | "integer"), _):
            raise BindError("integer literal must be an integer value")
        case "duration", str():
            return "DURATIONVAL", _text(value)
        case "duration", int() if not isinstance(value, bool):
            return "DURATIONVAL", format_duration(int(_int64(value)))
        case "duration", _:
            raise BindError("duration literal must be a string or integer value")
    raise BindError(f"unknown bind object type: {kind}")


def _int64(value: int) -> str:
    if value not in _INT64:
        raise BindError(f'strconv.ParseInt: parsing "{value}": value out of range')
    return str(value)


def _finite(value: float) -> str:
    if not math.isfinite(value):
        raise BindError("number literal must be a float value")
    return repr(value)


def _text(value: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise BindError("text must be valid Unicode") from None
    return value
