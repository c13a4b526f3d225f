"""Users: their names, password hashes and rights. Values and pure changes of them.

`gateway.catalog` keeps the users, `gateway.auth` finds who asks, `gateway.rights` says what that
needs. Passwords are nowhere but in arguments; a hash is never printed.

Rules measured on influxd 1.6.7: GRANT replaces the privilege on a database, REVOKE takes a part of
it away, and a database once named keeps its row (`NO PRIVILEGES`) until it is dropped.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass, field, replace
from enum import IntFlag
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

# A hash takes 128 * 8 * 2**14 bytes = 16 MB, and some 50 ms of one core.
_LOG2_COST: Final = 14
_BLOCK: Final = 8
_PARALLEL: Final = 1
_MEMORY_SLACK: Final = 1 << 20  # what OpenSSL wants beside the blocks
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_MIN_HASH_BYTES: Final = 16


class Access(IntFlag):
    """Rights on a database, as bits."""

    NONE = 0
    READ = 1
    WRITE = 2
    ALL = READ | WRITE

    @property
    def text(self) -> str:
        """InfluxQL's words for them."""
        return _TEXTS[self]


_TEXTS: Final = {
    Access.NONE: "NO PRIVILEGES",
    Access.READ: "READ",
    Access.WRITE: "WRITE",
    Access.ALL: "ALL PRIVILEGES",
}
_ACCESS: Final = {text: access for access, text in _TEXTS.items()}


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may log in.

    Attributes:
        name: Unique, not empty.
        password_hash: As `hash_password` makes it.
        is_admin: May do everything.
        grants: The rights on each database that was ever named in a GRANT or REVOKE.
    """

    name: str
    password_hash: str = field(repr=False)
    is_admin: bool = False
    grants: Mapping[str, Access] = field(default_factory=dict)

    def may(self, access: Access, database: str) -> bool:
        """Return whether all of the rights asked for are there."""
        return self.is_admin or access in self.grants.get(database, Access.NONE)

    def sees(self, database: str) -> bool:
        """Return whether there is any right on a database."""
        return self.is_admin or self.grants.get(database, Access.NONE) != Access.NONE

    def with_access(self, database: str, access: Access) -> User:
        """Return this user with exactly these rights on a database."""
        return replace(self, grants={**self.grants, database: access})

    def without_access(self, database: str, access: Access) -> User:
        """Return this user without these rights on a database, others stay."""
        held = self.grants.get(database, Access.NONE)
        return self.with_access(database, held & ~access)

    def without_database(self, database: str) -> User:
        """Return this user with nothing said about a database."""
        if database not in self.grants:
            return self
        rest = {name: access for name, access in self.grants.items() if name != database}
        return replace(self, grants=rest)


EVERYBODY: Final = User("", "", is_admin=True)
"""Who asks where authentication is off."""


# --- passwords ------------------------------------------------------------------------------------
def hash_password(password: str) -> str:
    """Return a new salted scrypt hash that carries its parameters: `$scrypt$ln=..$salt$hash`."""
    salt = os.urandom(_SALT_BYTES)
    derived = _scrypt(password, salt, _LOG2_COST, _BLOCK, _PARALLEL, _HASH_BYTES)
    parameters = f"ln={_LOG2_COST},r={_BLOCK},p={_PARALLEL}"
    return f"$scrypt${parameters}${_base64(salt)}${_base64(derived)}"


def is_password(password: str, password_hash: str) -> bool:
    """Return whether a password is the one that was hashed; costs as much as hashing.

    Raises:
        ValueError: It is no hash that this module made.
    """
    log2_cost, block, parallel, salt, expected = _parts(password_hash)
    derived = _scrypt(password, salt, log2_cost, block, parallel, len(expected))
    return hmac.compare_digest(derived, expected)


def _parts(password_hash: str) -> tuple[int, int, int, bytes, bytes]:
    try:
        _, kind, parameters, salt, derived = password_hash.split("$")
        named = dict(item.split("=") for item in parameters.split(","))
        if kind != "scrypt" or named.keys() != {"ln", "r", "p"}:
            raise ValueError(kind)
        numbers = int(named["ln"]), int(named["r"]), int(named["p"])
        found = _from_base64(derived)
        if len(found) < _MIN_HASH_BYTES:  # an empty one would equal every password's
            raise ValueError(derived)
        return *numbers, _from_base64(salt), found
    except ValueError:
        raise ValueError("not a password hash") from None  # its text is nobody's business


def _scrypt(
    password: str, salt: bytes, log2_cost: int, block: int, parallel: int, size: int
) -> bytes:
    memory = (128 * block << log2_cost) + 128 * block * parallel + _MEMORY_SLACK
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=1 << log2_cost,
        r=block,
        p=parallel,
        maxmem=memory,
        dklen=size,
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


# --- as catalog.json holds them -------------------------------------------------------------------
def to_document(user: User) -> dict[str, object]:
    """Return a user as JSON values."""
    return {
        "name": user.name,
        "password_hash": user.password_hash,
        "is_admin": user.is_admin,
        "grants": {database: access.text for database, access in user.grants.items()},
    }


def from_document(document: Mapping[str, object]) -> User:
    """Return the user of a document: read strictly, since what is misread may log in.

    Raises:
        KeyError: Something is missing, or an unknown privilege.
        TypeError: Something has another type.
        ValueError: The hash is none.
    """
    name, password_hash = document["name"], document["password_hash"]
    is_admin, grants = document["is_admin"], document["grants"]
    if not isinstance(name, str) or not isinstance(password_hash, str):
        raise TypeError("a user's name or password hash is not text")
    if not isinstance(is_admin, bool) or not isinstance(grants, dict):
        raise TypeError("a user's rights are not what they were")
    _parts(password_hash)
    return User(name, password_hash, is_admin, {key: _ACCESS[text] for key, text in grants.items()})
