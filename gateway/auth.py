"""Who is asking: credentials of a request to a user.

    credentials_of   u and p of the URL, then Authorization: Bearer, Token, Basic; pure
    Authentication   passwords and tokens checked against the catalog's users

A password is checked with scrypt once and then known by a keyed hash of it, which holds no longer
than the password does; a request that is known costs no scrypt and no other thread. What is not
known is hashed in two threads of its own, a few per user, so that guesses at one user's password
keep nobody else waiting. A refused login is answered a fixed time after it was asked: guessing is
slow, and the time says nothing about whether there is such a user.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from gateway import jwt
from gateway.errors import Overloaded, Unauthorized
from gateway.http import header, url_parameters
from gateway.users import EVERYBODY, is_password

if TYPE_CHECKING:
    from starlette.types import Scope

    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.users import User

HASHING_THREADS: Final = 2
MAX_HASHED_OF_A_USER: Final = 4  # different passwords of one user that are looked at or wait
MAX_REFUSED: Final = 100  # refused logins that wait for their answer


@dataclass(frozen=True, slots=True)
class Password:
    """A user's name and password, as the request has them."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bearer:
    """A JSON web token."""

    token: str = field(repr=False)


Credentials: TypeAlias = Password | Bearer


def credentials_of(scope: Scope) -> Credentials:
    """Return the credentials of a request; those of the URL go before the header.

    Source: influxdb 1.x services/httpd parseCredentials; `Token` is 1.7.11's. A form has none.

    Raises:
        Unauthorized: There are none, or they cannot be read.
    """
    parameters = url_parameters(scope)
    name, password = parameters.get("u", ""), parameters.get("p", "")
    if name and password:
        return Password(name, password)
    scheme, _, value = header(scope, b"authorization").partition(" ")
    value = value.strip()
    match scheme.lower():
        case "bearer" if value:
            return Bearer(value)
        case "token":
            name, colon, password = _utf8(value.encode("latin-1")).partition(":")
        case "basic":
            name, colon, password = _utf8(_from_base64(value)).partition(":")
        case _:
            colon = ""
    if not colon:
        raise _unreadable()
    return Password(name, password)


def _from_base64(value: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise _unreadable() from None


def _utf8(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _unreadable() -> Unauthorized:
    return Unauthorized("unable to parse authentication credentials")


class _Attempt(NamedTuple):
    """One password tried on one state of a user."""

    name: str
    password_hash: str
    fingerprint: bytes


class Authentication:
    """Checks who asks. Its methods run on the event loop, the hashing in threads of its own."""

    def __init__(self, catalog: Catalog, settings: Settings) -> None:
        self._catalog = catalog
        self._settings = settings
        self._threads = ThreadPoolExecutor(HASHING_THREADS, "login")
        self._key = os.urandom(32)
        self._known: dict[str, _Attempt] = {}  # by user: the attempt that succeeded
        self._hashing: dict[_Attempt, asyncio.Future[bool]] = {}
        self._n_refused = 0

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(cancel_futures=True)

    async def user(self, scope: Scope) -> User | None:
        """Return who sends a request: EVERYBODY without authentication, None without any admin.

        Raises:
            Unauthorized: Nobody we know; influxd's words.
            Overloaded: Too many logins are looked at already.
        """
        if not self._settings.auth_enabled:
            return EVERYBODY
        if not self._catalog.has_admin:
            return None
        credentials = credentials_of(scope)
        if isinstance(credentials, Bearer):
            return self._bearer(credentials.token)
        if not credentials.name:
            raise Unauthorized("username required")
        return await self._login(credentials)

    def _bearer(self, token: str) -> User:
        name = jwt.username_of(token, self._settings.jwt_secret, time.time())
        user = self._catalog.users.get(name)
        if user is None:
            raise Unauthorized("user not found")
        return user

    async def _login(self, credentials: Password) -> User:
        started = time.monotonic()
        user = self._catalog.users.get(credentials.name)
        if user is None or not await self._is_right(user, credentials.password):
            await self._refuse(started)
            raise Unauthorized("authorization failed")
        return user

    async def _is_right(self, user: User, password: str) -> bool:
        attempt = _Attempt(user.name, user.password_hash, self._fingerprint(password))
        known = self._known.get(user.name)
        if known is not None and known.password_hash == user.password_hash:
            return hmac.compare_digest(known.fingerprint, attempt.fingerprint)
        hashing = self._hashing.get(attempt) or self._hash(attempt, password)
        # Shielded: others may wait for the same attempt.
        return await asyncio.shield(hashing)

    def _fingerprint(self, password: str) -> bytes:
        data = password.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(data, key=self._key, digest_size=32).digest()

    def _hash(self, attempt: _Attempt, password: str) -> asyncio.Future[bool]:
        """Have a password hashed; one attempt at a time for all requests that make the same."""
        if sum(other.name == attempt.name for other in self._hashing) >= MAX_HASHED_OF_A_USER:
            raise Overloaded("too many logins are waiting")
        loop = asyncio.get_running_loop()
        hashing = loop.run_in_executor(self._threads, is_password, password, attempt.password_hash)
        self._hashing[attempt] = hashing

        def finished(done: asyncio.Future[bool]) -> None:
            del self._hashing[attempt]
            if not done.cancelled() and done.exception() is None and done.result():
                users = self._catalog.users
                self._known = {name: known for name, known in self._known.items() if name in users}
                self._known[attempt.name] = attempt

        hashing.add_done_callback(finished)
        return hashing

    async def _refuse(self, started: float) -> None:
        """Wait until a refused login may hear of it."""
        if self._n_refused >= MAX_REFUSED:
            raise Overloaded("too many logins are waiting")
        self._n_refused += 1
        try:
            spent = time.monotonic() - started
            await asyncio.sleep(max(0.0, self._settings.failed_login_delay_s - spent))
        finally:
            self._n_refused -= 1
