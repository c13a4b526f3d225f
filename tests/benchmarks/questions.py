"""The questions of the query benchmark: the set of the Time Series Benchmark Suite, and panels.

Each is drawn anew for every request, with other hosts and another stretch of time, so no cache of
answers helps. Where MetricsQL can ask nearly the same (its windows end where InfluxQL's begin),
there is a path for VictoriaMetrics beside the text.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode

from tests.benchmarks.data import REGIONS, START_S, TSBS_FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Question(NamedTuple):
    """One request.

    Attributes:
        text: In InfluxQL.
        victoria: The path that asks VictoriaMetrics the same; "" where there is none.
    """

    text: str
    victoria: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of the data, from start to before end, in seconds."""

    start_s: int
    end_s: int

    def tsbs(self) -> str:
        """Return a condition on time as TSBS writes it."""
        return f"time >= '{_rfc3339(self.start_s)}' AND time < '{_rfc3339(self.end_s)}'"

    def panel(self) -> str:
        """Return a condition on time as Grafana writes it."""
        return f"time >= {self.start_s}000ms and time <= {self.end_s}000ms"


class Draw:
    """Draws hosts and stretches of time, the same at every run.

    Args:
        hosts: How many hosts the data have.
        hours: The length of the data.
    """

    def __init__(self, hosts: int, hours: float) -> None:
        self._hosts = hosts
        self._seconds = int(hours * 3600)
        self._rng = random.Random(3)

    def span(self, seconds: int) -> Span:
        """Return a stretch of the data, all of them if they are shorter."""
        length = min(seconds, self._seconds)
        start_s = START_S + self._rng.randrange(self._seconds - length + 1)
        return Span(start_s, start_s + length)

    def hosts(self, count: int) -> list[str]:
        """Return the names of some hosts."""
        numbers = self._rng.sample(range(self._hosts), min(count, self._hosts))
        return [f"host_{n}" for n in numbers]


def _rfc3339(time_s: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))


def _range_query(expr: str, span: Span, step_s: int) -> str:
    times = {"start": span.start_s, "end": span.end_s, "step": step_s}
    return "/api/v1/query_range?" + urlencode({"query": expr, **times})


def _metrics(fields: Sequence[str], labels: str) -> str:
    return f'{{__name__=~"cpu_({"|".join(fields)})",{labels}}}'


# --- TSBS -----------------------------------------------------------------------------------------
def _calls(function: str, fields: Sequence[str]) -> str:
    return ", ".join(f"{function}({field})" for field in fields)


def _any_of(hosts: Sequence[str]) -> str:
    return "(" + " OR ".join(f"hostname = '{name}'" for name in hosts) + ")"


def _max(n_fields: int, n_hosts: int, hours: int, step_s: int) -> Callable[[Draw], Question]:
    def question(draw: Draw) -> Question:
        fields, hosts, span = TSBS_FIELDS[:n_fields], draw.hosts(n_hosts), draw.span(hours * 3600)
        metrics = _metrics(fields, f'hostname=~"{"|".join(hosts)}"')
        expr = f"max(max_over_time({metrics}[{step_s}s]) keep_metric_names) by (__name__)"
        return Question(
            f"SELECT {_calls('max', fields)} FROM cpu WHERE {_any_of(hosts)} AND {span.tsbs()} "
            f"GROUP BY time({step_s // 60}m)",
            _range_query(expr, span, step_s),
        )

    return question


def _mean(n_fields: int) -> Callable[[Draw], Question]:
    def question(draw: Draw) -> Question:
        fields, span = TSBS_FIELDS[:n_fields], draw.span(12 * 3600)
        metrics = _metrics(fields, 'hostname!=""')
        expr = f"avg(avg_over_time({metrics}[1h]) keep_metric_names) by (__name__, hostname)"
        return Question(
            f"SELECT {_calls('mean', fields)} FROM cpu WHERE {span.tsbs()} "
            "GROUP BY time(1h), hostname",
            _range_query(expr, span, 3600),
        )

    return question


def _high_cpu(n_hosts: int) -> Callable[[Draw], Question]:
    def question(draw: Draw) -> Question:
        hosts = f"{_any_of(draw.hosts(n_hosts))} AND " if n_hosts else ""
        span = draw.span(12 * 3600)
        return Question(f"SELECT * FROM cpu WHERE {hosts}usage_user > 90.0 AND {span.tsbs()}")

    return question


def _last_windows(draw: Draw) -> Question:
    end = draw.span(60).tsbs().rpartition("AND ")[2]
    return Question(
        f"SELECT max(usage_user) FROM cpu WHERE {end} GROUP BY time(1m) ORDER BY time DESC LIMIT 5"
    )


def _last_point(_: Draw) -> Question:
    return Question('SELECT * FROM cpu GROUP BY "hostname" ORDER BY time DESC LIMIT 1')


TSBS: dict[str, Callable[[Draw], Question]] = {
    "single-groupby-1-1-1": _max(1, 1, 1, 60),
    "single-groupby-5-8-1": _max(5, 8, 1, 60),
    "cpu-max-all-1": _max(10, 1, 8, 3600),
    "cpu-max-all-8": _max(10, 8, 8, 3600),
    "double-groupby-1": _mean(1),
    "double-groupby-5": _mean(5),
    "double-groupby-all": _mean(10),
    "high-cpu-1": _high_cpu(1),
    "high-cpu-all": _high_cpu(0),
    "lastpoint": _last_point,
    "groupby-orderby-limit": _last_windows,
}


# --- Grafana --------------------------------------------------------------------------------------
def _panel(calls: str, where: str, span: Span, dimensions: str) -> str:
    return (
        f'SELECT {calls} FROM "cpu" WHERE ({where}) AND {span.panel()} '
        f"GROUP BY {dimensions} fill(null) ORDER BY time ASC"
    )


def _one_host(draw: Draw) -> Question:
    [host], span = draw.hosts(1), draw.span(3600)
    return Question(
        _panel('mean("usage_user")', f"\"hostname\" = '{host}'", span, "time(10s)"),
        _range_query(f'avg_over_time(cpu_usage_user{{hostname="{host}"}}[10s])', span, 10),
    )


def _ten_hosts(draw: Draw) -> Question:
    hosts, span = "|".join(draw.hosts(10)), draw.span(3600)
    where = f'"hostname" =~ /^({hosts})$/'
    series = f'cpu_usage_user{{hostname=~"{hosts}"}}'
    return Question(
        _panel('mean("usage_user")', where, span, 'time(1m), "hostname"'),
        _range_query(f"avg(avg_over_time({series}[1m])) by (hostname)", span, 60),
    )


def _by_region(draw: Draw) -> Question:
    span = draw.span(3600)
    calls = 'mean("usage_user"), max("usage_system")'
    mean = 'avg(avg_over_time(cpu_usage_user{arch="x64"}[1m])) by (region)'
    most = 'max(max_over_time(cpu_usage_system{arch="x64"}[1m])) by (region)'
    return Question(
        _panel(calls, "\"arch\" = 'x64'", span, 'time(1m), "region"'),
        _range_query(f"union({mean}, {most})", span, 60),
    )


def _by_datacenter(draw: Draw) -> Question:
    span = draw.span(900)
    return Question(
        _panel('mean("usage_user")', '"region" =~ /.*/', span, 'time(10s), "datacenter"'),
        _range_query("avg(avg_over_time(cpu_usage_user[10s])) by (datacenter)", span, 10),
    )


def _tag_values(_: Draw) -> Question:
    return Question(
        'SHOW TAG VALUES FROM "cpu" WITH KEY = "hostname"',
        "/api/v1/label/hostname/values?" + urlencode({"match[]": "cpu_usage_user", "start": 0}),
    )


def _tag_values_where(draw: Draw) -> Question:
    region = REGIONS[draw.span(1).start_s % len(REGIONS)]
    match = f'cpu_usage_user{{region="{region}"}}'
    return Question(
        f'SHOW TAG VALUES FROM "cpu" WITH KEY = "hostname" WHERE "region" = \'{region}\'',
        "/api/v1/label/hostname/values?" + urlencode({"match[]": match, "start": 0}),
    )


GRAFANA: dict[str, Callable[[Draw], Question]] = {
    "panel, 1 host, 10s": _one_host,
    "panel, 10 hosts, 1m": _ten_hosts,
    "panel, 2 fields by region": _by_region,
    "panel, 15 min by datacenter": _by_datacenter,
    "SHOW TAG VALUES": _tag_values,
    "SHOW TAG VALUES WHERE": _tag_values_where,
}
