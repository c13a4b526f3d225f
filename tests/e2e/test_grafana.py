"""The provisioned dashboard against a fresh server: every panel's query has an answer with data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Server

DASHBOARD = Path(__file__).parents[2] / "grafana/dashboards/telegraf-system.json"
START_S = 1_700_000_000
LINES = (
    "cpu,cpu=cpu-total,host=web usage_user={n},usage_system=1,usage_iowait=0.5,usage_steal=0,"
    "usage_idle=90",
    "cpu,cpu=cpu0,host=web usage_user={n},usage_system=1,usage_iowait=0.5,usage_steal=0,"
    "usage_idle=80",
    "system,host=web load1=0.5,load5=0.4,load15=0.3,n_users=2i,n_cpus=4i",
    'system,host=web uptime={n}i,uptime_format="1 day,  2:03"',
    "mem,host=web used_percent=40,used=4i,cached=3i,buffered=2i,free=1i",
    "disk,device=sda1,fstype=ext4,host=web,mode=rw,path=/ used_percent=70,free={n}i",
    "diskio,host=web,name=sda read_bytes={n}i,write_bytes={n}i",
    "net,host=web,interface=eth0 bytes_recv={n}i,bytes_sent={n}i,err_in={n}i,err_out={n}i,"
    "drop_in={n}i,drop_out={n}i",
    "swap,host=web used_percent=1",
    "processes,host=web running=1i,sleeping=100i,blocked=0i,zombies=0i,total=101i",
)


def queries() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["query"] for panel in panels for target in panel["targets"]]


def as_grafana_sends(query: str) -> str:
    bounds = f"time >= {START_S}000ms and time <= {START_S + 60}000ms"
    return (
        query.replace("$timeFilter", bounds)
        .replace("$__interval", "10s")
        .replace("/^$host$/", "/^(web|other)$/")
    )


@pytest.mark.e2e
def test_every_panel_of_the_dashboard_shows_data(server: Server) -> None:
    body = "\n".join(
        f"{line.format(n=step * 100)} {START_S + step * 10}" for step in range(6) for line in LINES
    )
    response = server.client.post("/write?db=t&precision=s", content=body.encode())
    assert response.status_code == 204, response.text
    assert len(queries()) > 30
    for query in queries():
        text = as_grafana_sends(query)
        response = server.client.post("/query?db=t&epoch=ms", data={"q": text})
        results = response.json()["results"]
        values = [row[1:] for series in results[0].get("series", []) for row in series["values"]]
        assert any(value is not None for row in values for value in row), text


@pytest.mark.e2e
def test_host_variable_of_the_dashboard_lists_the_hosts(server: Server) -> None:
    server.client.post("/write?db=t", content=b"system,host=web load1=1\nsystem,host=db load1=1")
    variables = json.loads(DASHBOARD.read_text())["templating"]["list"]
    [query] = [v["query"] for v in variables if v["name"] == "host"]
    results = server.client.get("/query", params={"db": "t", "epoch": "ms", "q": query}).json()
    assert results["results"][0]["series"][0]["values"] == [["host", "db"], ["host", "web"]]
