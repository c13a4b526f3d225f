"""JSON web tokens as InfluxDB takes them: HS256, claims `username` and `exp`. Checked, never made.

Forty lines on hmac rather than a library: one algorithm is allowed, so there is nothing to choose
wrongly, and no optional dependency whose absence would show at the first login.
The signature is checked before anything that was signed is read. The texts are influxd 1.6.7's.
"""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import Final

import orjson

from gateway.errors import Unauthorized

ALGORITHM: Final = "HS256"
MAX_TOKEN_CHARACTERS: Final = 8192


def username_of(token: str, secret: str, now_s: float) -> str:
    """Return whom a token names.

    Args:
        token: `header.claims.signature`, each in base64url.
        secret: What it has to be signed with; "" lets no token in.
        now_s: Seconds since 1970.

    Raises:
        Unauthorized: It is malformed, signed otherwise, not valid now, or names nobody.
    """
    if not secret:
        raise Unauthorized("bearer auth disabled")
    parts = token.split(".")
    if len(parts) != 3 or len(token) > MAX_TOKEN_CHARACTERS:
        raise Unauthorized("token contains an invalid number of segments")
    head, body, signature = parts
    _check_header(_object(head))
    expected = hmac.digest(secret.encode(), f"{head}.{body}".encode("utf-8", "replace"), "sha256")
    if not hmac.compare_digest(expected, _bytes(signature)):
        raise Unauthorized("signature is invalid")
    claims = _object(body)
    _check_times(claims, now_s)
    name = claims.get("username")
    if not isinstance(name, str):
        raise Unauthorized("username in token must be a string")
    if not name:
        raise Unauthorized("token must contain a username")
    return name


def _check_header(header: dict[str, object]) -> None:
    if header.get("alg") != ALGORITHM:
        raise Unauthorized(f"unexpected signing method: {header.get('alg')!s:.40}")
    if "crit" in header:  # RFC 7515 4.1.11: extensions that must be understood; we know none
        raise Unauthorized("unexpected critical header in token")


def _check_times(claims: dict[str, object], now_s: float) -> None:
    expires = _time(claims.get("exp"))
    if expires is None:
        raise Unauthorized("token expiration required")
    if now_s >= expires:
        raise Unauthorized("Token is expired")
    for name, text in (("iat", "Token used before issued"), ("nbf", "Token is not valid yet")):
        if name in claims:
            begins = _time(claims[name])
            if begins is None or now_s < begins:
                raise Unauthorized(text)


def _time(value: object) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _object(segment: str) -> dict[str, object]:
    try:
        value = orjson.loads(_bytes(segment))
    except orjson.JSONDecodeError:
        raise _malformed() from None
    if not isinstance(value, dict):
        raise _malformed()
    return value


def _bytes(segment: str) -> bytes:
    try:
        return base64.b64decode(segment + "=" * (-len(segment) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _malformed() from None


def _malformed() -> Unauthorized:
    return Unauthorized("unable to parse authentication credentials")
