"""InfluxQL text to tree: `parse`, and `read`, which also says which texts are like it.

The grammar is influxql.lark, which lark turns into an LALR table on first use; grammar/lexer.py
makes the tokens, grammar/build_select.py and build_statements.py the tree while the text is read.
An error is explained only after it happened: the tokens are read again, and what the grammar could
have taken says what influxd would have expected (grammar/expected.py).

Everything is bounded: the length of the text, its tokens, how deep it nests, and the cache of
texts. Nothing here recurses into the text.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache, lru_cache, partial
from importlib.resources import files
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, Never, cast

from lark import Lark
from lark.lexer import Lexer, PatternStr

from grammar import build_select, build_statements
from grammar.errors import ParseError
from grammar.expected import EXPRESSION, LITERAL, expected
from grammar.lalr import Automaton, Reduction, Stuck, Table
from grammar.lexer import (
    BAD_STRING,
    CLAUSE_CALLS,
    END,
    ILLEGAL,
    NOT_A_CALL,
    OPEN_REGEX,
    UNBOUND,
    Lexicon,
    Scanner,
    Token,
)
from grammar.refusals import Place, Refused, Unexpected
from grammar.templates import Reading, Templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence, Set as AbstractSet

    from lark.grammar import Rule

    from grammar import ast

MAX_LENGTH = 1 << 20  # characters of a text
MAX_TOKENS = 50_000  # of a text
MAX_DEPTH = 200  # of a tree, so that whoever walks it may recurse
_MAX_OPEN = 10 * MAX_DEPTH  # of what is begun and not ended: where reading stops
_TOO_DEEP = f"query nests too deep: at most {MAX_DEPTH} levels are read"
_TOO_MANY = f"query too long: at most {MAX_TOKENS} words are read"
_QUOTED = frozenset(["STRING", "PATTERN", "REGEX", BAD_STRING, OPEN_REGEX])
_CACHED_TEXTS = 512
_CACHED_LENGTH = 4096  # characters: 512 texts of 4 KiB are a few tens of MB of trees at worst


def parse(text: str, params: Mapping[str, object] | None = None) -> tuple[ast.Statement, ...]:
    """Return the statements of an InfluxQL text, in order; `()` for a text without any.

    Trees are immutable. A text without parameters that was parsed lately is not parsed again; one
    that differs from it in the literals of its WHERE alone is not read by the grammar again.

    Args:
        text: Statements with `;` between them.
        params: The values of bound parameters: name -> str, int, float, bool, or a dict with one
            entry that says the type (see `grammar.parameters.bind`).

    Raises:
        ParseError: The text is not InfluxQL, is too long or nests too deep.
    """
    return read(text, params).statements


def read(text: str, params: Mapping[str, object] | None = None) -> Reading:
    """Return the statements of a text as `parse` does, and which texts are like it.

    Raises:
        ParseError: As `parse` does.
    """
    if params or len(text) > _CACHED_LENGTH:
        return Reading(_parse(text, params or {}), "")
    return _read_cached(text)


@lru_cache(maxsize=_CACHED_TEXTS)
def _read_cached(text: str) -> Reading:
    return _templates().read(_normalised(text))


@cache
def _templates() -> Templates:
    return Templates(partial(_read, params={}), _language().lexicon.patterns)


def _parse(text: str, params: Mapping[str, object]) -> tuple[ast.Statement, ...]:
    if len(text) > MAX_LENGTH:
        raise ParseError(f"query too long: {len(text)} characters, at most {MAX_LENGTH} are read")
    return _read(_normalised(text), params)


def _read(text: str, params: Mapping[str, object]) -> tuple[ast.Statement, ...]:
    """Return the statements of a normalised text."""
    tokens: list[Token] = []
    try:
        statements = _statements(text, params, tokens)
    except Stuck:
        raise _syntax_error(text, tokens) from None
    except Refused as exc:
        raise _refusal(exc, text, tokens) from None
    if len(tokens) > MAX_DEPTH:
        _check_depth(statements)
    return statements


def _normalised(text: str) -> str:
    """Return the text as influxd counts its lines: ends are newlines, no blanks around it."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as exc:
            raise ParseError(
                f"invalid Unicode in query: {exc.reason} at character {exc.start + 1}"
            ) from None
    return text.strip()


def _statements(
    text: str, params: Mapping[str, object], tokens: list[Token]
) -> tuple[ast.Statement, ...]:
    """Parse; `tokens` has every token that was read, also when this raises."""
    table, lexicon = _language()
    scanner = Scanner(lexicon, text, params)
    automaton = Automaton(table)
    while True:
        token = scanner.next(automaton.row)
        tokens.append(token)
        automaton.feed(token)
        if token.type == END:
            return cast("tuple[ast.Statement, ...]", automaton.result)
        if automaton.depth > _MAX_OPEN:
            raise Refused(_TOO_DEEP)
        if len(tokens) > MAX_TOKENS:
            raise Refused(_TOO_MANY)


class _NoLexer(Lexer):
    """What lark wants to be given; the tokens come from a `Scanner`."""

    def __init__(self, _config: object) -> None: ...

    def lex(self, _lexer_state: object, _parser_state: object) -> Iterator[Never]:
        raise NotImplementedError


class _Language(NamedTuple):
    table: Table
    lexicon: Lexicon


@cache
def _language() -> _Language:
    """Return what influxql.lark says, in the form that is run."""
    lark = Lark(
        files("grammar").joinpath("influxql.lark").read_text("utf-8"),
        parser="lalr",
        lexer=_NoLexer,
        transformer=cast("Any", SimpleNamespace(**build_select.RULES, **build_statements.RULES)),
        maybe_placeholders=False,
    )
    strings: dict[str, str] = {}
    patterns: dict[str, str] = {}
    for terminal in lark.terminals:
        if isinstance(terminal.pattern, PatternStr):
            strings[terminal.pattern.value] = terminal.name
        else:
            patterns[terminal.name] = terminal.pattern.value
    return _Language(_table(lark), Lexicon.of(strings, patterns))


def _table(lark: Lark) -> Table:
    config = lark.parse_interactive().parser_state.parse_conf
    callbacks = cast("Mapping[Rule, Callable[[list[object]], object]]", config.callbacks)
    reductions: dict[Rule, Reduction] = {}

    def action(target: int | Rule) -> int | Reduction:
        if isinstance(target, int):
            return target
        if target not in reductions:
            hands_on = (
                target.options.expand1
                and target.alias is None
                and len(target.expansion) == 1
                and not target.expansion[0].is_term
                and not target.expansion[0].name.startswith("_")
            )
            make = None if hands_on else callbacks[target]
            reductions[target] = Reduction(len(target.expansion), str(target.origin.name), make)
        return reductions[target]

    return Table(
        rows={
            state: {str(symbol): action(target) for symbol, (_, target) in row.items()}
            for state, row in config.states.items()
        },
        start=config.start_state,
        end=config.end_state,
        values=dict.fromkeys(("IDENT", "STRING", "PATTERN"), attrgetter("value")),
    )


def _check_depth(statements: tuple[ast.Statement, ...]) -> None:
    level: Sequence[object] = statements
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [part for node in level for part in _parts(node)]
    raise ParseError(_TOO_DEEP)


def _parts(node: object) -> Iterator[object]:
    for field in fields(cast("Any", node)):
        value = getattr(node, field.name)
        yield from filter(is_dataclass, value if isinstance(value, tuple) else (value,))


# --- errors, after the fact -----------------------------------------------------------------------
def _syntax_error(text: str, tokens: Sequence[Token]) -> ParseError:
    """Return the error for a token that the grammar could not take, the last one."""
    *taken, found = tokens
    automaton = Automaton(_language().table)
    for token in taken:
        automaton.feed(token)
    viable = automaton.viable()
    words, terminal = expected(viable)
    try:
        # influxd checks a clause when it has read it, before it looks at what follows: let the
        # rules that end here speak first.
        automaton.feed(Token(terminal, "", found.start))
    except Refused as exc:
        return _refusal(exc, text, tokens)
    if found.type == UNBOUND and words in (EXPRESSION, LITERAL):
        name = found.value.removeprefix("$")
        return ParseError(f"missing parameter: {name}" if name else "empty bound parameter")
    if found.type == NOT_A_CALL and not viable.isdisjoint(CLAUSE_CALLS):
        return ParseError(f"{found.value.lower()} must be a function call")
    if found.type == OPEN_REGEX and "REGEX" in viable:
        return _error("bad regex: ", text, found)
    found = _as_influxd_sees(found, text, taken, viable)
    if terminal == "DOT" and found.type != END:
        found = _blanks_before(found, text)
    return _error(f"found {found.value}, expected {words}", text, found)


def _as_influxd_sees(
    found: Token, text: str, taken: Sequence[Token], viable: AbstractSet[str]
) -> Token:
    """Return the wrong token as influxd reads it: a little differently from our lexer."""
    if found.type in ("REGEX", OPEN_REGEX) and text.startswith("/", found.start):
        # A row of the table has a little more than what can come: here a regex cannot.
        return Token("DIV", "/", found.start)
    # Looking for a regex or for one more name, influxd reads a character behind the end.
    is_in_name = bool(taken) and taken[-1].type == "DOT" and "DOT" in viable
    if found.type == END and ("REGEX" in viable or is_in_name):
        return Token(END, found.value, len(text) + 1)
    return found


def _blanks_before(found: Token, text: str) -> Token:
    """Return the blanks before a token, if there are some: no dot may follow them."""
    start = len(text[: found.start].rstrip())
    return Token(ILLEGAL, text[start : found.start], start) if start < found.start else found


def _refusal(refused: Refused, text: str, tokens: Sequence[Token]) -> ParseError:
    """Return the error for a clause that a rule did not take, when the last token followed it."""
    place = refused.place
    if place is Place.NOWHERE:
        return ParseError(refused.message)
    if place is Place.START:
        return ParseError(f"{refused.message} at line 1, char 1", 1, 1)
    token = _token_at(place, tokens)
    if isinstance(refused, Unexpected):
        return _error(f"found {token.value}, expected {refused.message}", text, token)
    return _error(refused.message, text, token, refused.tail)


def _token_at(place: Place | str, tokens: Sequence[Token]) -> Token:
    *taken, following = tokens
    if place is Place.NEXT:
        return following
    if place is Place.LAST:
        return taken[-1]
    if isinstance(place, str):
        return next(token for token in reversed(taken) if token.type == place)
    depth = 0
    first = following
    for token in reversed(taken):
        depth += (token.type == "RPAR") - (token.type == "LPAR")
        if depth == 0 and token.type in ("COMMA", "SELECT"):
            break
        first = token
    return first


def _error(message: str, text: str, token: Token, tail: str = "") -> ParseError:
    line, column = _line_and_column(text, token)
    return ParseError(f"{message} at line {line}, char {column}{tail}", line, column)


def _line_and_column(text: str, token: Token) -> tuple[int, int]:
    offset = token.start
    # influxd's place of a quoted text is the character before its first one.
    if token.type in _QUOTED and not text.startswith("$", offset):
        offset = max(0, offset - 1)
    return text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset)
