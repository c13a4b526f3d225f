"""Line protocol: bytes to points and back. Pure: no clock, no I/O.

line.py      one line, exactly as influxd reads it; the source of all error texts
bulk.py      many like lines at once
native.c     the same for lines like earlier ones, if a compiler was there at install time
parser.py    bodies: lines to `bulk` or `line`, the results to one PointBatch
printer.py   points to line protocol
"""

from __future__ import annotations

from gateway.lineprotocol.parser import LineError, Parsed, Parser, parse, unit_ns
from gateway.lineprotocol.printer import format_points

__all__ = ["LineError", "Parsed", "Parser", "format_points", "parse", "unit_ns"]
