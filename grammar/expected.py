"""What influxd says it expected, from what the parser could have taken.

influxd's parser asks for one thing at a time and names it, or the few words that begin what it
looks for; what may be left out it does not name. An LALR parser knows everything that could follow.
The first line of the table whose terminals all could follow has influxd's words. Source: measured
on influxd 1.6.7, tests/unit/grammar/errors.txt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

EXPRESSION = "identifier, string, number, bool"
LITERAL = "string, number, bool"

_TABLE: tuple[tuple[str, str], ...] = (
    # What begins a statement, after the words that may begin several.
    (
        "SELECT ALTER",
        "SELECT, DELETE, SHOW, CREATE, DROP, EXPLAIN, GRANT, REVOKE, ALTER, SET, KILL",
    ),
    (
        "DIAGNOSTICS",
        "CONTINUOUS, DATABASES, DIAGNOSTICS, FIELD, GRANTS, MEASUREMENT, MEASUREMENTS, QUERIES, "
        "RETENTION, SERIES, SHARD, SHARDS, STATS, SUBSCRIPTIONS, TAG, USERS",
    ),
    (
        "DATABASE SERIES",
        "CONTINUOUS, DATABASE, MEASUREMENT, RETENTION, SERIES, SHARD, SUBSCRIPTION, USER",
    ),
    ("DATABASE MEASUREMENT", "DATABASE, MEASUREMENT, RETENTION"),  # not InfluxDB's
    ("DATABASE", "CONTINUOUS, DATABASE, USER, RETENTION, SUBSCRIPTION"),
    ("MEASUREMENT RETENTION", "RETENTION"),
    # Inside expressions.
    ("IDENT STRING INTEGER", EXPRESSION),
    ("IDENT INTEGER", "identifier, number, duration, ("),
    ("STRING INTEGER", LITERAL),
    ("IDENT FIELD", "float, integer, string, boolean, field, tag"),
    ("FIELD TAG", "field, tag"),
    ("IDENT ASC", "identifier, ASC, DESC"),
    # What ends something comes before what could go on.
    ("$END", ";"),
    ("END", "END"),
    ("RPAR", ")"),
    ("ADD TO", "TO"),
    ("AS FROM", "FROM"),
    ("AS INTO", "INTO"),
    # Choices.
    ("KEY VALUES", "KEY, KEYS, VALUES"),
    ("KEY KEYS", "KEY, KEYS"),
    ("IN EQ", "IN, =, =~"),
    ("EQ EQREGEX", "=, =~"),
    ("DURATION NAME", "DURATION, NAME, REPLICATION, SHARD"),
    ("DURATION DEFAULT", "DURATION, REPLICATION, SHARD, DEFAULT"),
    ("READ WRITE", "READ, WRITE, ALL [PRIVILEGES]"),
    ("ALL ANY", "ALL, ANY"),
    ("EVERY FOR", "EVERY, FOR"),
    ("ON TO", "ON, TO"),
    ("WITH", "WITH"),
    ("EXACT CARDINALITY", "EXACT, CARDINALITY"),
    ("ON FROM", "ON, FROM"),
    ("FROM WHERE", "FROM, WHERE"),
    # One thing, with others that may be left out before it.
    ("FROM", "FROM"),
    ("INTO", "INTO"),
    ("BEGIN", "BEGIN"),
    ("SELECT", "SELECT"),
    ("IDENT", "identifier"),
    ("STRING", "string"),
    ("INTEGER", "integer"),
    ("DURATIONVAL", "duration"),
    ("REGEX", "regex"),
    ("LPAR", "("),
    ("DOT", "."),
    ("EQ", "="),
)
_NEEDED = tuple(
    (frozenset(terminals.split()), words, terminals.split()[-1]) for terminals, words in _TABLE
)


def expected(viable: AbstractSet[str]) -> tuple[str, str]:
    """Return influxd's words for what could follow, and one terminal that they mean.

    Args:
        viable: Every terminal that the parser could take.
    """
    for needed, words, last in _NEEDED:
        if needed <= viable:
            return words, last
    only = min(
        viable
    )  # a word that nothing else can take the place of: it is called as it is written
    return only, only
