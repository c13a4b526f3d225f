"""Tokens: what influxd's answers (tests/conformance/auth) leave open."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json

import pytest

from gateway.errors import Unauthorized
from gateway.jwt import username_of

SECRET = "s3cret"
NOW_S = 1_700_000_000.0
GOOD: dict[str, object] = {"username": "ann", "exp": NOW_S + 60}
UNREADABLE = "unable to parse authentication credentials"
# Of RFC 7515 A.1: another key, claims without a username; the text is the RFC's.
RFC_TOKEN = (
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9."
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
)


def segment(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(claims: object, header: object = None, secret: str = SECRET) -> str:
    parts = ({"alg": "HS256"} if header is None else header, claims)
    text = ".".join(segment(json.dumps(part).encode()) for part in parts)
    return f"{text}.{segment(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())}"


def refusal(text: str, secret: str = SECRET, now_s: float = NOW_S) -> str:
    with pytest.raises(Unauthorized) as raised:
        username_of(text, secret, now_s)
    return raised.value.text


def test_good_token_names_its_user() -> None:
    assert username_of(token(GOOD), SECRET, NOW_S) == "ann"
    assert username_of(token(GOOD | {"username": "é x"}), SECRET, NOW_S) == "é x"
    assert username_of(token(GOOD | {"nbf": NOW_S, "iat": NOW_S}), SECRET, NOW_S) == "ann"


def test_signature_covers_what_the_rfc_says() -> None:
    assert refusal(RFC_TOKEN) == "signature is invalid"


def test_empty_secret_takes_no_token_not_even_one_signed_with_it() -> None:
    assert refusal(token(GOOD, secret=""), secret="") == "bearer auth disabled"
    assert refusal(token(GOOD), secret="") == "bearer auth disabled"


def test_token_ends_when_it_says() -> None:
    text = token(GOOD)
    assert username_of(text, SECRET, NOW_S + 59.9) == "ann"
    assert refusal(text, now_s=NOW_S + 60) == "Token is expired"


@pytest.mark.parametrize("value", [True, None, "1", [NOW_S], {}])
def test_time_that_is_no_number_is_none(value: object) -> None:
    assert refusal(token(GOOD | {"exp": value})) == "token expiration required"
    assert refusal(token(GOOD | {"nbf": value})) == "Token is not valid yet"
    assert refusal(token(GOOD | {"iat": value})) == "Token used before issued"


@pytest.mark.parametrize("algorithm", ["none", "None", "hs256", "HS384", "", None, ["HS256"]])
def test_any_other_algorithm_is_refused_whatever_the_signature(algorithm: object) -> None:
    text = token(GOOD, {"alg": algorithm})
    assert refusal(text).startswith("unexpected signing method: ")
    unsigned = text.rpartition(".")[0] + "."
    assert refusal(unsigned).startswith("unexpected signing method: ")


def test_header_that_must_be_understood_is_refused() -> None:
    header = {"alg": "HS256", "crit": ["exp"], "exp": 1}
    assert refusal(token(GOOD, header)) == "unexpected critical header in token"


def test_every_changed_character_of_a_token_is_noticed() -> None:
    text = token(GOOD)
    _, body, signature = text.split(".")
    for at in range(len(text) - len(signature) - len(body) - 1, len(text) - 1):
        other = "A" if text[at] != "A" else "B"
        refusal(text[:at] + other + text[at + 1 :])


@pytest.mark.parametrize("claims", [None, [], "ann", 5])
def test_claims_that_are_no_object_are_refused(claims: object) -> None:
    assert refusal(token(claims)) == UNREADABLE


@pytest.mark.parametrize("text", ["..", "a.b.c", "é.é.é", "e30=.e30=.e30=", "!.e30.e30"])
def test_garbage_is_refused(text: str) -> None:
    assert refusal(text)


def test_long_token_is_refused_before_it_is_read() -> None:
    text = token(GOOD | {"x": "x" * 10_000})
    assert refusal(text) == "token contains an invalid number of segments"
