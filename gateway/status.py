"""Is the server there, and how is it: /ping, /status, /health, /debug/vars, /metrics."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

import numpy as np
import orjson
from starlette.responses import Response

from gateway.config import public_arguments
from gateway.encoding.times import to_rfc3339
from gateway.http import INFLUXDB_VERSION, url_parameters
from gateway.metrics import prometheus_text
from tinyflux.columnar.memory import resident_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

    from gateway.auth import Authentication
    from gateway.catalog import Catalog
    from gateway.config import Settings
    from gateway.metrics import Metrics
    from gateway.running import RunningQueries
    from gateway.writer import Writer


# Of all open stores together: what an alarm should look at.
_DAMAGE: Final = {
    "tinyflux_store_segments_damaged": ("segments_damaged", "Damaged segments in quarantine."),
    "tinyflux_store_points_missing": ("points_missing", "At most so many points went with them."),
    "tinyflux_store_log_damaged": ("log_damaged", "Damaged places in logs that were read."),
    "tinyflux_store_log_failures": ("log_failures", "Times that a log could not be written."),
    "tinyflux_store_flushes_failed": ("flushes_failed", "Flushes that failed."),
}


class StatusEndpoints:
    """The small endpoints; each takes a request and returns its answer."""

    def __init__(
        self,
        catalog: Catalog,
        authentication: Authentication,
        writer: Writer,
        running: RunningQueries,
        metrics: Metrics,
        settings: Settings,
    ) -> None:
        self._catalog = catalog
        self._authentication = authentication
        self._settings = settings
        self._writer = writer
        self._running = running
        self._metrics = metrics

    async def ping(self, request: Request) -> Response:
        """Answer 204; with `verbose` the version. Source: influxdb 1.8 services/httpd servePing."""
        verbose = url_parameters(request.scope).get("verbose", "")
        if verbose not in {"", "0", "false"}:
            return _json({"version": INFLUXDB_VERSION})
        return Response(status_code=204, headers={"content-type": "application/json"})

    async def status(self, request: Request) -> Response:  # noqa: ARG002
        """Answer 204."""
        return Response(status_code=204, headers={"content-type": "application/json"})

    async def health(self, request: Request) -> Response:
        """Answer as influxd from 1.8 on does when it is well."""
        if request.method == "OPTIONS":
            return Response()
        return _json(
            {
                "checks": [],
                "message": "ready for queries and writes",
                "name": "influxdb",
                "status": "pass",
                "version": INFLUXDB_VERSION,
            }
        )

    async def debug_vars(self, request: Request) -> Response:
        """Answer the statistics that Telegraf's `influxdb` input collects."""
        await self._check(request)
        counts = self._metrics.values()
        now, started = to_rfc3339(np.array([time.time_ns(), self._metrics.started_ns]))
        uptime_s = self._metrics.uptime_s
        document: dict[str, object] = {
            "system": {"currentTime": now, "started": started, "uptime": uptime_s},
            "cmdline": public_arguments(sys.argv),
            "httpd": _statistic("httpd", _httpd(counts), {}),
        }
        for database, policy, storage in self._catalog.open_stores():
            tags = {"database": database, "retentionPolicy": policy}
            stats = storage.stats()
            document[f"store:{database}:{policy}"] = _statistic("store", stats, tags)
            n_names = len(storage.measurements())
            sizes = {"numMeasurements": n_names, "numSeries": stats.get("series", 0)}
            document[f"database:{database}:{policy}"] = _statistic("database", sizes, tags)
        return _json(document)

    async def metrics(self, request: Request) -> Response:
        """Answer the counters as Prometheus text."""
        await self._check(request)
        gauges: dict[str, tuple[str, float]] = {
            "tinyflux_uptime_seconds": (
                "Seconds since the server started.",
                self._metrics.uptime_s,
            ),
            "tinyflux_memory_resident_bytes": ("Resident memory of the process.", resident_bytes()),
            "tinyflux_databases": ("Databases.", len(self._catalog.databases)),
            "tinyflux_open_stores": ("Open stores.", len(self._catalog.open_stores())),
            "tinyflux_write_waiting": (
                "Writes that wait for the writer thread.",
                self._writer.waiting,
            ),
            "tinyflux_query_running": ("Statements that run.", len(self._running.listed())),
        }
        stores = [storage.stats() for _, _, storage in self._catalog.open_stores()]
        for name, (key, doc) in _DAMAGE.items():
            gauges[name] = doc, sum(stats.get(key, 0) for stats in stores)
        text = prometheus_text(self._metrics.values(), gauges | self._metrics.gauges())
        return Response(text, headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _check(self, request: Request) -> None:
        """Refuse whom the settings refuse the counters: who cannot log in."""
        if self._settings.metrics_auth_enabled:
            await self._authentication.user(request.scope)


def _httpd(counts: Mapping[str, float]) -> dict[str, float]:
    """Return the counters under influxd's names."""
    return {
        "req": counts["tinyflux_http_requests_total"],
        "clientError": counts["tinyflux_http_client_errors_total"],
        "serverError": counts["tinyflux_http_server_errors_total"],
        "writeReq": counts["tinyflux_write_requests_total"],
        "writeReqBytes": counts["tinyflux_write_body_bytes_total"],
        "pointsWrittenOK": counts["tinyflux_write_points_total"],
        "pointsWrittenDropped": counts["tinyflux_write_points_dropped_total"],
        "queryReq": counts["tinyflux_query_requests_total"],
    }


def _statistic(
    name: str, values: Mapping[str, float], tags: Mapping[str, str]
) -> dict[str, object]:
    return {"name": name, "tags": tags, "values": values}


def _json(document: Mapping[str, object]) -> Response:
    content = orjson.dumps(document) + b"\n"
    return Response(content, headers={"content-type": "application/json"})
