from collections.abc import Callable

from gateway.lineprotocol.bulk import Entry, Template

def read_lines(
    text: bytes,
    start: int,
    unit_ns: int,
    default_ns: int,
    heads: dict[bytes, Entry],
    order: list[bytes],
    successors: bytearray,
    keys: dict[bytes, int],
    layouts: dict[Template, int],
    strings: list[str],
    between: Callable[[], None] | None,
) -> tuple[int, bytes, bytes, bytes]: ...
