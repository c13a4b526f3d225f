"""POST /api/v1/prom/write: Prometheus' remote write, version 1, as InfluxDB 1.x stores it.

    metric name   the measurement; it stays a tag too (`__name__`)
    labels        tags; empty ones are left out
    sample        the float field `value`

    WriteRequest { repeated TimeSeries timeseries = 1 }
    TimeSeries   { repeated Label labels = 1;  repeated Sample samples = 2 }
    Label        { string name = 1;  string value = 2 }
    Sample       { double value = 1;  int64 timestamp = 2 (ms) }

The message is snappy's block format around protocol buffers of these four; everything else in it
(metadata, exemplars, histograms) is skipped. NaN, with which Prometheus marks series as stale, and
infinities are no values in InfluxDB and are dropped without a word, as 1.8 does. Source: measured
on influxd 1.6.7, which refuses a whole request for one infinity.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from gateway.errors import BadRequest, UnsupportedType
from gateway.http import header, url_parameters
from gateway.lineprotocol.line import MAX_KEY_LENGTH
from gateway.lineprotocol.parser import Parsed
from gateway.prometheus.messages import check_snappy, fields, from_snappy
from gateway.writer import Write
from tinyflux.batch import MAX_TIME_NS, FieldType, PointBatch, series_key
from tinyflux.columnar.base import Rejection

if TYPE_CHECKING:
    from starlette.types import Scope

    from gateway.config import Settings
    from gateway.lineprotocol.parser import Parser
    from gateway.writer import Between

NAME_LABEL: Final = "__name__"
NAMELESS: Final = "prom_metric_not_specified"  # influxdb 1.x prometheus: measurementName
MAX_TIME_MS: Final = MAX_TIME_NS // 1_000_000
MAX_REMEMBERED: Final = 100_000  # label sets
MAX_REMEMBERED_BYTES: Final = 2048  # of a label set; longer ones are read each time

# Field numbers with wire types: what a protocol buffer has before each content.
_FIRST_MESSAGE: Final = 1 << 3 | 2  # timeseries, labels, name
_SECOND_MESSAGE: Final = 2 << 3 | 2  # samples, value of a label
_SAMPLE_VALUE: Final = 1 << 3 | 1
_SAMPLE_TIMESTAMP: Final = 2 << 3 | 0
_DOUBLE: Final = struct.Struct("<d")


class RemoteWrite:
    """Describes requests of remote write; the label sets it has read it remembers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._series: dict[bytes, tuple[bytes, str]] = {}  # touched by the writer thread only

    def describe(self, scope: Scope) -> Write:
        """Return what a request wants written, without its body.

        Raises:
            BadRequest: It names no database.
            NotInstalled: There is no snappy.
            UnsupportedType: Remote write 2.0, after which Prometheus comes with 1.0.
        """
        parameters = url_parameters(scope)
        database = parameters.get("db", "")
        if not database:
            raise BadRequest("database is required")
        if "io.prometheus.write.v2" in header(scope, b"content-type"):
            raise UnsupportedType("remote write 2.0 is not supported; send prometheus.WriteRequest")
        check_snappy()
        return Write(
            b"",
            database,
            parameters.get("rp", ""),
            consistency=parameters.get("consistency", ""),
            read=self.read,
        )

    def read(self, _: Parser, body: bytes, __: int, ___: Between) -> Parsed:
        """Return the points of a body.

        Raises:
            BadRequest: Not snappy, or not the message.
            TooLarge: It would inflate beyond a limit; nothing was inflated.
        """
        data = from_snappy(body, self._settings.max_inflated_bytes)
        samples = _Samples()
        try:
            for tag, start, end in fields(data, 0, len(data)):
                if tag == _FIRST_MESSAGE:
                    self._read_series(data, start, end, samples)
        except (IndexError, struct.error):
            raise BadRequest("unexpected EOF") from None
        return samples.parsed()

    def _read_series(self, data: bytes, start: int, end: int, samples: _Samples) -> None:
        labels: list[tuple[int, int]] = []
        found: list[tuple[int, int]] = []
        for tag, first, stop in fields(data, start, end):
            if tag == _FIRST_MESSAGE:
                labels.append((first, stop))
            elif tag == _SECOND_MESSAGE:
                found.append((first, stop))
        if found:
            # What begins alike means alike: the labels come first.
            text = data[start : labels[-1][1]] if labels else b""
            key, refusal = self._series.get(text) or self._read_labels(data, labels, text)
            samples.add(key, refusal, [_sample(data, *place) for place in found])

    def _read_labels(
        self, data: bytes, labels: list[tuple[int, int]], text: bytes
    ) -> tuple[bytes, str]:
        """Return the series key, and why its points cannot be stored, or ""."""
        found = _series(dict(_label(data, *place) for place in labels))
        if len(text) <= MAX_REMEMBERED_BYTES:
            if len(self._series) >= MAX_REMEMBERED:
                self._series.clear()
            self._series[text] = found
        return found


class _Samples:
    """The samples of a request as columns that grow."""

    def __init__(self) -> None:
        self._keys: dict[bytes, int] = {}
        self._rows: list[int] = []
        self._samples: list[tuple[float, int]] = []
        self._refused: dict[str, int] = {}

    def add(self, key: bytes, refusal: str, samples: list[tuple[float, int]]) -> None:
        """Add the samples of a series, which may be refused with a reason."""
        if refusal:
            self._refused[refusal] = self._refused.get(refusal, 0) + len(samples)
            return
        row = self._keys.setdefault(key, len(self._keys))
        self._rows += [row] * len(samples)
        self._samples += samples

    def parsed(self) -> Parsed:
        """Return the points with a finite value."""
        values = np.array([value for value, _ in self._samples], np.float64)
        times_ms = np.array([time_ms for _, time_ms in self._samples], np.int64)
        is_value = np.isfinite(values)
        is_time = (times_ms >= -MAX_TIME_MS) & (times_ms <= MAX_TIME_MS)
        keep = is_value & is_time
        n_beyond = int((is_value & ~is_time).sum())
        if n_beyond:
            self._refused["time outside range"] = n_beyond
        rejected = tuple(Rejection(points, reason) for reason, points in self._refused.items())
        n_kept = int(keep.sum())
        batch = PointBatch(
            list(self._keys),
            np.array(self._rows, np.int32)[keep],
            times_ms[keep] * 1_000_000,
            [(("value", FieldType.FLOAT),)],
            np.zeros(n_kept, np.int32),
            values[keep].view(np.int64),
        )
        return Parsed(batch, rejected=rejected)


def _series(labels: dict[str, str]) -> tuple[bytes, str]:
    measurement = labels.get(NAME_LABEL) or NAMELESS
    if labels.get("time"):
        reason = f'invalid tag key: input tag "time" on measurement "{measurement}" is invalid'
        return b"", reason
    tags = [tag for tag in labels.items() if tag[1]]
    # As of a line: m,k=v,k=v, 4 more and the field; without escapes.
    size = len(measurement.encode()) + sum(len(f",{k}={v}".encode()) for k, v in tags) + 9
    if size > MAX_KEY_LENGTH:
        return b"", f"max key length exceeded: {size} > {MAX_KEY_LENGTH}"
    return series_key(measurement, tags), ""


def _label(data: bytes, start: int, end: int) -> tuple[str, str]:
    name = value = ""
    for tag, first, stop in fields(data, start, end):
        if tag == _FIRST_MESSAGE:
            name = data[first:stop].decode(errors="replace")
        elif tag == _SECOND_MESSAGE:
            value = data[first:stop].decode(errors="replace")
    return name, value


def _sample(data: bytes, start: int, end: int) -> tuple[float, int]:
    value, timestamp_ms = 0.0, 0  # protobuf leaves out what is zero
    for tag, first, _ in fields(data, start, end):
        if tag == _SAMPLE_VALUE:
            value = _DOUBLE.unpack_from(data, first)[0]
        elif tag == _SAMPLE_TIMESTAMP:
            timestamp_ms = first
    return value, timestamp_ms
