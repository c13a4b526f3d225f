"""What the grammar raises.

ParseError (ValueError)     a text that is not InfluxQL
"""

from __future__ import annotations

_MAX_TEXT = 1000  # characters: an error quotes what it is about, however long that was


class ParseError(ValueError):
    """A text that is not InfluxQL; `str()` is what influxd prints behind `error parsing query: `.

    Attributes:
        line: The line of the offending token, from 1; 0 when influxd names no place for this error.
        column: Its column in characters, from 1; 0 like `line`.
    """

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        if len(text) > _MAX_TEXT:
            text = f"{text[: _MAX_TEXT // 2]}...{text[-_MAX_TEXT // 2 :]}"
        super().__init__(text)
        self.line = line
        self.column = column
