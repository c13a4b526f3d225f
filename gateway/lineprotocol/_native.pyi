from gateway.lineprotocol.bulk import Entry, Template

def read_lines(
    text: bytes,
    start: int,
    heads: dict[bytes, Entry],
    unit_ns: int,
    default_ns: int,
    strings: list[str],
) -> tuple[int, list[bytes], list[Template], bytes, bytes]: ...
