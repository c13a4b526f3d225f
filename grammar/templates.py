"""Templates: texts that differ only in the literals of their WHERE go through the grammar once.

A dashboard asks the same few texts again and again, with other times and other hosts in them. Here
the literals behind comparison operators are cut out of a text; what is left, its *outline*, is the
key of a tree that has gaps in the places of the literals. To fill the gaps takes a tenth of the
time of reading the text.

Why that is safe: a literal is found by the pattern that the lexer has for it, and leaves its kind
behind in the outline. So texts of one outline are the same row of tokens to the grammar, which
looks at kinds, not at values. Whether each literal comes out as itself in a WHERE is tried with
stand-ins; where not, texts of that outline are read in full each time.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

from grammar import ast
from grammar.build_select import RULES
from grammar.errors import ParseError
from grammar.lexer import literal_token
from grammar.refusals import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Statements = tuple[ast.Statement, ...]

_CACHED_OUTLINES: Final = 512
_CONDITIONS: Final = ("condition", "having")  # of a statement: where its literals may be
# How a literal of each kind may look that no text has by chance; the number tells them apart.
_STAND_INS: Final = {
    "STRING": "'stand-in {}'",
    "NUMBER": "0.7310585786{:04}",
    "DURATIONVAL": "731058578630{:04}ns",
    "INTEGER": "731058578630{:04}",
    "REGEX": "/stand-in {}/",
}
_RULES: Final = {kind: kind.lower() for kind in _STAND_INS} | {"DURATIONVAL": "duration"}


class Reading(NamedTuple):
    """A text, read.

    Attributes:
        statements: Its statements.
        outline: What it shares with the texts whose statements differ from these in literals of
            their WHERE at most; "" when it was not looked for.
    """

    statements: Statements
    outline: str


class Outline(NamedTuple):
    """A text, taken apart.

    Attributes:
        text: The text with NUL and a kind in place of each literal behind a comparison operator.
        literals: Kind and text of these literals.
    """

    text: str
    literals: tuple[tuple[str, str], ...]


class Templates:
    """What is known of the outlines that were met lately. May be used by many threads.

    Args:
        parse: Reads a text in full; raises ParseError.
        patterns: The patterns of the lexer, by kind.
    """

    def __init__(self, parse: Callable[[str], Statements], patterns: Mapping[str, str]) -> None:
        self._parse = parse
        kinds = ("STRING", "NUMBER", "DURATIONVAL", "INTEGER")  # in the order of the lexer
        literal = "|".join(f"(?P<{kind}>{patterns[kind]})" for kind in kinds)
        self._token = re.compile(
            rf"{patterns['PATTERN']}|{patterns['IDENT']}|(?P<comment>--|/\*)"
            rf"|(?P<matches>[=!]~[ \t\n]*)(?P<REGEX>{patterns['REGEX']})"
            rf"|(?P<compares>(?:<>|[<>]=?|!?=)[ \t\n]*)(?:{literal})"
        )
        self._known = lru_cache(_CACHED_OUTLINES)(lambda _: _Template())

    def read(self, text: str) -> Reading:
        """Return the statements of a text.

        Raises:
            ParseError: As `parse` does.
        """
        if "\0" in text:  # which marks the gaps of outlines
            return Reading(self._parse(text), "")
        outline = self.outline(text)
        if outline is None:
            return Reading(self._parse(text), text)
        template: _Template = self._known(outline.text)
        if template.gaps is None:
            statements = self._parse(text)
            has_gaps = template.learn(outline, statements, self._parse)
            return Reading(statements, outline.text if has_gaps else text)
        try:
            literals = [_literal(*given) for given in outline.literals]
        except Refused:
            return Reading(self._parse(text), "")  # which says what is wrong, and where
        if template.gaps:
            return Reading(template.filled(literals), outline.text)
        return Reading(self._parse(text), text)

    def outline(self, text: str) -> Outline | None:
        """Return a text without NUL taken apart; None where no such literals are, or comments."""
        literals: list[tuple[str, str]] = []
        pieces: list[str] = []
        end = 0
        for match in self._token.finditer(text):
            kind = match.lastgroup
            if kind is None:
                continue
            if kind == "comment":
                return None
            start = match.start(kind)
            pieces += (text[end:start], kind)
            literals.append((kind, match[kind]))
            end = match.end()
        if not literals:
            return None
        pieces.append(text[end:])
        return Outline("\0".join(pieces), tuple(literals))


@dataclass(slots=True, eq=False)
class _Gap:
    """Stands in a tree where the literal of this number belongs."""

    number: int


class _Template:
    """The tree of an outline.

    Attributes:
        gaps: The statements with gaps; () where a literal does more than stand in a WHERE, None
            before that was found out.
    """

    __slots__ = ("gaps",)

    def __init__(self) -> None:
        self.gaps: Statements | None = None

    def learn(
        self, outline: Outline, statements: Statements, parse: Callable[[str], Statements]
    ) -> bool:
        """Find the gaps; return whether this outline's literals all stand in a WHERE."""
        self.gaps = ()
        if not any(getattr(s, clause, None) for s in statements for clause in _CONDITIONS):
            return False
        kinds = [kind for kind, _ in outline.literals]
        texts = [_STAND_INS[kind].format(n) for n, kind in enumerate(kinds)]
        first, *others = outline.text.split("\0")
        pieces = [first]
        for text, piece in zip(texts, others[1::2], strict=True):
            pieces += (text, piece)
        stand_ins = dict(
            zip(map(_literal, kinds, texts), map(_Gap, range(len(kinds))), strict=True)
        )
        found: list[_Gap] = []

        def gap(literal: ast.Expr) -> Any:  # a tree with gaps is no tree of the grammar
            if literal not in stand_ins:
                return literal
            found.append(stand_ins[literal])
            return found[-1]

        with suppress(ParseError):
            gaps = tuple(_mapped(statement, gap) for statement in parse("".join(pieces)))
        if not len(found) == len(kinds) == len(stand_ins):
            return False
        self.gaps = gaps
        return True

    def filled(self, literals: list[ast.Expr]) -> Statements:
        """Return the statements with these literals."""
        assert self.gaps is not None

        def fill(leaf: Any) -> ast.Expr:
            return literals[leaf.number] if type(leaf) is _Gap else leaf

        return tuple(_mapped(statement, fill) for statement in self.gaps)


def _literal(kind: str, text: str) -> ast.Expr:
    """Return the literal of a text, as the grammar makes it.

    Raises:
        Refused: It is none.
    """
    token = literal_token(kind, text, 0)
    literal = cast("ast.Expr", RULES[_RULES[kind]]([token.value if kind == "STRING" else token]))
    if isinstance(literal, ast.CalendarDuration):
        raise Refused("a time plus or less months can be compared, months alone cannot")
    return literal


def _mapped(statement: Any, leaf: Callable[[Any], Any]) -> Any:
    """Return a statement whose WHERE has other leaves, those of its subqueries too."""
    changes: dict[str, Any] = {}
    for clause in _CONDITIONS:
        condition = getattr(statement, clause, None)
        if condition is not None:
            changes[clause] = _mapped_expr(condition, leaf)
    if type(statement) is ast.Select:
        sources = tuple(_mapped_source(source, leaf) for source in statement.sources)
        if any(new is not old for new, old in zip(sources, statement.sources, strict=True)):
            changes["sources"] = sources
    if type(statement) is ast.Select and changes.keys() == {"condition"}:
        return statement.where(changes["condition"])
    return replace(statement, **changes) if changes else statement


def _mapped_source(source: ast.Source, leaf: Callable[[Any], Any]) -> ast.Source:
    if isinstance(source, ast.SubQuery):
        return ast.SubQuery(_mapped(source.select, leaf))
    if isinstance(source, ast.NamedSource) and isinstance(source.source, ast.SubQuery):
        return replace(source, source=ast.SubQuery(_mapped(source.source.select, leaf)))
    return source


def _mapped_expr(expr: Any, leaf: Callable[[Any], Any]) -> Any:
    kind = type(expr)
    if kind is ast.BinaryExpr:
        return ast.BinaryExpr(expr.op, _mapped_expr(expr.lhs, leaf), _mapped_expr(expr.rhs, leaf))
    if kind is ast.ParenExpr or kind is ast.NotExpr:
        return kind(_mapped_expr(expr.expr, leaf))
    return leaf(expr)
