"""How a rule refuses what the grammar takes and influxd does not."""

from __future__ import annotations

from enum import Enum


class Place(Enum):
    """Where influxd says an error is."""

    NOWHERE = "no place"
    START = "line 1, char 1"
    LAST = "the last token that was taken"
    NEXT = "the token behind it"
    FIELD = "the first token of the field"


class Refused(Exception):  # it never leaves the package
    """A clause that the grammar takes and influxd does not.

    Attributes:
        message: influxd's text.
        place: Where; a str means the last token of that type.
        tail: What follows the place in influxd's text.
    """

    def __init__(self, message: str, place: Place | str = Place.NOWHERE, tail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.tail = tail


class Unexpected(Refused):
    """A token that is the wrong one: the message is what was expected in its place."""

    def __init__(self, words: str, place: Place = Place.LAST) -> None:
        super().__init__(words, place)
