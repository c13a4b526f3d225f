"""Users as values, their passwords, and how the catalog keeps them."""

from __future__ import annotations

import hashlib
import stat
from base64 import b64decode
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.users import Access, User, from_document, hash_password, is_password, to_document
from tinyflux.errors import CorruptionError

if TYPE_CHECKING:
    from pathlib import Path

# scrypt of "secret" with the salt "salt", made with hashlib alone.
SECRET = "$scrypt$ln=4,r=8,p=1$c2FsdA$DtMC/2Lur3h+/FR3+aski0Wvs2RJrYB7pfKp7l1B99s"
ANN = User("ann", SECRET, grants={"t": Access.READ, "t2": Access.NONE})


def test_hash_carries_its_parameters_and_a_salt_of_its_own() -> None:
    first, second = hash_password("secret"), hash_password("secret")
    assert first != second
    _, kind, parameters, salt, derived = first.split("$")
    assert (kind, parameters) == ("scrypt", "ln=14,r=8,p=1")
    assert len(b64decode(salt + "==")) == 16
    assert b64decode(derived + "=") == hashlib.scrypt(
        b"secret", salt=b64decode(salt + "=="), n=2**14, r=8, p=1, maxmem=2**26, dklen=32
    )


@pytest.mark.parametrize("password", ["secret", "", "p'\"\\ $,=:", "é\u20ac\U0001f511", "\udcff"])
def test_only_the_password_that_was_hashed_is_it(password: str) -> None:
    hashed = hash_password(password)
    assert is_password(password, hashed)
    assert not is_password(password + "x", hashed)
    assert password not in hashed or not password


def test_hash_made_with_other_parameters_is_still_read() -> None:
    assert is_password("secret", SECRET)
    assert not is_password("Secret", SECRET)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        "$bcrypt$ln=4,r=8,p=1$c2FsdA$c2FsdA",
        "$scrypt$ln=4,r=8$c2FsdA$c2FsdA",
        "$scrypt$ln=4,r=8,p=x$c2FsdA$c2FsdA",
        "$scrypt$ln=4,r=8,p=1$!$c2FsdA",
        "$scrypt$ln=4,r=8,p=1$c2FsdA$",
        "$scrypt$ln=4,r=8,p=1$c2FsdA$c2FsdA",
        "$scrypt$ln=4,r=8,p=1$c2FsdA",
    ],
)
def test_what_is_no_hash_lets_nobody_in_and_is_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a password hash$"):
        is_password("", text)


def test_rights_are_those_granted_and_an_admin_has_all() -> None:
    assert ANN.may(Access.READ, "t")
    assert not ANN.may(Access.WRITE, "t")
    assert not ANN.may(Access.ALL, "t")
    assert not ANN.may(Access.READ, "t2")
    assert not ANN.may(Access.READ, "")
    assert [ANN.sees(name) for name in ("t", "t2", "t3")] == [True, False, False]
    admin = User("root", SECRET, is_admin=True)
    assert admin.may(Access.ALL, "anything")
    assert admin.sees("anything")


def test_granting_replaces_and_revoking_takes_a_part() -> None:
    user = ANN.with_access("t", Access.ALL)
    assert user.grants == {"t": Access.ALL, "t2": Access.NONE}
    assert user.without_access("t", Access.READ).grants["t"] == Access.WRITE
    assert user.without_access("t", Access.ALL).grants["t"] == Access.NONE
    assert user.without_access("t3", Access.READ).grants["t3"] == Access.NONE
    assert user.with_access("t", Access.WRITE).grants["t"] == Access.WRITE
    assert user.without_database("t").grants == {"t2": Access.NONE}
    assert ANN.grants == {"t": Access.READ, "t2": Access.NONE}


def test_user_shows_no_hash() -> None:
    assert "scrypt" not in repr(ANN)
    assert "scrypt" not in str(ANN)


def test_user_is_read_as_written() -> None:
    assert from_document(to_document(ANN)) == ANN
    assert to_document(ANN) == {
        "name": "ann",
        "password_hash": SECRET,
        "is_admin": False,
        "grants": {"t": "READ", "t2": "NO PRIVILEGES"},
    }


DAMAGES: list[dict[str, object]] = [
    {"name": 5},
    {"password_hash": None},
    {"password_hash": "secret"},
    {"is_admin": "false"},
    {"is_admin": 1},
    {"grants": []},
    {"grants": {"t": "read"}},
    {"grants": {"t": ["READ"]}},
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_user_is_an_error_and_never_a_guess(
    tmp_path: Path, damage: dict[str, object]
) -> None:
    document = {"version": 1, "databases": [], "dropping": [], "users": [to_document(ANN) | damage]}
    (tmp_path / "catalog.json").write_bytes(orjson.dumps(document))
    with pytest.raises(CorruptionError, match="not a catalog") as raised:
        Catalog(tmp_path, Settings())
    assert SECRET not in str(raised.value)


def test_catalog_keeps_users_in_their_order(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    users = {name: User(name, SECRET, is_admin=name == "b") for name in ("c", "a", "b")}
    assert not catalog.has_admin
    catalog.change_users(lambda _: users)
    assert catalog.has_admin
    catalog.close()
    again = Catalog(tmp_path, Settings())
    assert list(again.users.items()) == list(users.items())
    assert again.has_admin
    again.close()


def test_change_that_fails_leaves_the_users(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.change_users(lambda _: {"ann": ANN})
    before = (tmp_path / "catalog.json").read_bytes()

    def fail(_: object) -> dict[str, User]:
        raise KeyError

    with pytest.raises(KeyError):
        catalog.change_users(fail)
    assert catalog.users == {"ann": ANN}
    assert (tmp_path / "catalog.json").read_bytes() == before
    catalog.close()


def test_dropped_database_takes_the_rights_on_it_along(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("t")
    catalog.change_users(lambda _: {"ann": ANN})
    catalog.drop_database("t")
    catalog.create_database("t")
    assert catalog.users["ann"].grants == {"t2": Access.NONE}
    catalog.close()
    again = Catalog(tmp_path, Settings())
    assert again.users["ann"].grants == {"t2": Access.NONE}
    again.close()


def test_only_the_owner_may_read_the_hashes(tmp_path: Path) -> None:
    catalog = Catalog(tmp_path, Settings())
    catalog.create_database("t")
    assert stat.S_IMODE((tmp_path / "catalog.json").stat().st_mode) == 0o600
    catalog.close()


def test_catalog_written_before_there_were_users_is_read(tmp_path: Path) -> None:
    (tmp_path / "catalog.json").write_bytes(b'{"version": 1, "databases": [], "dropping": []}')
    catalog = Catalog(tmp_path, Settings())
    assert catalog.users == {}
    catalog.close()
