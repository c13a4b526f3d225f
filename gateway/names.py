"""Full names: a SELECT whose measurements all carry their database and retention policy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from grammar import ast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.catalog import Catalog


def qualified(
    select: ast.Select, catalog: Catalog, database: str, retention_policy: str = ""
) -> ast.Select:
    """Return a SELECT with the full names of what it reads and writes.

    Args:
        select: The statement.
        catalog: Knows the default policies.
        database: Of names that carry none.
        retention_policy: Of names that carry none; "" is the default of their database.
    """

    def measurement(named: ast.Measurement) -> ast.Measurement:
        place = named.database or database
        policy = named.retention_policy or retention_policy
        if not policy and place in catalog.databases:
            policy = catalog.database(place).default_policy
        return replace(named, database=place, retention_policy=policy)

    def full(source: ast.Measurement | ast.SubQuery) -> ast.Measurement | ast.SubQuery:
        if isinstance(source, ast.Measurement):
            return measurement(source)
        return ast.SubQuery(qualified(source.select, catalog, database, retention_policy))

    sources = tuple(
        replace(source, source=full(source.source))
        if isinstance(source, ast.NamedSource)
        else full(source)
        for source in select.sources
    )
    target = None if select.target is None else measurement(select.target)
    return replace(select, sources=sources, target=target)


def measurements_of(select: ast.Select) -> Iterator[ast.Measurement]:
    """Yield what a SELECT reads, subqueries included."""
    for named in select.sources:
        source = named.source if isinstance(named, ast.NamedSource) else named
        if isinstance(source, ast.SubQuery):
            yield from measurements_of(source.select)
        else:
            yield source
