"""Regular expressions with Go's meaning: RE2 syntax, unanchored, linear in the text."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, Protocol

import re2

from gateway.errors import StatementError

_MAX_PATTERN_BYTES: Final = 65_536
_MAX_MEMORY_BYTES: Final = 8 << 20
_UNANCHORED: Final = re2._re2.RE2.Anchor.UNANCHORED  # noqa: SLF001


class _Compiled(Protocol):
    def Match(self, anchor: int, text: bytes, start: int, end: int) -> list[tuple[int, int]]: ...  # noqa: N802


class Regex:
    """A predicate on text: `Regex("^a|b$")("cab")`. Equal patterns are equal."""

    __slots__ = ("_compiled", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self._compiled = _compile(pattern)

    def __call__(self, text: object) -> bool:
        """Return whether the pattern is found in a text; False for what is no text."""
        if not isinstance(text, str):
            return False
        # What `search` asks itself, without the objects that it makes of a match: a seventh of it.
        data = text.encode()
        return self._compiled.Match(_UNANCHORED, data, 0, len(data))[0][0] >= 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Regex) and other.pattern == self.pattern

    def __hash__(self) -> int:
        return hash(self.pattern)

    def __repr__(self) -> str:
        return f"Regex({self.pattern!r})"


_LIKE_PART: Final = re.compile(r"\\(?P<literal>.)|(?P<wild>[%_])|(?P<text>[^\\%_]+)", re.DOTALL)
_WILD: Final = {"%": ".*", "_": "."}


def like_regex(pattern: str) -> Regex:
    """Return the regex of a LIKE pattern, which matches a whole text, case-sensitively."""
    parts = [
        _WILD[match[0]] if match.lastgroup == "wild" else re.escape(match["literal"] or match[0])
        for match in _LIKE_PART.finditer(pattern)
    ]
    return Regex(rf"(?s)\A{''.join(parts)}\z")


@lru_cache(maxsize=512)
def _compile(pattern: str) -> _Compiled:
    if len(pattern) > _MAX_PATTERN_BYTES:
        raise StatementError("error parsing regexp: expression too long")
    options = re2.Options()
    options.max_mem = _MAX_MEMORY_BYTES
    options.log_errors = False
    options.never_capture = True
    try:
        compiled: _Compiled = re2.compile(pattern, options)._regexp  # noqa: SLF001
    except re2.error as exc:
        text = exc.args[0].decode() if isinstance(exc.args[0], bytes) else str(exc.args[0])
        raise StatementError(f"error parsing regexp: {text}") from None
    return compiled
