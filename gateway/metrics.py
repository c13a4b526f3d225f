"""Counters of the server: kept here, shown by /metrics, /debug/vars and SHOW STATS.

Names follow Prometheus: tinyflux_<area>_<what>_<unit>, counters end in _total, seconds and bytes
only.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

COUNTERS: Final = {
    "tinyflux_http_requests_total": "Requests answered.",
    "tinyflux_http_client_errors_total": "Requests answered with a status of 4xx.",
    "tinyflux_http_server_errors_total": "Requests answered with a status of 5xx.",
    "tinyflux_write_requests_total": "Write requests taken.",
    "tinyflux_write_body_bytes_total": "Bytes of write bodies, as sent.",
    "tinyflux_write_points_total": "Points stored.",
    "tinyflux_write_points_dropped_total": "Points refused: type conflicts, retention, bad lines.",
    "tinyflux_write_points_over_limit_total": "Points refused by a limit of series.",
    "tinyflux_write_errors_total": "Write requests answered with an error.",
    "tinyflux_udp_datagrams_total": "Datagrams received.",
    "tinyflux_udp_bytes_total": "Bytes of datagrams received.",
    "tinyflux_udp_datagrams_dropped_total": "Datagrams of which nothing could be stored.",
    "tinyflux_udp_bad_lines_total": "Lines of datagrams that could not be parsed.",
    "tinyflux_query_requests_total": "Query requests taken.",
    "tinyflux_query_statements_total": "Statements executed.",
    "tinyflux_query_errors_total": "Statements that failed.",
    "tinyflux_query_seconds_total": "Time spent in statements.",
    "tinyflux_continuous_runs_total": "Runs of continuous queries that succeeded.",
    "tinyflux_continuous_failures_total": "Runs of continuous queries that failed.",
    "tinyflux_continuous_points_total": "Points that continuous queries wrote.",
    "tinyflux_continuous_seconds_total": "Time spent in continuous queries.",
    "tinyflux_subscription_points_total": "Points that subscriptions sent on.",
    "tinyflux_subscription_points_dropped_total": "Points that subscriptions did not send on.",
    "tinyflux_subscription_failures_total": "Attempts to send that failed.",
}

# What callers count by.
_SHORT_NAMES: Final = {
    name: name.removeprefix("tinyflux_").removesuffix("_total") for name in COUNTERS
}


class Statistic(NamedTuple):
    """What one of many things of a kind counts.

    Attributes:
        name: The kind.
        tags: Which one it is.
        values: What it counts.
    """

    name: str
    tags: Mapping[str, str]
    values: Mapping[str, object]


class Metrics:
    """Counts, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, float] = dict.fromkeys(_SHORT_NAMES.values(), 0)
        self.started_ns = time.time_ns()
        """When the server started, ns since 1970."""
        self._started = time.monotonic()
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._sources: list[Callable[[], Iterable[Statistic]]] = []

    def count(self, **amounts: float) -> None:
        """Add to counters, named without `tinyflux_` and `_total`: `count(http_requests=1)`."""
        with self._lock:
            for name, amount in amounts.items():
                self._counts[name] += amount

    def values(self) -> dict[str, float]:
        """Return every counter by its full name."""
        with self._lock:
            return {name: self._counts[short] for name, short in _SHORT_NAMES.items()}

    def measure(self, name: str, doc: str, gauge: Callable[[], float]) -> None:
        """Have a value shown that goes up and down; `gauge` gives it when it is asked for."""
        self._gauges[name] = doc, gauge

    def gauges(self) -> dict[str, tuple[str, float]]:
        """Return help text and value of every `measure`, by name."""
        return {name: (doc, gauge()) for name, (doc, gauge) in self._gauges.items()}

    def report(self, source: Callable[[], Iterable[Statistic]]) -> None:
        """Have statistics shown; `source` gives them when they are asked for."""
        self._sources.append(source)

    def statistics(self) -> list[Statistic]:
        """Return the statistics of all sources."""
        return [statistic for source in self._sources for statistic in source()]

    @property
    def uptime_s(self) -> float:
        """Seconds since the server started."""
        return time.monotonic() - self._started


def prometheus_text(counters: Mapping[str, float], gauges: Mapping[str, tuple[str, float]]) -> str:
    """Return the text format of Prometheus.

    Args:
        counters: Values by the names of `COUNTERS`.
        gauges: Help text and value by name.
    """
    lines: list[str] = []
    for name, value in counters.items():
        lines += (
            f"# HELP {name} {COUNTERS[name]}",
            f"# TYPE {name} counter",
            f"{name} {value:.15g}",
        )
    for name, (doc, value) in gauges.items():
        lines += (f"# HELP {name} {doc}", f"# TYPE {name} gauge", f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"
