"""InfluxQL text to tree: `parse`.

The grammar is influxql.lark, which lark turns into an LALR table on first use; grammar/lexer.py
makes the tokens, grammar/build_select.py and build_statements.py the tree while the text is read.
An error is explained only after it happened: the tokens are read again, and what the grammar could
have taken says what influxd would have expected (grammar/expected.py).

Everything is bounded: the length of the text, its tokens, how deep it nests, and the cache of
texts. Nothing here recurses into the text.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache, lru_cache
from importlib.resources import files
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from lark import Lark
from lark.exceptions import UnexpectedToken
from lark.lexer import Lexer, PatternStr

from grammar import build_select, build_statements
from grammar.errors import ParseError
from grammar.expected import EXPRESSION, expected
from grammar.lexer import BAD_STRING, END, NOT_A_CALL, OPEN_REGEX, UNBOUND, Lexicon, Scanner, Token
from grammar.refusals import Place, Refused, Unexpected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet

    from grammar import ast

MAX_LENGTH = 1 << 20  # characters of a text
MAX_TOKENS = 50_000  # of a text
MAX_DEPTH = 200  # of a tree, so that whoever walks it may recurse
_MAX_STACK = 10 * MAX_DEPTH  # of parser states: where reading stops
_TOO_DEEP = f"query nests too deep: at most {MAX_DEPTH} levels are read"
_TOO_MANY = f"query too long: at most {MAX_TOKENS} words are read"
_QUOTED = frozenset(["STRING", "REGEX", BAD_STRING, OPEN_REGEX])
_CACHED_TEXTS = 512
_CACHED_LENGTH = 4096  # characters: 512 texts of 4 KiB are a few tens of MB of trees at worst


def parse(text: str, params: Mapping[str, object] | None = None) -> tuple[ast.Statement, ...]:
    """Return the statements of an InfluxQL text, in order; `()` for a text without any.

    Trees are immutable, and a text without parameters that was parsed lately is not parsed again.

    Args:
        text: Statements with `;` between them.
        params: The values of bound parameters: name -> str, int, float, bool, or a dict with one
            entry that says the type (see `grammar.parameters.bind`).

    Raises:
        ParseError: The text is not InfluxQL, is too long or nests too deep.
    """
    if params or len(text) > _CACHED_LENGTH:
        return _parse(text, params or {})
    return _parse_cached(text)


@lru_cache(maxsize=_CACHED_TEXTS)
def _parse_cached(text: str) -> tuple[ast.Statement, ...]:
    return _parse(text, {})


def _parse(text: str, params: Mapping[str, object]) -> tuple[ast.Statement, ...]:
    if len(text) > MAX_LENGTH:
        raise ParseError(f"query too long: {len(text)} characters, at most {MAX_LENGTH} are read")
    text = _normalised(text)
    tokens: list[Token] = []
    try:
        statements = _statements(text, params, tokens)
    except UnexpectedToken:
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
    language = _language()
    scanner = Scanner(language.lexicon, text, params)
    state = language.lark.parse_interactive().parser_state
    stack = state.state_stack
    wanted = state.parse_conf.states
    while True:
        token = scanner.next(wanted[stack[-1]])
        tokens.append(token)
        statements = state.feed_token(cast("Any", token), token.type == END)
        if token.type == END:
            return cast("tuple[ast.Statement, ...]", statements)
        if len(stack) > _MAX_STACK or len(tokens) > MAX_TOKENS:
            raise Refused(_TOO_DEEP if len(stack) > _MAX_STACK else _TOO_MANY)


class _NoLexer(Lexer):
    """What lark wants to be given; the tokens come from a `Scanner`."""

    def __init__(self, _config: object) -> None: ...

    def lex(self, _lexer_state: object, _parser_state: object) -> Iterator[Any]:
        raise NotImplementedError


class _Language(NamedTuple):
    lark: Lark
    lexicon: Lexicon


@cache
def _language() -> _Language:
    grammar = files("grammar").joinpath("influxql.lark").read_text("utf-8")
    rules = {
        **build_select.RULES,
        **build_statements.RULES,
        # Tokens that rules get as text.
        "IDENT": attrgetter("value"),
        "STRING": attrgetter("value"),
    }
    lark = Lark(
        grammar,
        parser="lalr",
        lexer=_NoLexer,
        transformer=cast("Any", SimpleNamespace(**rules)),
        maybe_placeholders=False,
    )
    strings = {t.pattern.value: t.name for t in lark.terminals if isinstance(t.pattern, PatternStr)}
    patterns = {
        t.name: t.pattern.value for t in lark.terminals if not isinstance(t.pattern, PatternStr)
    }
    return _Language(lark, Lexicon.of(strings, patterns))


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
    if found.type == OPEN_REGEX:
        return _error("bad regex: ", text, found)
    if found.type == NOT_A_CALL:
        return ParseError(f"{found.value.lower()} must be a function call")
    parser = _language().lark.parse_interactive()
    for token in taken:
        parser.feed_token(cast("Any", token))
    viable: AbstractSet[str] = parser.accepts()  # type: ignore[no-untyped-call] # lark
    words, terminal = expected(viable)
    try:
        # influxd checks a clause when it has read it, before it looks at what follows: let the
        # rules that end here speak first.
        parser.feed_token(cast("Any", Token(terminal, "", found.start)))
    except Refused as exc:
        return _refusal(exc, text, tokens)
    if found.type == UNBOUND and words == EXPRESSION:
        name = found.value.removeprefix("$")
        return ParseError(f"missing parameter: {name}" if name else "empty bound parameter")
    if found.type == END and _reads_too_far(taken, viable):
        found = Token(END, found.value, len(text) + 1)
    return _error(f"found {found.value}, expected {words}", text, found)


def _reads_too_far(taken: Sequence[Token], viable: AbstractSet[str]) -> bool:
    # Looking for a regex or one more name, influxd reads a character behind the end, and says so.
    is_in_name = bool(taken) and taken[-1].type == "DOT" and "DOT" in viable
    return "REGEX" in viable or is_in_name


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
