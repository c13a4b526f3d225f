"""What the grammar raises.

ParseError (ValueError)     a text that is not InfluxQL
"""

from __future__ import annotations


class ParseError(ValueError):
    """A text that is not InfluxQL; `str()` is what influxd prints behind `error parsing query: `.

    Attributes:
        line: The line of the offending token, from 1; 0 when influxd names no place for this error.
        column: Its column in characters, from 1; 0 like `line`.
    """

    def __init__(self, text: str, line: int = 0, column: int = 0) -> None:
        super().__init__(text)
        self.line = line
        self.column = column
