"""Settings: what can be configured, in one frozen dataclass, and where the values come from.

    defaults  <  TOML file  <  environment TINYFLUX_<NAME>  <  command line --<name>

Every setting is a field of `Settings` with its meaning in the field's metadata; the command line,
the environment and the documentation are made from these fields, so a setting cannot exist in one
and miss in another.
"""

# ruff: noqa: RUF009 - `_setting` is dataclasses.field with a fixed metadata shape
from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

ENVIRONMENT_PREFIX: Final = "TINYFLUX_"
SYNC_MODES: Final = ("always", "group", "interval", "off")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
UDP_PRECISIONS: Final = ("ns", "us", "ms", "s", "m", "h")
REDACTED: Final = "[REDACTED]"

Value: TypeAlias = str | int | float | bool | Path
_T = TypeVar("_T", bound=Value)


class ConfigError(ValueError):
    """A setting that does not exist or has a value it cannot have; the text says which and why."""


def _setting(
    default: _T,
    doc: str,
    *,
    minimum: float = 0,
    choices: tuple[str, ...] = (),
    is_secret: bool = False,
) -> _T:
    metadata = {"doc": doc, "minimum": minimum, "choices": choices, "is_secret": is_secret}
    value: _T = field(default=default, metadata=metadata, repr=not is_secret)
    return value


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of a server. A limit of 0 is no limit where its text says so."""

    data: Path = _setting(Path("data"), "Directory of the databases; created when missing.")
    host: str = _setting("127.0.0.1", "Address to listen on.")
    port: int = _setting(8086, "Port to listen on; 0 takes a free one.")
    log_level: str = _setting("warning", "How much to log to stderr.", choices=LOG_LEVELS)

    sync: str = _setting(
        "group",
        "When a write is acknowledged: always (its own fsync), group (one fsync for all that "
        "wait), interval (fsync in the background) or off.",
        choices=SYNC_MODES,
    )
    memtable_bytes: int = _setting(
        64 << 20,
        "Bytes of points each store holds in memory before it writes a segment.",
        minimum=1,
    )
    memory_bytes: int = _setting(
        0,
        "How much memory the process is to take: points in memory, caches and what queries work "
        "with are bounded for all stores together; 0 is a quarter of the machine's or container's, "
        "at most 1 GB.",
    )
    retention_interval_s: float = _setting(
        1800.0, "Seconds between two looks for expired shards and trash; 0 never looks."
    )
    trash_hours: float = _setting(
        24.0,
        "Hours that dropped databases, retention policies and measurements are kept for UNDROP; 0 "
        "deletes them at once.",
    )
    continuous_interval_s: float = _setting(
        1.0, "Seconds between two looks for continuous queries that are due; 0 runs none."
    )
    subscription_buffer_points: int = _setting(
        200_000, "Points that wait to be sent on by a subscription; more are dropped.", minimum=1
    )

    auth_enabled: bool = _setting(
        False, "Ask for a user's credentials, and check the rights of each statement and write."
    )
    jwt_secret: str = _setting(
        "",
        "Shared secret of JSON web tokens (HS256); empty takes no tokens. Better in the file or "
        "the environment than on the command line, which others can see.",
        is_secret=True,
    )
    metrics_auth_enabled: bool = _setting(
        False, "With auth_enabled: ask for credentials at /metrics and /debug/vars too."
    )
    failed_login_delay_s: float = _setting(0.5, "Seconds after which a refused login is answered.")

    max_connections: int = _setting(1000, "Open connections at once; one more gets 503.", minimum=1)
    backlog: int = _setting(1024, "Connections the kernel may hold ready.", minimum=1)
    keep_alive_s: int = _setting(
        120,
        "Seconds a connection stays open until the head of its next request is there.",
        minimum=1,
    )
    shutdown_timeout_s: int = _setting(
        8,  # docker kills after 10
        "Seconds that running requests have to finish at a stop.",
        minimum=1,
    )

    body_timeout_s: float = _setting(
        60.0,
        "Seconds the body of a request may take to come in, and each megabyte of a streamed answer "
        "to be taken; 0 is no limit.",
    )
    max_body_bytes: int = _setting(25_000_000, "Largest body as sent; beyond is 413.", minimum=1)
    max_inflated_bytes: int = _setting(
        100_000_000, "Largest body after gzip or deflate is undone; beyond is 413.", minimum=1
    )
    max_inflate_ratio: int = _setting(
        250, "How many times its sent size a body over 1 MB may inflate to.", minimum=1
    )
    max_queued_writes: int = _setting(
        1000, "Writes waiting for the writer thread; one more gets 503.", minimum=1
    )
    max_queued_write_bytes: int = _setting(
        128_000_000,
        "Bytes of bodies read or waiting at once; more gets 503. Less when memory_bytes is small.",
        minimum=1,
    )
    max_series_per_database: int = _setting(
        1_000_000,
        "Series that the retention policies of a database may have together; points of "
        "more are refused. 0 is no limit.",
    )
    max_values_per_tag: int = _setting(
        100_000,
        "Values that a tag key of a measurement may have; points with more are refused. 0 "
        "is no limit.",
    )

    v2_creates_databases: bool = _setting(
        True,
        "Create the missing database of a write to /api/v2/write; Telegraf's v2 output drops its "
        "points when it is told there is none.",
    )
    udp_host: str = _setting("127.0.0.1", "Address to take line protocol on by UDP.")
    udp_port: int = _setting(
        -1, "Port for UDP; -1 takes none, 0 takes a free one. InfluxDB's is 8089.", minimum=-1
    )
    udp_database: str = _setting("udp", "Database of the points that come by UDP.")
    udp_precision: str = _setting(
        "ns", "Unit of the timestamps that come by UDP.", choices=UDP_PRECISIONS
    )
    udp_batch_points: int = _setting(
        5000, "Points that come by UDP until they are stored together.", minimum=1
    )
    udp_batch_ms: int = _setting(
        1000, "Milliseconds after which fewer points that came by UDP are stored.", minimum=1
    )
    udp_buffer_bytes: int = _setting(
        32 << 20, "Bytes of datagrams waiting to be stored; more are dropped.", minimum=65_536
    )

    query_threads: int = _setting(4, "Queries that run at the same time.", minimum=1)
    max_queued_queries: int = _setting(
        200, "Queries waiting for a thread; one more gets 503.", minimum=1
    )
    query_timeout_s: float = _setting(
        120.0, "Seconds a request's statements may take; 0 is no limit."
    )
    max_select_points: int = _setting(
        10_000_000, "Points that one SELECT may read without aggregating them; 0 is no limit."
    )
    max_select_series: int = _setting(0, "Series that one SELECT may read; 0 is no limit.")
    max_select_buckets: int = _setting(
        10_000_000, "Windows (groups times windows) that one SELECT may answer; 0 is no limit."
    )
    max_query_bytes: int = _setting(
        1 << 30,
        "Estimated bytes of the rows of one SELECT; more are refused before they are made, as are "
        "more than memory_bytes has room for. 0 is no limit of its own.",
    )
    max_row_limit: int = _setting(
        0, "Rows of an unchunked answer before it is cut and marked partial; 0 is no limit."
    )

    def __post_init__(self) -> None:
        for name, setting in _fields():
            _check(name, getattr(self, name), setting.minimum, setting.choices)


@dataclass(frozen=True, slots=True)
class SettingField:
    """How one setting is described: for the command line, the environment and the README.

    Attributes:
        name: The field of `Settings`, and the key in the TOML file.
        type: Path, str, int, float or bool.
        default: Its default.
        doc: What it means.
        minimum: The smallest number allowed.
        choices: The words allowed; () when not a choice.
        is_secret: Its value is shown nowhere.
    """

    name: str
    type: type[Value]
    default: Value
    doc: str
    minimum: float
    choices: tuple[str, ...]
    is_secret: bool

    @property
    def flag(self) -> str:
        """The command line option."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()


def setting_fields() -> list[SettingField]:
    """Return the description of every setting, in the order they are declared."""
    return [description for _, description in _fields()]


def public_arguments(arguments: Sequence[str]) -> list[str]:
    """Return a command line without the values of secret settings."""
    secret = [setting.flag for setting in setting_fields() if setting.is_secret]
    shown: list[str] = []
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        if shown and shown[-1] in secret:
            shown.append(REDACTED)
        elif equals and name in secret:
            shown.append(f"{name}={REDACTED}")
        else:
            shown.append(argument)
    return shown


def load(
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Settings:
    """Return the settings, each from the last place that gives it.

    Args:
        file: A TOML file whose top-level keys are the names of settings; None reads none.
        environment: Variables, os.environ when None. Those that start with TINYFLUX_ must name a
            setting, except TINYFLUX_CONFIG, which names the file.
        flags: Values from the command line; None values were not given.

    Raises:
        ConfigError: An unknown setting, a value of another type, or out of its range; a file that
            is not TOML.
        OSError: The file cannot be read.
    """
    variables = os.environ if environment is None else environment
    given: dict[str, object] = {}
    if file is not None:
        given |= _read_toml(file)
    for variable, text in variables.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX).lower()
        if variable.startswith(ENVIRONMENT_PREFIX) and name != "config":
            given[name] = text
    given |= {name: value for name, value in (flags or {}).items() if value is not None}
    known = dict(_fields())
    unknown = sorted(given.keys() - known.keys())
    if unknown:
        raise ConfigError(f"unknown setting: {unknown[0]!r}")
    values = {name: _converted(known[name], value) for name, value in given.items()}
    return Settings(**values)  # type: ignore[arg-type]  # each value was converted to its field's type


def _fields() -> Iterator[tuple[str, SettingField]]:
    for item in fields(Settings):
        default = item.default
        assert isinstance(default, str | int | float | Path)
        kind: type[Value] = Path if isinstance(default, Path) else type(default)
        meta = item.metadata
        yield (
            item.name,
            SettingField(
                item.name,
                kind,
                default,
                meta["doc"],
                meta["minimum"],
                tuple(meta["choices"]),
                meta["is_secret"],
            ),
        )


def _read_toml(file: Path) -> dict[str, object]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file}: {exc}") from exc


def _converted(setting: SettingField, value: object) -> Value:
    kind = setting.type
    try:
        if kind is bool and isinstance(value, str):
            return {"true": True, "false": False, "1": True, "0": False}[value.lower()]
        if kind is not bool and isinstance(value, bool):
            raise TypeError
        if kind is int and isinstance(value, float):
            raise TypeError
        if not isinstance(value, str | int | float | Path):
            raise TypeError
        return kind(value)  # type: ignore[arg-type]  # every kind takes text, the numbers take numbers
    except (ValueError, TypeError, KeyError):
        shown = REDACTED if setting.is_secret else f"{value!r:.80}"
        raise ConfigError(f"{setting.name}: not {_KINDS[kind]}: {shown}") from None


_KINDS: Final[dict[type[Value], str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}


def _check(name: str, value: object, minimum: float, choices: tuple[str, ...]) -> None:
    if isinstance(value, int | float) and not minimum <= value < float("inf"):
        raise ConfigError(f"{name}: must be {minimum:g} or more: {value!r}")
    if choices and value not in choices:
        raise ConfigError(f"{name}: must be one of {', '.join(choices)}: {value!r:.80}")
    if name in {"port", "udp_port"} and isinstance(value, int) and value > 65535:
        raise ConfigError(f"{name}: must be 65535 or less: {value}")
