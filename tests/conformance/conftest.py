"""Servers for the conformance cases: ours or the one at INFLUX_URL; and the real influxd."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conformance.replay import Client
from tests.gateway_process import running_gateway
from tests.oracle import influxd_path, running_influxd

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the URL of the server under test: INFLUX_URL, or one of ours started for this run."""
    if url := os.environ.get("INFLUX_URL"):
        yield url
        return
    with running_gateway(tmp_path_factory.mktemp("server")) as (url, _):
        yield url


@pytest.fixture(scope="session")
def client(server: str) -> Iterator[Client]:
    """Give a connection to the server under test."""
    with Client(server) as client:
        yield client


@pytest.fixture(scope="session")
def influxd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Give a connection to a real influxd; skip where it is not installed."""
    if influxd_path() is None:
        pytest.skip("influxd is not installed (Debian package influxdb)")
    with running_influxd(tmp_path_factory.mktemp("influxd")) as (url, _), Client(url) as client:
        yield client
