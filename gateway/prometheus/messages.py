"""Prometheus' messages: protocol buffers by hand, in snappy's block format.

A protocol buffer is a row of fields; each is a tag (number and wire type), then a content. Numbers
of fields and what they mean are in the modules that read and write them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import BadRequest, NotInstalled, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator

# No snappy block inflates further: a copy of 64 bytes takes 3.
_MAX_SNAPPY_RATIO: Final = 22


def fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the fields of a message: tag, start and end of the content; of a varint its value.

    Raises:
        BadRequest: A content is longer than the message, or of a type that no message has.
        IndexError: The data end before the message.
    """
    while at < end:
        tag, at = varint(data, at)
        wire = tag & 7
        if wire == 0:
            value, at = varint(data, at)
            yield tag, value - (1 << 64) if value >> 63 else value, at
            continue
        if wire == 2:
            size, at = varint(data, at)
        elif wire in {1, 5}:
            size = 8 if wire == 1 else 4
        else:
            raise BadRequest(f"proto: illegal wireType {wire}")
        if at + size > end:
            raise BadRequest("unexpected EOF")
        yield tag, at, at + size
        at += size


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return an unsigned number below 2**64 and where it ends."""
    value = data[at]
    at += 1
    if value < 128:
        return value, at
    value &= 127
    for shift in range(7, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, at
    raise BadRequest("proto: integer overflow")


def check_snappy() -> None:
    """Refuse what cannot be read here.

    Raises:
        NotInstalled: There is no snappy.
    """
    try:
        import cramjam  # noqa: F401 - an extra, and 5 MB of memory
    except ImportError:
        raise NotInstalled(
            "Prometheus needs snappy: pip install 'tinyflux-gateway[prometheus]'"
        ) from None


def from_snappy(body: bytes, max_bytes: int) -> bytes:
    """Undo snappy's block format, which begins with the size of what it holds.

    Raises:
        BadRequest: Not snappy.
        TooLarge: It would inflate beyond a limit; nothing was inflated.
    """
    import cramjam

    corrupt = BadRequest("snappy: corrupt input")
    try:
        size, _ = varint(body, 0)
    except (IndexError, BadRequest):
        raise corrupt from None
    if size > max_bytes:
        raise TooLarge("Request Entity Too Large")
    if size > len(body) * _MAX_SNAPPY_RATIO:
        raise corrupt
    try:
        return bytes(cramjam.snappy.decompress_raw(body))
    except cramjam.DecompressionError:
        raise corrupt from None


def to_snappy(data: bytes) -> bytes:
    """Return data in snappy's block format."""
    import cramjam

    return bytes(cramjam.snappy.compress_raw(data))


def varint_bytes(number: int) -> bytes:
    """Return an unsigned number as it is written; a negative one as its 64 bits."""
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def content(tag: int, *parts: bytes) -> bytes:
    """Return a field that holds text or a message."""
    return b"".join((varint_bytes(tag), varint_bytes(sum(map(len, parts))), *parts))
