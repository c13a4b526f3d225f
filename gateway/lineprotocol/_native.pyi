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
) -> tuple[int, bytes, bytes, bytes]: ...
