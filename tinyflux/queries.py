"""Queries: builders make SimpleQuery objects, `& | ~` combine them.

    TagQuery().city == "LA"        builder, path, comparison -> SimpleQuery
    SimpleQuery(point) -> bool     the definition of what a query means
    q1 & q2, q1 | q2, ~q1          CompoundQuery

A SimpleQuery can be taken apart (`point_attr`, `operator`, `rhs`, `path`, `value_test`), so that an
index or a columnar storage answers it without making Points. Whatever answers must agree with
calling the query on each Point.

Rules worth knowing: a point that lacks the key matches no comparison, also not `!=` (while `~(x ==
y)` matches it); a comparison that Python refuses (None with a number) is False; `.test` lets
exceptions through, `.map` treats them as no match.
"""

# ruff: noqa: SLF001  (queries and builders know each other's insides)

from __future__ import annotations

import operator as operators
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self, TypeAlias

from tinyflux.predicates import (
    COMPARISONS,
    NO_VALUE,
    PathPart,
    PathResolver,
    Pattern,
    ValueTest,
    always,
    comparison,
    instant_of,
    kind_of,
    never,
    regex_test,
    typed_comparison,
)
from tinyflux.times import to_utc
from tinyflux.utils import freeze

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "COMPARISONS",
    "BaseQuery",
    "CompoundQuery",
    "FieldQuery",
    "MeasurementQuery",
    "Query",
    "SimpleQuery",
    "TagQuery",
    "TimeQuery",
    "TypedFieldQuery",
]


class _Combinable:
    """What `& | ~`, equality and hash mean for both kinds of finished queries."""

    __slots__ = ()

    _hash: tuple[Any, ...]

    def is_hashable(self) -> bool:
        """Return whether the query has an identity: not with a `.map` in it."""
        return bool(self._hash)

    def __and__(self, other: object) -> CompoundQuery:
        return _combine("AND", operators.and_, self, other)

    def __or__(self, other: object) -> CompoundQuery:
        return _combine("OR", operators.or_, self, other)

    def __invert__(self) -> CompoundQuery:
        assert isinstance(self, (SimpleQuery, CompoundQuery))
        hashval = (operators.not_, self._hash) if self._hash else ()
        return CompoundQuery(self, None, operators.not_, hashval)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Combinable):
            return NotImplemented
        return self is other if not self._hash else self._hash == other._hash

    def __hash__(self) -> int:
        return hash(self._hash)


def _combine(word: str, operator: Callable[..., Any], left: object, right: object) -> CompoundQuery:
    if isinstance(right, BaseQuery):
        raise RuntimeError(f"Cannot logical-{word} an empty query.")
    if not isinstance(right, (SimpleQuery, CompoundQuery)):
        raise TypeError(f"cannot combine a query with {type(right).__name__}")
    assert isinstance(left, (SimpleQuery, CompoundQuery))
    hashable = left._hash and right._hash
    hashval = (operator, frozenset((left._hash, right._hash))) if hashable else ()
    return CompoundQuery(left, right, operator, hashval)


class SimpleQuery(_Combinable):
    """One test of one point attribute.

    Usage:
        >>> TagQuery().city == "Los Angeles"
        SimpleQuery('_tags', '==', ('city',), 'Los Angeles')

    Attributes:
        operator: One of == != < <= > >= test matches search exists noop.
        rhs: What the value is compared with: the right side, the regex, or the test function.
        path_resolver: Leads from the point attribute to the value.
        value_test: The test of the value, with comparison errors already turned into False.
        typed: The comparison never crosses kinds (see TypedFieldQuery).
    """

    __slots__ = (
        "_hash",
        "_point_attr",
        "operator",
        "path_resolver",
        "rhs",
        "typed",
        "value_test",
    )

    def __init__(
        self,
        point_attr: str,
        operator: str,
        rhs: Any,
        test: ValueTest,
        path_resolver: Callable[[Any], Any],
        hashval: tuple[Any, ...],
        typed: bool = False,
    ) -> None:
        self._point_attr = point_attr
        self.operator = operator
        self.rhs = rhs
        self.value_test = test
        self.path_resolver = path_resolver
        self._hash = hashval
        self.typed = typed

    @property
    def point_attr(self) -> str:
        """The tested attribute of a Point: `_time`, `_measurement`, `_tags` or `_fields`."""
        return self._point_attr

    @property
    def path(self) -> tuple[PathPart, ...]:
        """The keys to look up and the functions to apply, in order, before the test."""
        path: tuple[PathPart, ...] = getattr(self.path_resolver, "path", ())
        return path

    def __call__(self, point: Any) -> bool:
        """Return whether a Point matches.

        Raises:
            Exception: Whatever a `.test` function raises; `re.error` for a bad regex.
        """
        if self.operator == "noop":
            return True
        value = self.path_resolver(getattr(point, self._point_attr))
        return value is not NO_VALUE and bool(self.value_test(value))

    def __eq__(self, other: object) -> bool:
        if self.operator == "noop" or getattr(other, "operator", None) == "noop":
            return False
        return super().__eq__(other)

    def __hash__(self) -> int:
        return hash(self._hash)

    def __repr__(self) -> str:
        if not self._hash or self.operator == "noop":
            return "SimpleQuery()"
        return f"SimpleQuery{self._hash!r}"


class CompoundQuery(_Combinable):
    """Queries combined by `& | ~`.

    Usage:
        >>> q = (FieldQuery().temp < 55.0) & (TagQuery().city == "Los Angeles")
        >>> q
        CompoundQuery(and_, 'SimpleQuery', 'SimpleQuery')

    Attributes:
        query1: A SimpleQuery or CompoundQuery.
        query2: Another one; None after `~`.
        operator: `operator.and_`, `operator.or_` or `operator.not_`.
    """

    __slots__ = ("_hash", "_operands", "operator", "query1", "query2")

    def __init__(
        self,
        query1: SimpleQuery | CompoundQuery,
        query2: SimpleQuery | CompoundQuery | None,
        operator: Callable[..., Any],
        hashval: tuple[Any, ...],
    ) -> None:
        self.query1 = query1
        self.query2 = query2
        self.operator = operator
        self._hash = hashval
        self._operands: tuple[SimpleQuery | CompoundQuery, ...] = ()

    @property
    def operands(self) -> tuple[SimpleQuery | CompoundQuery, ...]:
        """What is combined, left to right: `a | b | c` has three operands, however many brackets.

        So a chain of thousands, made in a loop, is no deep recursion.
        """
        if not self._operands:
            found: list[SimpleQuery | CompoundQuery] = []
            todo: list[SimpleQuery | CompoundQuery | None] = [self.query2, self.query1]
            while todo:
                query = todo.pop()
                same = isinstance(query, CompoundQuery) and query.operator is self.operator
                if same and self.operator is not operators.not_:
                    assert isinstance(query, CompoundQuery)
                    todo += (query.query2, query.query1)
                elif query is not None:
                    found.append(query)
            self._operands = tuple(found)
        return self._operands

    def __call__(self, point: Any) -> bool:
        """Return whether a Point matches. Operands are asked left to right, until one decides."""
        if self.query2 is None:
            return not self.query1(point)
        decides = self.operator is operators.or_
        for query in self.operands:
            if query(point) is decides:
                return decides
        return not decides

    def __repr__(self) -> str:
        parts = [self.operator.__name__, repr(type(self.query1).__name__)]
        if self.query2 is not None:
            parts.append(repr(type(self.query2).__name__))
        return f"CompoundQuery({', '.join(parts)})"


Query: TypeAlias = SimpleQuery | CompoundQuery


class BaseQuery:
    """The builder behind the four query classes. It has a path; comparing it gives a SimpleQuery.

    Builders never change: each key and each `map` gives a new one. Keys are attributes or items;
    items are the way for keys that are method names or start with an underscore.

    Usage:
        >>> q = TagQuery().city == "LA"
        >>> from tinyflux.point import Point
        >>> q(Point(tags={"city": "LA"}))
        True
    """

    _point_attr: ClassVar[str] = ""
    _path_required: ClassVar[bool] = False
    _rhs_types: ClassVar[tuple[type, ...]] = ()
    _typed: ClassVar[bool] = False

    def __init__(self) -> None:
        self._path: tuple[PathPart, ...] = ()
        self._hash: tuple[Any, ...] = ()

    def _extended(self, part: PathPart) -> Self:
        builder = type(self)()
        builder._path = (*self._path, part)
        hashable = not any(callable(step) for step in builder._path)
        builder._hash = ("path", builder._path) if hashable else ()
        return builder

    def __getattr__(self, name: str) -> Self:
        if name.startswith("_"):
            # copy, pickle and hasattr look for dunder names and must be told no.
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, key: str) -> Self:
        if not self._path_required:
            raise RuntimeError("This query does not require a key.")
        return self._extended(key)

    def map(self, func: Callable[[Any], Any]) -> Self:
        """Return a builder that applies a function to the value before the test.

        Without a key before it, the function gets the whole tag or field mapping. An exception in
        it is no match.

        Usage:
            >>> (FieldQuery().x.map(abs) == 1).is_hashable()
            False
        """
        return self._extended(func)

    def is_hashable(self) -> bool:
        """Return whether there is a path and no function in it."""
        return bool(self._hash)

    def __hash__(self) -> int:
        return hash(self._hash)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __and__(self, other: object) -> NoReturn:
        raise RuntimeError("Cannot logical-AND an empty query.")

    def __or__(self, other: object) -> NoReturn:
        raise RuntimeError("Cannot logical-OR an empty query.")

    def __invert__(self) -> NoReturn:
        raise RuntimeError("Cannot logical-NOT an empty query.")

    def __eq__(self, rhs: object) -> SimpleQuery:  # type: ignore[override]  # builds a query
        return self._compare("==", rhs)

    def __ne__(self, rhs: object) -> SimpleQuery:  # type: ignore[override]
        return self._compare("!=", rhs)

    def __lt__(self, rhs: object) -> SimpleQuery:
        return self._compare("<", rhs)

    def __le__(self, rhs: object) -> SimpleQuery:
        return self._compare("<=", rhs)

    def __gt__(self, rhs: object) -> SimpleQuery:
        return self._compare(">", rhs)

    def __ge__(self, rhs: object) -> SimpleQuery:
        return self._compare(">=", rhs)

    def test(self, func: Callable[..., Any], *args: Any) -> SimpleQuery:
        """Return a query that asks a function: it matches when `func(value, *args)` is true.

        The function must answer the same for the same arguments; its exceptions leave the database
        call.

        Usage:
            >>> from tinyflux.point import Point
            >>> q = FieldQuery().x.test(lambda value, limit: value > limit, 3)
            >>> q(Point(fields={"x": 4}))
            True
        """
        return self._query("test", func, lambda value: func(value, *args), (func, args))

    def matches(self, regex: str | Pattern, flags: int = 0) -> SimpleQuery:
        """Return a query for values that a regex matches at their start.

        Args:
            regex: The text of the regex, or a compiled pattern.
            flags: For a text: flags of `re`.

        Usage:
            >>> from tinyflux.point import Point
            >>> (TagQuery().city.matches("L"))(Point(tags={"city": "LA"}))
            True
        """
        return self._regex("matches", regex, flags)

    def search(self, regex: str | Pattern, flags: int = 0) -> SimpleQuery:
        """Return a query for values in which a regex matches anywhere.

        Args:
            regex: The text of the regex, or a compiled pattern.
            flags: For a text: flags of `re`.

        Usage:
            >>> from tinyflux.point import Point
            >>> (TagQuery().city.search("A$"))(Point(tags={"city": "LA"}))
            True
        """
        return self._regex("search", regex, flags)

    def noop(self) -> SimpleQuery:
        """Return a query that every point matches: a start for queries composed in a loop.

        Usage:
            >>> from tinyflux.point import Point
            >>> TagQuery().noop()(Point())
            True
        """
        hashval = (self._point_attr, "noop", (), None)
        return SimpleQuery(
            self._point_attr, "noop", None, always, PathResolver(()), hashval, self._typed
        )

    def _exists(self) -> SimpleQuery:
        return self._query("exists", None, always, None)

    def _compare(self, operator: str, rhs: Any) -> SimpleQuery:
        self._check_usable()
        if rhs and not isinstance(rhs, self._rhs_types):
            names = " or ".join(kind.__name__ for kind in self._rhs_types)
            raise TypeError(f"{type(self).__name__} compares with {names}: {type(rhs).__name__}")
        return self._query(operator, rhs, comparison(COMPARISONS[operator], rhs), freeze(rhs))

    def _regex(self, operator: str, regex: str | Pattern, flags: int) -> SimpleQuery:
        identity = (regex, flags) if flags else regex
        return self._query(operator, regex, regex_test(operator, regex, flags), identity)

    def _check_usable(self) -> None:
        if not self._point_attr:
            raise RuntimeError(
                "Query has no defined Point attribute."
                " You may be attempting to initialize a BaseQuery."
            )
        if self._path_required and not self._path:
            raise RuntimeError("Query has no path. Provide tag or field key to query.")

    def _query(self, operator: str, rhs: Any, test: ValueTest, identity: object) -> SimpleQuery:
        self._check_usable()
        hashval: tuple[Any, ...] = (self._point_attr, operator, self._path, identity)
        if self._typed:
            hashval = (*hashval, type(rhs).__name__ if operator in COMPARISONS else "typed")
        if (self._path and not self._hash) or not _is_hashable(hashval):
            hashval = ()
        resolver = PathResolver(self._path)
        return SimpleQuery(self._point_attr, operator, rhs, test, resolver, hashval, self._typed)


def _refuse_regex(
    builder: BaseQuery,  # noqa: ARG001
    regex: str | Pattern,  # noqa: ARG001
    flags: int = 0,  # noqa: ARG001
) -> SimpleQuery:
    """Raise RuntimeError: only text has regex queries."""
    raise RuntimeError("Regex query not supported for FieldQuery.")


class TimeQuery(BaseQuery):
    """Queries of the time.

    A naive right side is local time, as in Points.

    Usage:
        >>> from datetime import datetime, timezone
        >>> q = TimeQuery() < datetime(2024, 1, 1, tzinfo=timezone.utc)
    """

    _point_attr = "_time"
    _rhs_types = (datetime,)

    def _compare(self, operator: str, rhs: Any) -> SimpleQuery:
        if not isinstance(rhs, datetime):
            return super()._compare(operator, rhs)
        instant = to_utc(rhs)
        compare = COMPARISONS[operator]
        if self._path:  # a map gives anything; only times are times
            test = comparison(compare, instant)
        else:
            test = comparison(lambda time, rhs: compare(instant_of(time), rhs), instant)
        return self._query(operator, instant, test, instant)

    matches = _refuse_regex
    search = _refuse_regex


class MeasurementQuery(BaseQuery):
    """Queries of the measurement name.

    Usage:
        >>> q = MeasurementQuery() == "my measurement"
    """

    _point_attr = "_measurement"
    _rhs_types = (str,)


class TagQuery(BaseQuery):
    """Queries of a tag.

    Usage:
        >>> q = TagQuery().my_tag_key == "my tag value"
        >>> q = TagQuery()["any text"] == "my tag value"
    """

    _point_attr = "_tags"
    _path_required = True
    _rhs_types = (str,)

    def exists(self) -> SimpleQuery:
        """Return a query for points that have the tag, also with the value None.

        Usage:
            >>> q = TagQuery().my_tag.exists()
        """
        return self._exists()


class FieldQuery(BaseQuery):
    """Queries of a field.

    Usage:
        >>> q = FieldQuery().my_field == 10.0
    """

    _point_attr = "_fields"
    _path_required = True
    _rhs_types: ClassVar[tuple[type, ...]] = (int, float)

    def exists(self) -> SimpleQuery:
        """Return a query for points that have the field, also with the value None.

        Usage:
            >>> q = FieldQuery().my_field.exists()
        """
        return self._exists()

    matches = _refuse_regex
    search = _refuse_regex


class TypedFieldQuery(FieldQuery):
    """Queries of a field in stores that also hold text and booleans; an extension.

    Numbers compare with numbers, text with text, booleans with booleans; True is not 1. Across
    kinds every comparison is False, also `!=`. Text and booleans have no order: `< <= > >=` on them
    are False.

    Usage:
        >>> from tinyflux.point import TypedPoint
        >>> (TypedFieldQuery().state == "up")(TypedPoint(fields={"state": "up"}))
        True
        >>> (TypedFieldQuery().state != 1)(TypedPoint(fields={"state": "up"}))
        False
    """

    _rhs_types = (int, float, str)
    _typed = True

    def _compare(self, operator: str, rhs: Any) -> SimpleQuery:
        self._check_usable()
        kind = kind_of(rhs)
        if kind is None:
            raise TypeError(
                f"TypedFieldQuery compares with number, str or bool: {type(rhs).__name__}"
            )
        if operator in ("==", "!=") or kind == "number":
            test = typed_comparison(COMPARISONS[operator], rhs, kind)
        else:
            test = never
        return self._query(operator, rhs, test, rhs)

    def matches(self, regex: str | Pattern, flags: int = 0) -> SimpleQuery:
        """Return a query for text values that a regex matches at their start."""
        return self._regex("matches", regex, flags)

    def search(self, regex: str | Pattern, flags: int = 0) -> SimpleQuery:
        """Return a query for text values in which a regex matches anywhere."""
        return self._regex("search", regex, flags)


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True
