"""The reserved words of InfluxQL, and how a name is quoted so that it is none."""

from __future__ import annotations

import re

# Equal to the capital words of influxql.lark; tests/unit/grammar/test_words.py compares them.
RESERVED = frozenset(
    """
    ALL ALTER ANALYZE AND ANY AS ASC BEGIN BY CARDINALITY CONTINUOUS CREATE DATABASE DATABASES DEFAULT DELETE DESC
    DESTINATIONS DIAGNOSTICS DISTINCT DROP DURATION END EVERY EXACT EXPLAIN FALSE FIELD FOR FROM GRANT GRANTS GROUP
    GROUPS IN INF INSERT INTO KEY KEYS KILL LIMIT MEASUREMENT MEASUREMENTS NAME OFFSET ON OR ORDER PASSWORD POLICIES
    POLICY PRIVILEGES QUERIES QUERY READ REPLICATION RESAMPLE RETENTION REVOKE SELECT SERIES SET SHARD SHARDS SHOW
    SLIMIT SOFFSET STATS SUBSCRIPTION SUBSCRIPTIONS TAG TO TRUE USER USERS VALUES WHERE WITH WRITE
    """.split()
)
_BARE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_STRING_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", "'": r"\'"})


def always_quoted(name: str) -> str:
    """Return a name in double quotes."""
    return f'"{name.translate(_ESCAPES)}"'


def quoted(name: str) -> str:
    """Return a name as influxd prints it: in double quotes where it needs them."""
    if _BARE.fullmatch(name) and name.upper() not in RESERVED:
        return name
    return always_quoted(name)


def quoted_string(text: str) -> str:
    """Return a string literal."""
    return f"'{text.translate(_STRING_ESCAPES)}'"
