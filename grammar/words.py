"""The reserved words of InfluxQL, and how a name is quoted so that it is none."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files

_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_STRING_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "'": r"\'"})


@cache
def reserved_words() -> frozenset[str]:
    """Return the words that are never bare names, in capitals: those of influxql.lark."""
    grammar = files("grammar").joinpath("influxql.lark").read_text("utf-8")
    return frozenset(re.findall(r'"([A-Z]+)"', grammar))


def always_quoted(name: str) -> str:
    """Return a name in double quotes."""
    return f'"{name.translate(_ESCAPES)}"'


def quoted(name: str) -> str:
    """Return a name as influxd prints it: in double quotes where it needs them."""
    if _BARE.fullmatch(name) and name.upper() not in reserved_words():
        return name
    return always_quoted(name)


def quoted_pattern(pattern: str) -> str:
    """Return the pattern of a LIKE as a literal: its own escapes are written as they are."""
    text = pattern.replace("\n", r"\n").replace("'", r"\'")
    return f"'{text}'"


def quoted_string(text: str) -> str:
    """Return a string literal."""
    return f"'{text.translate(_STRING_ESCAPES)}'"
