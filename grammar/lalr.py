"""The automaton that an LALR table describes: it takes one token after the other.

lark makes the table (see `grammar.parser`). Running it here is faster than lark's own loop (0.36 ms
against 0.49 for a dashboard's query), says at any moment what could come next, and needs no lexer
of lark's kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from grammar.lexer import END

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from grammar.lexer import Token


class Reduction(NamedTuple):
    """The end of a rule.

    Attributes:
        size: How many values it takes.
        rule: Its name.
        make: Makes its value of theirs; None hands on the one there is.
    """

    size: int
    rule: str
    make: Callable[[list[object]], object] | None


# What a state does at a terminal: go to another state, or end a rule. At the name of a rule: go on.
Row: TypeAlias = "Mapping[str, int | Reduction]"


class Table(NamedTuple):
    """An LALR table.

    Attributes:
        rows: One for each state.
        start: The first state.
        end: The state behind a whole text.
        values: Terminal -> the value of its token, where that is not the token itself.
    """

    rows: Mapping[int, Row]
    start: int
    end: int
    values: Mapping[str, Callable[[Token], object]]


class Stuck(Exception):  # it never leaves the package
    """A token that the automaton cannot take."""


class Automaton:
    """One run through a table.

    Args:
        table: The table.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._states = [table.start]
        self._values: list[object] = []

    @property
    def row(self) -> Row:
        """Where it looks up the next token: what is not in here it cannot take."""
        return self._table.rows[self._states[-1]]

    @property
    def depth(self) -> int:
        """How much is begun and not ended."""
        return len(self._states)

    @property
    def result(self) -> object:
        """The value of the whole text, when it has taken the end."""
        return self._values[-1]

    def feed(self, token: Token) -> None:
        """Take a token, after ending the rules that end before it.

        Raises:
            Stuck: The table has no place for it.
        """
        rows, _, end, kept = self._table
        states, values = self._states, self._values
        kind = token.type
        while True:
            action = rows[states[-1]].get(kind)
            if action is None:
                raise Stuck
            if type(action) is int:
                states.append(action)
                values.append(kept[kind](token) if kind in kept else token)
                return
            size, rule, make = action  # type: ignore[misc] # not an int
            if make is None:
                states.pop()
            else:
                children = values[-size:] if size else []
                if size:
                    del states[-size:], values[-size:]
                values.append(make(children))
            states.append(rows[states[-1]][rule])  # type: ignore[arg-type] # a rule leads to a state
            if kind == END and states[-1] == end:
                return

    def viable(self) -> set[str]:
        """Return all terminals that it can take now."""
        return {kind for kind in self.row if kind.isupper() and self._can_take(kind)}

    def _can_take(self, kind: str) -> bool:
        rows = self._table.rows
        states = list(self._states)
        while True:
            action = rows[states[-1]].get(kind)
            if not isinstance(action, Reduction):
                return action is not None
            if action.size:
                del states[-action.size :]
            state = rows[states[-1]][action.rule]
            assert isinstance(state, int)
            states.append(state)
            if kind == END and state == self._table.end:
                return True
