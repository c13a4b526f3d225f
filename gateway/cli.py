"""The command line: `tinyflux-gateway serve` runs the server until it is told to stop.

`check`, `compact` and `stats` are for a data directory at rest (`gateway.tools`). Every setting of
`gateway.config` is a flag of `serve`. stdout holds one banner, printed when connections are
taken; everything else goes to stderr. SIGINT and SIGTERM stop cleanly: running requests finish,
stores are closed, exit code 0.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import uvicorn

from gateway import tools
from gateway.app import create_app
from gateway.config import ConfigError, Settings, load, setting_fields
from gateway.http import INFLUXDB_VERSION
from gateway.protocol import HttpProtocol
from tinyflux.columnar.memory import default_bytes
from tinyflux.errors import CorruptionError, TinyFluxError
from tinyflux.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gateway.app import Edge
    from tinyflux.columnar.summary import Summary

_SWITCH_S: Final = 0.001  # after how long a thread that computes lets another one run
_M_TRIM_THRESHOLD: Final = -1  # glibc malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tinyflux-gateway")
def main() -> None:
    """An InfluxDB 1.x compatible time series server on the TinyFlux engine."""


_FLAG_TYPES: Final = {
    Path: click.Path(path_type=Path),
    bool: click.BOOL,
    int: click.INT,
    float: click.FLOAT,
    str: click.STRING,
}


def _with_setting_flags(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting; an option that is not given is None."""
    for setting in reversed(setting_fields()):
        kind = click.Choice(setting.choices) if setting.choices else _FLAG_TYPES[setting.type]
        text = f"{setting.doc} [default: {setting.default}; {setting.variable}]"
        option = click.option
        if setting.type is bool:  # the flag alone means true
            option = partial(click.option, is_flag=False, flag_value=True)
        command = option(setting.flag, setting.name, type=kind, default=None, help=text)(command)
    return command


@main.command()
@click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="TINYFLUX_CONFIG",
    help="A TOML file of settings; environment and flags go before it.",
)
@_with_setting_flags
def serve(config: Path | None, **flags: object) -> None:
    """Run the server in the foreground."""
    try:
        settings = load(config, flags=flags)
        logging.basicConfig(
            level=settings.log_level.upper(),
            format="%(asctime)s %(levelname)s %(name)s %(message)s",
            stream=sys.stderr,
        )
        sys.setswitchinterval(_SWITCH_S)  # a query must change threads a few times
        _tune_malloc(settings.memory_bytes or default_bytes())
        _allow_open_files()
        listener = _listen(settings)
        app = create_app(settings)
    except (ConfigError, TinyFluxError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc
    with listener:
        _run(app, listener, settings)


_DATA: Final = click.Path(exists=True, file_okay=False, path_type=Path)


@contextmanager
def _failing_in_words() -> Iterator[None]:
    try:
        yield
    except (TinyFluxError, OSError) as exc:
        raise click.ClickException(str(exc)) from exc


@main.command()
@click.argument("data", type=_DATA)
@click.option("--repair", is_flag=True, help="Then make good what can be made good.")
def check(data: Path, repair: bool) -> None:
    """Verify every checksum and invariant of the data directory DATA.

    Prints a line for each finding: `error` is damage, `note` the trace of a crash that the next
    start removes. Exit code 1 when there are errors, gaps of earlier damage among them; who knows
    of a gap removes its file in quarantine/. Refuses while a server has the directory.

    With --repair, stores whose manifest or series file is damaged are rebuilt from their segments,
    and damaged segments set aside, as the server does. The exit code is that of a second check.
    """
    logging.disable()  # what would be logged is printed
    with _failing_in_words(), tools.owned(data):
        n_errors = _print_findings(data)
        if repair and n_errors:
            for done in tools.repair(data):
                click.echo(f"done  {done}")
            n_errors = _print_findings(data)
    sys.exit(bool(n_errors))


def _print_findings(data: Path) -> int:
    """Return how many errors there were."""
    n_errors = 0
    for finding in tools.check(data):
        n_errors += finding.is_error
        click.echo(f"{'error' if finding.is_error else 'note '} {finding.path}: {finding.text}")
    n_stores = len(tools.stores(data))
    stores, errors = "store" + "s" * (n_stores != 1), "error" + "s" * (n_errors != 1)
    click.echo(f"{n_stores} {stores} checked, {n_errors or 'no'} {errors}")
    return n_errors


@main.command()
@click.argument("data", type=_DATA)
def compact(data: Path) -> None:
    """Compact all stores of the data directory DATA fully.

    Writes the logs to segments, and merges these into as few as can be; a server does less, because
    it has to be worth the work. Refuses while a server has the directory.
    """
    with _failing_in_words(), tools.owned(data):
        for done in tools.compact(data):
            click.echo(
                f"{done.path.relative_to(data)}: segments {done.segments[0]} -> {done.segments[1]},"
                f" bytes {done.size_bytes[0]} -> {done.size_bytes[1]}"
            )


@main.command()
@click.argument("data", type=_DATA)
def stats(data: Path) -> None:
    """Count what is in each store of the data directory DATA.

    Points and values in segments and in the log (which a server has in memory as well), series,
    bytes on disk and per value, damaged segments and the points they took along. Reads only, and
    works beside a running server.
    """
    logging.disable()
    rows: list[tuple[str, ...]] = [_STATS_COLUMNS]
    n_failed = 0
    with _failing_in_words():
        for path, found in tools.stats(data):
            name = str(path.relative_to(data))
            if isinstance(found, CorruptionError):
                n_failed += 1
                click.echo(f"{name}: {found}", err=True)
                continue
            rows.append((name, *_stats_row(found)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        click.echo("  ".join((first.ljust(widths[0]), *cells)))
    sys.exit(bool(n_failed))


_STATS_COLUMNS: Final = (
    "store", "points", "values", "series", "segments", "bytes", "bytes/value",
    "log points", "log values", "log bytes", "damaged", "missing",
)  # fmt: skip


def _stats_row(found: Summary) -> list[str]:
    per_value = f"{found.segment_bytes / found.values:.2f}" if found.values else "-"
    before = found.points, found.values, found.series, found.segments, found.segment_bytes
    after = (
        found.log_points,
        found.log_values,
        found.log_bytes,
        found.gaps,
        found.points_missing,
    )
    return [*map(str, before), per_value, *map(str, after)]


def _listen(settings: Settings) -> socket.socket:
    """Return a bound socket; it listens once the application is ready.

    Raises:
        OSError: The address cannot be had; the text says which.
    """
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as exc:
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: {exc}") from exc
    return listener


def _run(app: Edge, listener: socket.socket, settings: Settings) -> None:
    server = _Server(
        uvicorn.Config(
            app,
            loop="auto",
            http=HttpProtocol,
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            proxy_headers=False,  # nothing here asks for the address of a client
            backlog=settings.backlog,
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=settings.keep_alive_s,
            timeout_graceful_shutdown=settings.shutdown_timeout_s,
        ),
        settings.data,
    )
    server.run([listener])
    if not server.started:
        sys.exit(1)


class _Server(uvicorn.Server):
    """Says where it listens once it does, and stops on a signal with exit code 0."""

    def __init__(self, config: uvicorn.Config, data: Path) -> None:
        super().__init__(config)
        self._data = data

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started or not sockets:
            return
        # The start made most objects that ever live long: the collector need not walk them again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        host, port = sockets[0].getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        click.echo(
            f"tinyflux-gateway {__version__} (answers as InfluxDB {INFLUXDB_VERSION}) "
            f"listening on {address}, data in {self._data.resolve()}"
        )

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again after the shutdown, and the process dies of it.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _allow_open_files() -> None:
    """Raise the limit of open files as far as the system lets us: each open store takes two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS: "unlimited" is more than it lets us have
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tune_malloc(memory_bytes: int) -> None:
    """Have the allocator keep what it soon needs again, a small part of the memory, and no more.

    Without it glibc returns every larger buffer to the kernel at once: reading bodies was 4 times
    slower. pyarrow takes its memory from the same place, so that what one frees the other can have.
    Two arenas for all threads: each keeps what it freed, and here only one thread runs at a time.

    Source: spec performance.md section 4; other C libraries have no mallopt, or ignore it.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # read when it is imported
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_THRESHOLD, min(max(memory_bytes >> 6, 4 << 20), 64 << 20))
    mallopt(_M_TRIM_THRESHOLD, min(max(memory_bytes >> 4, 16 << 20), 256 << 20))
    mallopt(_M_ARENA_MAX, 2)
