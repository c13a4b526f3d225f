"""What the gateway refuses, all of it.

    InfluxError                    answered with an error; has `status` and `text`
      BadRequest              400
        StatementError             of one statement: HTTP 200, the text in its result
        LinesRefused               of a write: has the `lines` that could not be read
      Unauthorized            401
      Forbidden               403
      NotFound                404
        DatabaseNotFound           its text is the one of /query; /write quotes the name
      RequestTimeout          408
      TooLarge                413
      UnsupportedType         415
      Overloaded              503  a bounded queue is full; come back later
      RetentionPolicyNotFound 500  influxd answers 500 here too
      NotInstalled            501  an optional package is missing

The text is influxd's wherever influxd has one: clients compare it. The status is what HTTP says
when the error reaches the edge (`gateway.app`); inside a statement only the text is used. Errors of
the layers below know no HTTP, their statuses are in `gateway.app`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.lineprotocol.parser import LineError


class InfluxError(Exception):
    """A refusal with influxd's words.

    Attributes:
        status: The HTTP status.
        headers: What HTTP wants to be sent with this status.
        text: What the client reads in `error`.
    """

    status: ClassVar[int] = 500
    headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class BadRequest(InfluxError):
    """The request cannot be understood, or its points cannot be stored."""

    status = 400


class StatementError(BadRequest):
    """A statement that cannot be answered; the statements after it are not executed."""


class LinesRefused(BadRequest):
    """Some or all lines of a body could not be stored; where they were good, the others were.

    Attributes:
        lines: Those that could not be read.
    """

    def __init__(self, text: str, lines: Sequence[LineError]) -> None:
        super().__init__(text)
        self.lines = lines


class Unauthorized(InfluxError):
    """Nobody we know is asking."""

    status = 401
    headers: ClassVar[Mapping[str, str]] = {"www-authenticate": 'Basic realm="InfluxDB"'}


class Forbidden(InfluxError):
    """Who asks may not do this."""

    status = 403


class NotFound(InfluxError):
    """What was named does not exist."""

    status = 404


class DatabaseNotFound(NotFound):
    """No database of this name.

    Attributes:
        name: The name that was asked for.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"database not found: {name}")
        self.name = name


class RetentionPolicyNotFound(InfluxError):
    """No retention policy of this name; also a default policy that was dropped."""

    def __init__(self, name: str) -> None:
        super().__init__(f"retention policy not found: {name}")


class RequestTimeout(InfluxError):
    """A body that does not come in time."""

    status = 408


class TooLarge(InfluxError):
    """A body beyond the configured size."""

    status = 413


class UnsupportedType(InfluxError):
    """A body in a format that this server does not read; the client may know another."""

    status = 415


class Overloaded(InfluxError):
    """A bounded queue is full; nothing was done, and the client may come back in a second."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"retry-after": "1"}


class NotInstalled(InfluxError):
    """What was asked for needs an optional package."""

    status = 501
