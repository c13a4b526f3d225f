"""The lexer of InfluxQL: text to tokens, one at a time.

What a character means depends on the parser, so `Scanner.next` is told what it can take: `/` starts
a regex only where the grammar can take one, `fill` is a word only where no name can stand, and
`mean(` is a call only inside an expression. The words, operators and patterns themselves come from
influxql.lark (see `Lexicon.of`). Bound parameters become tokens here. `grammar.parser` is the only
caller.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grammar.parameters import BindError, bind
from grammar.words import reserved_words

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

END = "$END"  # what lark calls the end of the text
# Types of tokens that the grammar never takes.
ILLEGAL = "ILLEGAL"
UNBOUND = "UNBOUND"  # a parameter without a value; its own value is the reason
BAD_STRING = "BAD_STRING"  # a quoted text without an end
OPEN_REGEX = "OPEN_REGEX"  # a regex without an end
NOT_A_CALL = "NOT_A_CALL"  # `fill` or `tz` without its parenthesis

_JOINTS = ("DOT", "DOUBLECOLON")  # they hold names together: no blank may stand before them
CLAUSE_CALLS = ("FILL", "TZ")

# Blanks and comments. Atomic: a run of blanks is never tried in parts.
_BLANKS = r"(?>[ \t\n]+|--[^\n]*|/\*[\s\S]*?\*/)*"
_CHOICE = re.compile(rf"{_BLANKS}(?:IN|LIKE)\b", re.IGNORECASE)
_ESCAPE = re.compile(r"\\(.)")
_LIKE_ESCAPES = frozenset("%_\\")  # they stay in a pattern: LIKE reads them
_ESCAPED = {"n": "\n", '"': '"', "'": "'", "\\": "\\"}
# The good part of a quoted text that is not good as a whole, behind its quote.
_GOOD_PART = {
    quote: re.compile(rf"""(?:[^{quote}\\\n\x00]+|\\[n"'\\])*+""") for quote in ("'", '"')
}


class Token:
    """A word of the text.

    Attributes:
        type: The terminal of influxql.lark, `END`, or a type that the grammar never takes.
        value: What it says: a name or string without quotes and escapes, a reserved word in
            capitals, else as written. It is also what an error calls the token.
        start: Where it is, in characters from the start of the text.
    """

    __slots__ = ("start", "type", "value")

    def __init__(self, kind: str, value: str, start: int) -> None:
        self.type = kind
        self.value = value
        self.start = start


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The terminals of the grammar, as the scanner needs them.

    Attributes:
        reserved: Word in capitals -> terminal.
        contextual: Word in small letters -> terminal, for words that are names elsewhere.
        operators: Operator -> terminal.
        patterns: Terminal -> its pattern, for those that are no plain text.
        token: Matches blanks and one token; the group that took part is its kind.
        regex: Matches a regex literal.
        pattern: Matches the pattern of a LIKE.
        negation: Matches what stands behind a `not` that is no name and begins a condition.
    """

    reserved: Mapping[str, str]
    contextual: Mapping[str, str]
    operators: Mapping[str, str]
    patterns: Mapping[str, str]
    token: re.Pattern[str]
    regex: re.Pattern[str]
    pattern: re.Pattern[str]
    negation: re.Pattern[str]

    @classmethod
    def of(cls, strings: Mapping[str, str], patterns: Mapping[str, str]) -> Lexicon:
        """Return the lexicon of a grammar.

        Args:
            strings: The text of each terminal that is plain text -> its name.
            patterns: The name of each terminal that is a pattern -> the pattern.
        """
        operators = {text: name for text, name in strings.items() if not text.isalpha()}
        operators["<>"] = operators["!="]
        kinds = {
            **{
                kind: patterns[kind]
                for kind in ("IDENT", "STRING", "NUMBER", "DURATIONVAL", "INTEGER")
            },
            "PARAMETER": rf"\$(?:[A-Za-z0-9_]+|{patterns['IDENT']})?",
            "OPEN_COMMENT": r"/\*",
            "OPERATOR": "|".join(map(re.escape, sorted(operators, key=len, reverse=True))),
            "OTHER": r"[\s\S]",
        }
        alternatives = "|".join(f"(?P<{kind}>{pattern})" for kind, pattern in kinds.items())
        return cls(
            reserved={word: strings.get(word, word) for word in reserved_words()},
            contextual={text: name for text, name in strings.items() if text.islower()},
            operators=operators,
            patterns=patterns,
            token=re.compile(f"{_BLANKS}(?:{alternatives})?"),
            regex=re.compile(patterns["REGEX"]),
            pattern=re.compile(patterns["PATTERN"]),
            negation=re.compile(_begins_operand(), re.IGNORECASE),
        )


class Scanner:
    """Reads one text from its start to its end.

    Args:
        lexicon: The terminals.
        text: The text; its line ends are newlines.
        params: The values of bound parameters.
    """

    def __init__(self, lexicon: Lexicon, text: str, params: Mapping[str, object]) -> None:
        self._lexicon = lexicon
        self._text = text
        self._params = params
        self._position = 0
        self._last = ""
        self._is_word = False  # the last token was a bare word

    def next(self, wanted: Container[str]) -> Token:
        """Return the next token, the `END` token behind the last one.

        Args:
            wanted: The terminals that the parser can take now.
        """
        before = self._position
        match = self._lexicon.token.match(self._text, before)
        assert match is not None  # everything in the pattern is optional
        self._position = match.end()
        kind = match.lastgroup
        if kind is None:
            # influxd reads a character too far behind a bare word or a line comment, and says so.
            blanks = match[0]
            reads_too_far = blanks.rpartition("\n")[2].lstrip(" \t").startswith("--") or (
                not blanks and self._is_word
            )
            return Token(END, "EOF", len(self._text) + reads_too_far)
        start = match.start(kind)
        token = self._token(kind, match[kind], start, wanted)
        if start > before:
            if token.type in _JOINTS:
                token.type = ILLEGAL
            elif self._last == "DOUBLECOLON":
                token = Token(ILLEGAL, self._text[before:start], before)
        self._last = token.type
        self._is_word = kind == "IDENT" and not self._text.startswith('"', start)
        return token

    def _token(self, kind: str, text: str, start: int, wanted: Container[str]) -> Token:
        if kind == "IDENT":
            return self._word(text, start, wanted)
        if text[0] == "'" and "PATTERN" in wanted:
            return self._pattern(start)
        if kind == "OPERATOR":
            if text == "/" and "REGEX" in wanted:
                return self._regex(start)
            return Token(self._lexicon.operators[text], "!=" if text == "<>" else text, start)
        if kind == "PARAMETER":
            return self._parameter(text, start, wanted)
        if kind == "OPEN_COMMENT":
            return Token(ILLEGAL, "ILLEGAL", start)
        if kind == "OTHER":
            return self._illegal(text, start)
        return literal_token(kind, text, start)

    def _word(self, text: str, start: int, wanted: Container[str]) -> Token:
        is_open = self._text.startswith("(", self._position)
        is_call = is_open and "CALL" in wanted
        if text[0] == '"':
            text = _unquote(text)
        else:
            word = text.upper()
            reserved = self._lexicon.reserved.get(word)
            if reserved == "DISTINCT" and is_call:
                return Token("CALL", word, start)
            if reserved is not None:
                return Token(reserved, word, start)
            if word == "NOT" and "NOT" in wanted and self._is_negation(wanted):
                return Token("NOT", text, start)
        if "IDENT" not in wanted:
            contextual = self._lexicon.contextual.get(text.lower())
            if contextual is not None and contextual in wanted and contextual != "NOT":
                is_whole = is_open or contextual not in CLAUSE_CALLS
                return Token(contextual if is_whole else NOT_A_CALL, text, start)
        return Token("CALL" if is_call else "IDENT", text, start)

    def _is_negation(self, wanted: Container[str]) -> bool:
        """Return whether a bare `not` is no name, as it is for InfluxDB, but NOT."""
        # Before an operand a name cannot stand before another operand, nor behind one before IN.
        follows = self._lexicon.negation if "IDENT" in wanted else _CHOICE
        return follows.match(self._text, self._position) is not None

    def _pattern(self, start: int) -> Token:
        match = self._lexicon.pattern.match(self._text, start)
        if match is None:
            return self._illegal("'", start)
        self._position = match.end()
        return Token("PATTERN", _ESCAPE.sub(_unescape_in_pattern, match[0][1:-1]), start)

    def _regex(self, start: int) -> Token:
        match = self._lexicon.regex.match(self._text, start)
        if match is None:
            return Token(OPEN_REGEX, "/", start)
        self._position = match.end()
        return literal_token("REGEX", match[0], start)

    def _parameter(self, text: str, start: int, wanted: Container[str]) -> Token:
        name = text[1:]
        if name.startswith('"'):
            name = _unquote(name)
        if not name and self._text.startswith('"', self._position):
            quoted = self._illegal('"', self._position)
            return Token(ILLEGAL, f"${quoted.value}", start)
        if name not in self._params:
            return Token(UNBOUND, f"${name}", start)
        try:
            kind, value = bind(self._params[name])
        except BindError as exc:
            return Token(UNBOUND, str(exc), start)
        if kind == "IDENT" and "CALL" in wanted and self._text.startswith("(", self._position):
            kind = "CALL"
        return Token(kind, value, start)

    def _illegal(self, character: str, start: int) -> Token:
        if character not in _GOOD_PART:
            return Token(ILLEGAL, character, start)
        match = _GOOD_PART[character].match(self._text, start + 1)
        assert match is not None  # it may be empty
        end = match.end()
        if self._text.startswith("\\", end):  # influxd names the escape it does not know
            return Token(ILLEGAL, self._text[end : end + 2], end + 1)
        return Token(BAD_STRING, _unescape(match[0]) or "BADSTRING", start)


def literal_token(kind: str, text: str, start: int) -> Token:
    """Return the token of a literal that the pattern of its kind has matched."""
    if kind == "STRING":
        return Token(kind, _unquote(text), start)
    if kind == "REGEX":
        return Token(kind, text[1:-1].replace("\\/", "/"), start)
    return Token(kind, text.removesuffix("."), start)


def _begins_operand() -> str:
    """Return the pattern of blanks and the beginning of an operand, of which a sign is none."""
    others = "|".join(sorted(reserved_words() - {"TRUE", "FALSE", "DISTINCT"}))
    no_name = rf"(?:{others})\b|(?:fill|tz)\(|like\b{_BLANKS}['$]"
    return rf"""{_BLANKS}(?:["'$(0-9]|(?!{no_name})[a-z_])"""


def _unescape_in_pattern(match: re.Match[str]) -> str:
    return match[0] if match[1] in _LIKE_ESCAPES else _ESCAPED[match[1]]


def _unquote(text: str) -> str:
    return _unescape(text[1:-1])


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: _ESCAPED[match[1]], text)
