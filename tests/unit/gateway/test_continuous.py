"""Continuous queries on a clock of our own: runs, restarts, late points, failures, runs by hand."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import orjson
import pytest

from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.continuous import MAX_ATTEMPTS, ContinuousQueries
from gateway.errors import Forbidden, InfluxError
from gateway.metrics import Metrics
from gateway.rights import authorize
from gateway.running import RunningQueries
from gateway.schedule import MAX_WINDOWS
from gateway.session import Session
from gateway.statements.run import execute
from gateway.users import Access, User
from grammar.parser import parse
from tinyflux.batch import BatchBuilder, series_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

S = 1_000_000_000
MINUTE = 60 * S
HOUR = 60 * MINUTE
BASE = 1_700_000_040 * S  # 2023-11-14T22:14:00Z, a whole minute
CREATE = (
    "CREATE CONTINUOUS QUERY c ON t {resample} "
    "BEGIN SELECT mean(v) INTO out FROM m GROUP BY time(1m) END"
)


class Server:
    """A catalog with its continuous queries, on a clock that stands still."""

    def __init__(self, directory: Path, now_ns: int = BASE) -> None:
        self.directory = directory
        self.now_ns = now_ns
        self._start()

    def _start(self) -> None:
        self.catalog = Catalog(self.directory, Settings())
        self.metrics = Metrics()
        self.queries = ContinuousQueries(
            self.catalog,
            Settings(),
            self.metrics,
            RunningQueries(),
            self.directory / "continuous.json",
            lambda: self.now_ns,
        )

    def restart(self) -> None:
        self.queries.save()
        self.catalog.close()
        self._start()

    def execute(self, text: str) -> list[list[object]]:
        session = Session(self.catalog, Settings(), self.now_ns, "t", metrics=self.metrics)
        rows: list[list[object]] = []
        for statement in parse(text):
            for series in execute(statement, session):
                columns = [
                    column if isinstance(column, list) else column.values.tolist()  # type: ignore[union-attr]
                    for column in series.cells()
                ]
                rows += [list(row) for row in zip(*columns, strict=True)]
        return rows

    def write(self, *points: tuple[int, float], measurement: str = "m") -> None:
        builder = BatchBuilder()
        for time_ns, value in points:
            builder.add(series_key(measurement, [("h", "a")]), time_ns, [("v", value)])
        batch = builder.build()
        self.catalog.storage("t").append_batch(batch)
        self.catalog.stored("t", "autogen", batch)

    def look(self, now_ns: int) -> int:
        """Do what is due at a time, and return how many queries were."""
        self.now_ns = now_ns
        due = self.queries.due()
        for key in due:
            self.queries.run_one(key)
        return len(due)

    def out(self) -> list[list[object]]:
        return self.execute("SELECT mean FROM out")

    def count(self, name: str) -> float:
        return self.metrics.values()[f"tinyflux_continuous_{name}_total"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "data")
    made.catalog.create_database("t")
    yield made
    made.catalog.close()


@pytest.fixture
def create(server: Server) -> Callable[..., None]:
    """Create the query `c` and look at it at BASE."""

    def created(resample: str = "") -> None:
        server.execute(CREATE.format(resample=resample))
        server.look(BASE)

    return created


def test_window_is_computed_when_it_is_complete_and_only_once(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    server.write((BASE + S, 1.0), (BASE + 2 * S, 3.0))
    assert server.look(BASE + 59 * S) == 0
    assert server.look(BASE + MINUTE) == 1
    assert server.look(BASE + MINUTE + S) == 0
    assert server.out() == [[BASE, 2.0]]
    assert server.count("points") == 1


def test_first_run_computes_the_last_complete_window(server: Server) -> None:
    server.write((BASE - 30 * S, 5.0), (BASE - 90 * S, 9.0))
    server.execute(CREATE.format(resample=""))
    assert server.look(BASE) == 1
    assert server.out() == [[BASE - MINUTE, 5.0]]


def test_months_are_computed_at_their_local_ends_and_missed_ones_made_up(server: Server) -> None:
    def berlin(month: int, day: int = 1) -> int:
        return int(datetime(2024, month, day, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()) * S

    server.execute(
        "CREATE CONTINUOUS QUERY c ON t BEGIN "
        "SELECT mean(v) INTO out FROM m GROUP BY time(1mo) tz('Europe/Berlin') END"
    )
    server.look(berlin(2, 10))
    server.write((berlin(2), 1.0), (berlin(3) - 1, 3.0), (berlin(3), 5.0), (berlin(4), 7.0))
    assert server.look(berlin(3) - 1) == 0
    assert server.look(berlin(3)) == 1
    assert server.out() == [[berlin(2), 2.0]]
    server.restart()
    server.look(berlin(5, 2))
    assert server.out() == [[berlin(2), 2.0], [berlin(3), 5.0], [berlin(4), 7.0]]


def test_missed_runs_are_made_up(server: Server, create: Callable[..., None]) -> None:
    create()
    server.write(*((BASE + i * MINUTE, float(i)) for i in range(5)))
    server.look(BASE + 5 * MINUTE + S)
    assert server.out() == [[BASE + i * MINUTE, float(i)] for i in range(5)]
    assert server.count("runs") == 2  # at BASE, without points, and one for all five


def test_restart_misses_nothing(server: Server, create: Callable[..., None]) -> None:
    create()
    server.restart()
    server.write(*((BASE + i * MINUTE, float(i)) for i in range(3)))
    server.look(BASE + 3 * MINUTE)
    assert server.out() == [[BASE + i * MINUTE, float(i)] for i in range(3)]


def test_server_that_stops_before_its_first_look_forgets_nothing(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    server.restart()
    server.restart()
    server.write((BASE, 1.0))
    server.look(BASE + 5 * MINUTE)
    assert server.out() == [[BASE, 1.0]]


def test_long_stop_is_made_up_piece_by_piece_each_remembered(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    now_ns = BASE + 3 * MAX_WINDOWS * MINUTE
    times = [BASE, now_ns - MINUTE]
    server.write(*((time_ns, 1.0) for time_ns in times))
    assert server.look(now_ns) == 1
    assert server.out() == [[BASE, 1.0]]
    server.restart()
    n_looks = 1
    while server.look(now_ns):
        n_looks += 1
    assert n_looks == 3
    assert server.out() == [[time_ns, 1.0] for time_ns in times]


def test_range_that_is_too_much_is_tried_again_with_less(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    tight = Settings(max_select_buckets=100)
    server.queries = ContinuousQueries(
        server.catalog, tight, server.metrics, RunningQueries(), None, lambda: server.now_ns
    )
    server.look(BASE)
    end_ns = BASE + 300 * MINUTE
    server.write(*((BASE + i * MINUTE, 1.0) for i in range(300)))
    for second in range(600):
        server.look(end_ns + second * S)
    assert len(server.out()) >= 300
    assert server.count("failures") > 0


@pytest.mark.parametrize("content", [b"", b"{}", b'{"last_runs": [1]}', b"\x00\x00"])
def test_damaged_file_of_last_runs_costs_no_more_than_starting_anew(
    server: Server,
    create: Callable[..., None],
    content: bytes,
    caplog: pytest.LogCaptureFixture,
) -> None:
    create()
    server.restart()
    (server.directory / "continuous.json").write_bytes(content)
    server.catalog.close()
    again = Server(server.directory)
    again.write((BASE, 1.0))
    again.look(BASE + MINUTE)
    assert again.out() == [[BASE, 1.0]]
    assert "last runs of continuous queries not read" in caplog.text
    again.catalog.close()


def test_query_created_again_with_another_text_starts_anew(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    server.execute("DROP CONTINUOUS QUERY c ON t")
    server.execute(CREATE.format(resample="RESAMPLE FOR 2m"))
    server.restart()
    server.write((BASE - 30 * S, 7.0))
    server.look(BASE + 30 * S)
    assert server.out() == [[BASE - MINUTE, 7.0]]


def test_dropped_query_runs_no_more(server: Server, create: Callable[..., None]) -> None:
    create()
    server.execute("DROP CONTINUOUS QUERY c ON t")
    assert server.look(BASE + HOUR) == 0
    server.queries.save()
    saved = orjson.loads((server.directory / "continuous.json").read_bytes())
    assert saved["last_runs"] == []


def test_clock_that_was_set_back_stops_no_query(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    server.look(BASE + HOUR)
    server.write((BASE, 1.0))
    server.look(BASE + MINUTE)
    assert server.out() == [[BASE, 1.0]]


# --- late points ----------------------------------------------------------------------------------
def test_late_points_are_computed_again_as_far_back_as_late_says(
    server: Server, create: Callable[..., None]
) -> None:
    create("RESAMPLE LATE 10m")
    times = [BASE + i * MINUTE for i in range(30)]
    server.write(*((time_ns, 1.0) for time_ns in times))
    server.look(BASE + 30 * MINUTE)
    server.write((times[2] + S, 5.0), (times[25] + S, 5.0))
    server.look(BASE + 31 * MINUTE)
    changed = [time_ns for time_ns, mean in server.out() if mean == 3.0]
    assert changed == [times[25]]


def test_late_points_are_not_looked_for_without_late(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    server.write((BASE, 1.0))
    server.look(BASE + 5 * MINUTE)
    server.write((BASE + S, 5.0))
    server.look(BASE + 6 * MINUTE)
    assert server.out() == [[BASE, 1.0]]


def test_points_that_are_not_its_own_concern_make_no_query_look_back(
    server: Server, create: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    create("RESAMPLE LATE 1h")
    ranges: list[tuple[int, int]] = []

    def run_range(_: object, start_ns: int, end_ns: int, __: object) -> int:
        ranges.append((start_ns, end_ns))
        server.write((start_ns, 1.0), measurement="out")
        return 1

    monkeypatch.setattr("gateway.continuous.run_range", run_range)
    server.look(BASE + MINUTE)
    server.write((BASE, 1.0), measurement="other")
    server.write((BASE - 2 * HOUR, 1.0))  # later than LATE
    server.look(BASE + 2 * MINUTE)
    assert ranges == [(BASE, BASE + MINUTE), (BASE + MINUTE, BASE + 2 * MINUTE)]


def test_first_run_after_a_restart_looks_back_for_what_came_meanwhile(
    server: Server, create: Callable[..., None]
) -> None:
    create("RESAMPLE LATE 10m")
    server.write((BASE - 5 * MINUTE, 4.0))  # noted, and forgotten by the restart
    server.restart()
    server.look(BASE + MINUTE)
    assert server.out() == [[BASE - 5 * MINUTE, 4.0]]


def test_late_points_go_on_from_one_query_to_the_next(
    server: Server, create: Callable[..., None]
) -> None:
    create("RESAMPLE LATE 2h")
    server.execute(
        "CREATE CONTINUOUS QUERY d ON t RESAMPLE EVERY 1m LATE 2h "
        "BEGIN SELECT max(mean) INTO hourly FROM out GROUP BY time(10m) END"
    )
    server.look(BASE)
    server.write((BASE, 1.0))
    server.look(BASE + HOUR)
    server.write((BASE + S, 5.0))
    for minute in (61, 62):
        server.look(BASE + minute * MINUTE)
    window = BASE // (10 * MINUTE) * 10 * MINUTE
    assert server.execute("SELECT max FROM hourly") == [[window, 3.0]]


# --- failures -------------------------------------------------------------------------------------
def test_failed_run_is_tried_again_and_made_up(
    server: Server, create: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    server.execute("CREATE RETENTION POLICY p ON t DURATION 0s REPLICATION 1")
    server.execute(
        "CREATE CONTINUOUS QUERY broken ON t BEGIN SELECT mean(v) INTO p.out FROM m "
        "GROUP BY time(1m) END"
    )
    create()
    server.execute("DROP RETENTION POLICY p ON t")
    server.write((BASE, 1.0), (BASE + MINUTE, 2.0))
    for second in (60, 61, 120, 121):
        server.look(BASE + second * S)
    assert server.out() == [[BASE, 1.0], [BASE + MINUTE, 2.0]]  # the other query went on
    assert server.count("failures") == 3  # at 60, 61 and 120: it waits for 1 s, 2 s, 4 s, ...
    assert caplog.text.count("retention policy not found: p") == 1
    server.execute("CREATE RETENTION POLICY p ON t DURATION 0s REPLICATION 1")
    server.look(BASE + 130 * S)
    assert server.execute("SELECT mean FROM p.out") == server.out()


def test_run_that_always_fails_is_left_out_in_the_end(
    server: Server,
    create: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    create()
    server.write((BASE, 1.0))

    def fail(*_: object) -> int:
        raise ZeroDivisionError

    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr("gateway.continuous.run_range", fail)
        now_ns = BASE + MINUTE
        while server.count("failures") < MAX_ATTEMPTS:
            server.look(now_ns)
            now_ns += 10 * S
    assert "continuous query left out a range database=t name=c" in caplog.text
    last_ns = now_ns // MINUTE * MINUTE
    server.write((last_ns, 2.0))
    server.look(last_ns + 20 * MINUTE)
    assert server.out() == [[last_ns, 2.0]]


def test_query_that_can_never_run_says_so_and_stops_no_other(
    server: Server, create: Callable[..., None]
) -> None:
    server.execute("CREATE CONTINUOUS QUERY raw ON t BEGIN SELECT v INTO o2 FROM m END")
    create()
    server.write((BASE, 1.0))
    assert server.look(BASE + MINUTE) == 1
    assert server.out() == [[BASE, 1.0]]
    errors = {s.tags["name"]: s.values["error"] for s in server.metrics.statistics()}
    assert errors == {"raw": "continuous queries must be aggregate queries", "c": ""}


def test_lag_is_how_long_the_first_missing_run_is_overdue(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    server.now_ns = BASE + 90 * S
    _, lag_s = server.metrics.gauges()["tinyflux_continuous_lag_seconds"]
    assert lag_s == 30.0
    server.look(server.now_ns)
    _, lag_s = server.metrics.gauges()["tinyflux_continuous_lag_seconds"]
    assert lag_s == 0.0


# --- by hand --------------------------------------------------------------------------------------
def test_run_by_hand_fills_every_window_of_a_range(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    server.write(*((BASE - i * MINUTE, float(i)) for i in range(1, 6)))
    start, end = BASE - 4 * MINUTE + S, BASE - 2 * MINUTE
    answer = server.execute(f"RUN CONTINUOUS QUERY c ON t FROM {start} TO {end}")
    assert answer == [[0, 2]]
    assert server.out() == [[BASE - 4 * MINUTE, 4.0], [BASE - 3 * MINUTE, 3.0]]


def test_run_by_hand_understands_times_as_where_does(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    server.write((BASE - 2 * MINUTE, 1.0))
    text = "RUN CONTINUOUS QUERY c ON t FROM '2023-11-14 22:00:00' TO now() - 1m"
    assert server.execute(text) == [[0, 1]]


def test_run_by_hand_of_years_of_minutes_is_done_in_pieces(
    server: Server, create: Callable[..., None]
) -> None:
    create()
    server.write((BASE - 900 * 24 * HOUR, 1.0), (BASE - MINUTE, 2.0))
    text = f"RUN CONTINUOUS QUERY c ON t FROM {BASE - 1000 * 24 * HOUR} TO now()"
    assert server.execute(text) == [[0, 2]]


@pytest.mark.parametrize(
    ("grants", "error"),
    [
        ({"t": Access.WRITE}, "requires READ on t"),
        ({"t": Access.READ}, "requires WRITE on t"),
        ({"t": Access.ALL}, "requires WRITE on u"),
        ({"t": Access.ALL, "u": Access.WRITE}, ""),
    ],
)
def test_run_by_hand_needs_the_rights_of_its_select(
    server: Server, grants: dict[str, Access], error: str
) -> None:
    server.catalog.create_database("u")
    server.execute(
        "CREATE CONTINUOUS QUERY c ON t BEGIN SELECT mean(v) INTO u.autogen.out FROM m "
        "GROUP BY time(1m) END"
    )
    user = User("anna", "", grants=grants)
    session = Session(server.catalog, Settings(), BASE, "t", user=user)
    statements = parse("RUN CONTINUOUS QUERY c ON t FROM 0 TO 1")
    refusal = ""
    try:
        authorize(statements, user, "t")
        execute(statements[0], session)
    except Forbidden as exc:
        refusal = exc.text
    assert refusal.endswith(error)
    assert bool(refusal) == bool(error)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("RUN CONTINUOUS QUERY x ON t FROM 0 TO 1", "continuous query not found: x"),
        ("RUN CONTINUOUS QUERY c ON x FROM 0 TO 1", "database not found: x"),
        ("RUN CONTINUOUS QUERY c ON t FROM 'x' TO 1", "invalid operation: time and "),
    ],
)
def test_run_by_hand_that_cannot_be_is_refused(
    server: Server, create: Callable[..., None], text: str, error: str
) -> None:
    create()
    with pytest.raises(InfluxError) as caught:
        server.execute(text)
    assert caught.value.text.startswith(error)


def test_query_may_keep_the_names_of_the_fields(server: Server) -> None:
    server.execute(
        "CREATE CONTINUOUS QUERY k ON t BEGIN SELECT mean(*) AS * INTO kept FROM m "
        "GROUP BY time(1m), * END"
    )
    server.look(BASE)
    server.write((BASE, 1.0), (BASE + S, 2.0))
    server.look(BASE + MINUTE)
    assert server.execute("SELECT v, h FROM kept") == [[BASE, 1.5, "a"]]
