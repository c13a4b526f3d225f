"""Parameters, bodies and codings, apart from any endpoint."""

from __future__ import annotations

import asyncio
import gzip
import random
import zlib
from typing import TYPE_CHECKING

import pytest

from gateway.config import Settings
from gateway.errors import BadRequest, Overloaded, RequestTimeout, TooLarge
from gateway.http import ClientGone, inflate, parameters, read_body

if TYPE_CHECKING:
    from starlette.types import Message, Receive

LINES = b"cpu,host=a v=1 1\n" * 1000
NO_LIMIT = 1 << 30


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        ("", {}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=", {"a": ""}),
        ("a", {"a": ""}),
        ("a=1&a=2", {"a": "1"}),
        ("q=SELECT+%22v%22+FROM+m", {"q": 'SELECT "v" FROM m'}),
        ("q=%C3%A9", {"q": "é"}),
        ("q=%FF", {"q": "\ufffd"}),
        ("q=a%3Db%26c", {"q": "a=b&c"}),
    ],
)
def test_parameters_are_decoded_and_the_first_of_equal_names_wins(
    encoded: str, expected: dict[str, str]
) -> None:
    assert parameters(encoded) == expected


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("", LINES),
        ("identity", LINES),
        ("gzip", gzip.compress(LINES)),
        (" GZip ", gzip.compress(LINES)),
        ("x-gzip", gzip.compress(LINES)),
        ("gzip", gzip.compress(LINES[:5000]) + gzip.compress(LINES[5000:])),
        ("deflate", zlib.compress(LINES)),
        ("deflate", zlib.compress(LINES, wbits=-15)),
    ],
)
def test_inflate_undoes_the_coding(coding: str, body: bytes) -> None:
    assert inflate(body, coding, NO_LIMIT, NO_LIMIT) == LINES


def test_inflate_of_an_empty_body_is_empty_whatever_it_claims() -> None:
    assert inflate(b"", "gzip", NO_LIMIT, NO_LIMIT) == b""


def test_inflate_gives_back_exactly_what_fits() -> None:
    packed = gzip.compress(LINES)
    assert inflate(packed, "gzip", len(LINES), NO_LIMIT) == LINES
    with pytest.raises(TooLarge):
        inflate(packed, "gzip", len(LINES) - 1, NO_LIMIT)


def test_inflate_stops_at_the_ratio_only_beyond_a_megabyte() -> None:
    megabyte = gzip.compress(bytes(1 << 20))
    assert len(inflate(megabyte, "gzip", NO_LIMIT, 1)) == 1 << 20
    more = gzip.compress(bytes((1 << 20) + 1))
    with pytest.raises(TooLarge):
        inflate(more, "gzip", NO_LIMIT, 1)
    assert len(inflate(more, "gzip", NO_LIMIT, 2000)) == (1 << 20) + 1


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_inflate_refuses_every_prefix(coding: str) -> None:
    lines = LINES[:170]
    packed = gzip.compress(lines) if coding == "gzip" else zlib.compress(lines)
    for size in range(1, len(packed)):
        with pytest.raises(BadRequest, match=r"^unexpected EOF$"):
            inflate(packed[:size], coding, NO_LIMIT, NO_LIMIT)


def test_inflate_of_noise_refuses_and_never_fails_otherwise() -> None:
    source = random.Random(5)
    for _ in range(2000):
        noise = source.randbytes(source.randrange(1, 60))
        for coding in ("gzip", "deflate"):
            try:
                inflate(noise, coding, 1 << 20, NO_LIMIT)
            except (BadRequest, TooLarge):
                continue


def _receive(*pieces: bytes, ends: bool = True) -> Receive:
    """Return what gives a body in pieces; one that does not end keeps who asks waiting."""
    messages: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": not ends or n < len(pieces)}
        for n, piece in enumerate(pieces, 1)
    ]

    async def receive() -> Message:
        if not messages:
            await asyncio.sleep(60)
        return messages.pop(0)

    return receive


def test_body_is_all_its_pieces_in_order_and_each_is_told() -> None:
    told: list[int] = []
    body = read_body({"headers": []}, _receive(b"ab", b"", b"cde"), Settings(), told.append)
    assert asyncio.run(body) == b"abcde"
    assert told == [2, 0, 3]


@pytest.mark.parametrize("headers", [[], [(b"content-length", b"5")]])
def test_body_that_is_too_large_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    settings = Settings(max_body_bytes=4)
    with pytest.raises(TooLarge):
        asyncio.run(read_body({"headers": headers}, _receive(b"abc", b"de"), settings))


def test_body_is_read_no_further_once_a_piece_is_refused() -> None:
    def hold(_: int) -> None:
        raise Overloaded("full")

    with pytest.raises(Overloaded):
        asyncio.run(read_body({"headers": []}, _receive(b"a", ends=False), Settings(), hold))


def test_body_whose_connection_ends_is_none() -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        asyncio.run(read_body({"headers": []}, receive, Settings()))


def test_body_that_takes_too_long_is_refused_and_the_task_goes_on() -> None:
    async def late() -> str:
        settings = Settings(body_timeout_s=0.01)
        with pytest.raises(RequestTimeout):
            await read_body({"headers": []}, _receive(b"a", ends=False), settings)
        await asyncio.sleep(0)  # would end here, were the task still to be cancelled
        return "goes on"

    assert asyncio.run(late()) == "goes on"


def test_task_that_is_cancelled_within_a_body_ends() -> None:
    async def cancelled() -> None:
        body = read_body({"headers": []}, _receive(b"a", ends=False), Settings(body_timeout_s=60))
        reading = asyncio.ensure_future(body)
        await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(cancelled())
