"""What DROP took comes back: databases, retention policies, measurements; and what does not."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from gateway import catalogfile, retention, trash
from gateway.catalog import Catalog
from gateway.config import Settings
from gateway.errors import InfluxError
from gateway.policies import HOUR_NS, Database
from gateway.session import Session
from gateway.statements.run import execute
from gateway.trash import Kind, Trashed
from grammar.parser import parse
from tinyflux.batch import MAX_TIME_NS, BatchBuilder, series_key
from tinyflux.columnar.base import FieldColumn, ScanRequest
from tinyflux.columnar.files import OsFiles
from tinyflux.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gateway.results import Series

NOW_NS = 1_700_000_000 * 10**9


def _columns(table: Series) -> list[list[object]]:
    return [
        column.values.tolist() if isinstance(column, FieldColumn) else list(column)
        for column in table.data
    ]


class Server:
    """A catalog on disk and what one may do to it."""

    def __init__(self, data: Path, settings: Settings) -> None:
        self.data = data
        self.settings = settings
        self.catalog = Catalog(data, settings)

    def reopen(self) -> None:
        self.catalog.close()
        self.catalog = Catalog(self.data, self.settings)

    def run(self, text: str, db: str = "t") -> list[list[object]]:
        """Run statements and return the rows of the last one's tables."""
        series: list[Series] = []
        for statement in parse(text):
            series = execute(statement, Session(self.catalog, self.settings, NOW_NS, db))
        return [list(row) for table in series for row in zip(*_columns(table), strict=True)]

    def refusal(self, text: str, db: str = "t") -> str:
        with pytest.raises(InfluxError) as caught:
            self.run(text, db)
        return caught.value.text

    def write(
        self, db: str = "t", policy: str = "", name: str = "cpu", value: object = 1.0
    ) -> None:
        builder = BatchBuilder()
        builder.add(series_key(name, [("host", "a")]), 7, [("v", value)])  # type: ignore[list-item]
        storage = self.catalog.storage(db, policy)
        assert storage.append_batch(builder.build()).stored == 1

    def values(self, db: str = "t", policy: str = "", name: str = "cpu") -> list[object]:
        frames = self.catalog.storage(db, policy).scan(ScanRequest(name))
        return [value for frame in frames for value in frame.columns["v"].values.tolist()]

    def trash(self) -> list[tuple[str, str, str]]:
        return [(e.kind.value, e.name, e.database) for e in self.catalog.trash]

    def files(self) -> int:
        root = self.data / ".trash"
        return len(list(root.iterdir())) if root.exists() else 0


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def server(**settings: float) -> Server:
        made.append(Server(tmp_path / "data", Settings(**settings)))  # type: ignore[arg-type]
        return made[-1]

    yield server
    for each in made:
        each.catalog.close()


@pytest.fixture
def server(make: Callable[..., Server]) -> Server:
    opened = make()
    opened.run("CREATE DATABASE t")
    return opened


# --- databases ------------------------------------------------------------------------------------
@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("reopen", [False, True])
def test_dropped_database_comes_back_with_all_it_had(
    server: Server, reopen: bool, flush: bool
) -> None:
    server.run("CREATE RETENTION POLICY p ON t DURATION 2h REPLICATION 1 DEFAULT")
    server.run(
        "CREATE USER u WITH PASSWORD 'x'; GRANT READ ON t TO u; CREATE USER w WITH PASSWORD 'x'"
    )
    server.run(
        "CREATE CONTINUOUS QUERY c ON t BEGIN SELECT mean(v) INTO o FROM m GROUP BY time(1m) END;"
        "CREATE SUBSCRIPTION s ON t.p DESTINATIONS ALL 'udp://127.0.0.1:9'"
    )
    server.write(policy="autogen")
    if flush:
        server.catalog.storage("t", "autogen").flush()
    server.write(policy="p", value=2.0)
    before, users = server.catalog.database("t"), dict(server.catalog.users)
    server.run("DROP DATABASE t")
    assert not (server.data / "t").exists()
    assert (list(server.catalog.databases), server.files()) == ([], 1)
    assert server.catalog.users["u"].grants == {}
    if reopen:
        server.reopen()
    assert server.trash() == [("database", "t", "t")]
    server.run("UNDROP DATABASE t")
    for _ in range(2):
        assert server.catalog.database("t") == before
        assert server.catalog.users == users
        assert server.values(policy="autogen") == [1.0]
        assert server.values(policy="p") == [2.0]
        assert (server.trash(), server.files()) == ([], 0)
        server.reopen()


def test_a_database_made_after_the_drop_is_empty_and_the_old_one_comes_back_beside_it(
    server: Server,
) -> None:
    server.run(
        "CREATE CONTINUOUS QUERY c ON t BEGIN SELECT mean(v) INTO o FROM m GROUP BY time(1m) END"
    )
    server.write()
    server.run("DROP DATABASE t; CREATE DATABASE t")
    assert server.values() == []
    server.write(value="text")
    text = "database already exists: t; bring it back AS another name"
    assert server.refusal("UNDROP DATABASE t") == text
    server.run('UNDROP DATABASE t AS "old.t"')
    server.reopen()
    assert (server.values(), server.values("old.t")) == (["text"], [1.0])
    assert server.catalog.database("old.t").continuous_queries == ()
    assert server.refusal("UNDROP DATABASE t AS x") == "database not in the trash: t"
    assert server.refusal("UNDROP DATABASE nothing") == "database not in the trash: nothing"


def test_what_was_dropped_last_comes_back_first(server: Server) -> None:
    for value in (1.0, 2.0):
        server.run("CREATE DATABASE t")
        server.write(value=value)
        server.run("DROP DATABASE t")
    server.run("UNDROP DATABASE t AS second; UNDROP DATABASE t")
    assert (server.values("second"), server.values("t")) == ([2.0], [1.0])


@pytest.mark.parametrize("name", ["a/b", ".."])
def test_a_name_that_no_database_may_have_is_refused_and_nothing_lost(
    server: Server, name: str
) -> None:
    server.write()
    server.run("DROP DATABASE t")
    assert server.refusal(f'UNDROP DATABASE t AS "{name}"') == "invalid name"
    server.run("UNDROP DATABASE t")
    assert server.values() == [1.0]


def test_a_database_that_nobody_wrote_to_comes_back_too(server: Server) -> None:
    server.run("DROP DATABASE t; UNDROP DATABASE t")
    server.write()
    assert server.values() == [1.0]


def test_rights_are_not_given_to_a_later_user_of_the_same_name(server: Server) -> None:
    server.run("CREATE USER u WITH PASSWORD 'x'; GRANT ALL ON t TO u; DROP DATABASE t")
    server.run("DROP USER u; CREATE USER u WITH PASSWORD 'y'; UNDROP DATABASE t")
    assert server.catalog.users["u"].grants == {}


# --- retention policies ---------------------------------------------------------------------------
@pytest.mark.parametrize("reopen", [False, True])
def test_dropped_policy_comes_back_as_the_default_it_was(server: Server, reopen: bool) -> None:
    server.run("CREATE SUBSCRIPTION s ON t.autogen DESTINATIONS ALL 'udp://127.0.0.1:9'")
    server.write()
    before = server.catalog.database("t")
    server.run("DROP RETENTION POLICY autogen ON t")
    if reopen:
        server.reopen()
    assert server.trash() == [("retention policy", "autogen", "t")]
    server.run("UNDROP RETENTION POLICY autogen ON t")
    assert server.catalog.database("t") == before
    assert server.values() == [1.0]


def test_dropped_policy_comes_back_under_another_name_beside_a_new_one(server: Server) -> None:
    server.write()
    server.run("DROP RETENTION POLICY autogen ON t")
    server.run("CREATE RETENTION POLICY autogen ON t DURATION 2h REPLICATION 1")
    text = "retention policy already exists: autogen; bring it back AS another name"
    assert server.refusal("UNDROP RETENTION POLICY autogen ON t") == text
    server.run("UNDROP RETENTION POLICY autogen ON t AS old")
    server.reopen()
    database = server.catalog.database("t")
    assert [policy.name for policy in database.policies] == ["autogen", "old"]
    assert database.default_policy == "autogen"
    assert (server.values(), server.values(policy="old")) == ([], [1.0])


def test_dropped_default_policy_stays_the_default_under_another_name(server: Server) -> None:
    server.write()
    server.run("DROP RETENTION POLICY autogen ON t; UNDROP RETENTION POLICY autogen ON t AS old")
    assert server.catalog.database("t").default_policy == "old"
    assert server.values() == [1.0]


def test_policy_of_a_database_that_is_gone_is_refused(server: Server) -> None:
    server.write()
    server.run("DROP RETENTION POLICY autogen ON t; DROP DATABASE t")
    assert server.refusal("UNDROP RETENTION POLICY autogen ON t") == "database not found: t"
    server.run("UNDROP DATABASE t AS u")
    assert (
        server.refusal("UNDROP RETENTION POLICY p ON u") == "retention policy not in the trash: p"
    )
    server.run("UNDROP RETENTION POLICY autogen ON u")  # what was dropped from it went along
    assert server.values("u") == [1.0]


# --- measurements ---------------------------------------------------------------------------------
@pytest.mark.parametrize("flush", [False, True])
@pytest.mark.parametrize("reopen", [False, True])
def test_dropped_measurement_comes_back_in_all_policies(
    server: Server, reopen: bool, flush: bool
) -> None:
    server.run("CREATE RETENTION POLICY p ON t DURATION INF REPLICATION 1")
    for policy, value in (("autogen", 1.0), ("p", 2)):
        server.write(policy=policy, value=value)
        if flush:
            server.catalog.storage("t", policy).flush()
    server.write(name="kept")
    server.run("DROP MEASUREMENT cpu")
    assert server.run("SHOW MEASUREMENTS") == [["kept"]]
    assert server.run("SHOW SERIES") == [["kept,host=a"]]
    assert server.run("SHOW SERIES CARDINALITY") == [[1]]
    assert server.run("SHOW FIELD KEYS FROM cpu") == server.run("SELECT * FROM cpu, /c.u/") == []
    if reopen:
        server.reopen()
    [[kind, name, database, _, _, size]] = server.run("SHOW TRASH")
    assert (kind, name, database, bool(size)) == ("measurement", "cpu", "t", flush)
    server.run("UNDROP MEASUREMENT cpu")
    for _ in range(2):
        assert (server.values(), server.values(policy="p")) == ([1.0], [2])
        assert server.trash() == []
        server.reopen()


def test_measurement_written_after_the_drop_may_have_other_types(server: Server) -> None:
    server.write()
    server.run("DROP MEASUREMENT cpu")
    server.write(value="text")
    text = "measurement already exists: cpu; bring it back AS another name"
    assert server.refusal("UNDROP MEASUREMENT cpu") == text
    server.run("UNDROP MEASUREMENT cpu AS old")
    server.reopen()
    assert (server.values(), server.values(name="old")) == (["text"], [1.0])


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("UNDROP MEASUREMENT nothing", "measurement not in the trash: nothing"),
        ("ALTER MEASUREMENT nothing RENAME TO b", "measurement not found: nothing"),
        ('ALTER MEASUREMENT kept RENAME TO ""', "invalid name"),
        (f'ALTER MEASUREMENT kept RENAME TO "{"x" * 70_000}"', "invalid name"),
        ("ALTER MEASUREMENT kept RENAME TO other", "measurement already exists: other"),
        ("ALTER MEASUREMENT kept RENAME TO kept", "measurement already exists: kept"),
    ],
)
def test_what_cannot_be_is_refused(server: Server, text: str, error: str) -> None:
    for name in ("cpu", "kept", "other"):
        server.write(name=name)
    server.run("DROP MEASUREMENT cpu")
    assert server.refusal(text) == error
    assert server.refusal(text, db="nodb") in {"database not found: nodb", "invalid name"}
    assert server.values(name="kept") == server.values(name="other") == [1.0]


def test_deletes_and_expiry_use_no_trash(server: Server) -> None:
    server.run("CREATE RETENTION POLICY p ON t DURATION 1h REPLICATION 1")
    server.write(policy="p")
    for name in ("a", "b"):
        server.write(name=name)
    server.run("DROP SERIES FROM a; DELETE FROM b")
    retention.expire(server.catalog, NOW_NS)
    assert server.values(policy="p") == []
    assert server.trash() == []


def test_points_of_a_dropped_measurement_expire_as_if_it_were_not(server: Server) -> None:
    server.run("CREATE RETENTION POLICY p ON t DURATION 1h REPLICATION 1")
    server.write(policy="p")
    server.run("DROP MEASUREMENT cpu")
    retention.expire(server.catalog, NOW_NS)
    assert server.refusal("UNDROP MEASUREMENT cpu") == "measurement not in the trash: cpu"


# --- ALTER MEASUREMENT ----------------------------------------------------------------------------
def test_renamed_measurement_is_so_in_all_policies_and_its_old_name_is_free(
    server: Server,
) -> None:
    server.run("CREATE RETENTION POLICY p ON t DURATION INF REPLICATION 1")
    server.write(policy="autogen")
    server.catalog.storage("t").flush()
    server.write(policy="p", value=2.0)
    server.run("ALTER MEASUREMENT cpu RENAME TO load")
    server.write(value="text")
    server.reopen()
    assert server.run("SHOW MEASUREMENTS") == [["cpu"], ["load"]]
    assert (server.values(name="load"), server.values("t", "p", "load")) == ([1.0], [2.0])
    assert server.values() == ["text"]


def test_renamed_measurement_is_dropped_and_comes_back_by_its_new_name(server: Server) -> None:
    server.write()
    server.run("ALTER MEASUREMENT cpu RENAME TO load; DROP MEASUREMENT load")
    assert server.refusal("UNDROP MEASUREMENT cpu") == "measurement not in the trash: cpu"
    server.run("UNDROP MEASUREMENT load AS cpu")
    assert server.values() == [1.0]


# --- the end --------------------------------------------------------------------------------------
def test_trash_is_emptied_by_time(server: Server) -> None:
    server.run("CREATE DATABASE u; CREATE RETENTION POLICY p ON u DURATION INF REPLICATION 1")
    server.write()
    server.write(name="other")
    server.write("u", "p")
    server.catalog.storage("t").flush()
    server.run("DROP MEASUREMENT cpu; DROP RETENTION POLICY p ON u")
    server.run("DROP DATABASE u")
    assert server.run("SHOW TRASH")[0][:3] == ["database", "u", "u"]
    [last_ns] = [entry.id for entry in server.catalog.trash[-1:]]
    retention.look(server.catalog, last_ns + 23 * HOUR_NS)
    assert (len(server.trash()), server.files()) == (3, 2)
    retention.look(server.catalog, last_ns + 25 * HOUR_NS)
    assert (server.trash(), server.files()) == ([], 0)
    assert server.catalog.storage("t").stats()["segments"] == 1
    assert server.values(name="other") == [1.0]


def test_purge_empties_the_trash_at_once(server: Server) -> None:
    server.write()
    server.run("DROP MEASUREMENT cpu; DROP DATABASE t; CREATE DATABASE t")
    server.write()
    server.catalog.storage("t").flush()
    server.run("DROP MEASUREMENT cpu; PURGE TRASH")
    assert (server.run("SHOW TRASH"), server.files()) == ([], 0)
    assert server.catalog.storage("t").stats()["segments"] == 0
    assert server.refusal("UNDROP MEASUREMENT cpu") == "measurement not in the trash: cpu"


def test_purge_in_the_middle_of_a_drop_leaves_nothing_hidden(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.write()
    note = server.catalog.add_to_trash
    hidden: list[str] = []
    purges: list[threading.Thread] = []

    def noted(entry: Trashed) -> Trashed:
        entry = note(entry)
        hidden.append(entry.hidden_name)
        purge = threading.Thread(target=retention.purge_trash, args=(server.catalog, MAX_TIME_NS))
        purge.start()
        purge.join(0.2)  # as far as it comes
        purges.append(purge)
        return entry

    monkeypatch.setattr(server.catalog, "add_to_trash", noted)
    server.run("DROP MEASUREMENT cpu")
    for purge in purges:
        purge.join()
    assert server.catalog.trash == ()
    assert len(server.catalog.storage("t").series(hidden[0])) == 0


def test_measurement_dropped_before_its_database_waits_for_it(server: Server) -> None:
    server.write()
    server.write(name="kept")
    server.run("DROP MEASUREMENT cpu")
    between_ns = server.catalog.trash[-1].id + 1
    server.run("DROP DATABASE t")
    retention.purge_trash(server.catalog, between_ns)
    assert len(server.trash()) == 2
    server.run("UNDROP DATABASE t AS u")
    assert server.trash() == [("measurement", "cpu", "u")]
    server.run("UNDROP MEASUREMENT cpu", db="u")
    assert server.values("u") == server.values("u", name="kept") == [1.0]


def test_without_a_trash_what_is_dropped_is_gone(make: Callable[..., Server]) -> None:
    server = make(trash_hours=0)
    server.run("CREATE DATABASE t; CREATE RETENTION POLICY p ON t DURATION INF REPLICATION 1")
    server.write()
    server.write(policy="p")
    server.run("DROP MEASUREMENT cpu; DROP RETENTION POLICY p ON t; DROP DATABASE t")
    assert (server.trash(), server.files()) == ([], 0)
    assert not (server.data / "t").exists()
    assert server.refusal("UNDROP DATABASE t") == "database not in the trash: t"


def test_switching_the_trash_off_empties_it(make: Callable[..., Server], tmp_path: Path) -> None:
    server = make()
    server.run("CREATE DATABASE t")
    server.write()
    server.run("DROP DATABASE t")
    server.settings = Settings(trash_hours=0)
    server.reopen()
    retention.look(server.catalog, server.catalog.trash[0].id + 1)
    assert (server.trash(), server.files()) == ([], 0)


def test_the_oldest_goes_when_there_is_too_much(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trash, "MAX_ENTRIES", 3)
    monkeypatch.setattr(trash, "MAX_SERIES", 2)
    for number in range(5):
        server.run(f"CREATE DATABASE d{number}; DROP DATABASE d{number}")
    assert [name for _, name, _ in server.trash()] == ["d2", "d3", "d4"]
    for name in ("a", "b", "c"):
        server.write(name=name)
        server.run(f"DROP MEASUREMENT {name}")
    assert [name for _, name, _ in server.trash()] == ["b", "c"]
    assert len(server.catalog.storage("t").series("\0" + str(server.catalog.trash[0].id))) == 1


def test_files_that_no_entry_has_are_deleted_at_the_next_start(server: Server) -> None:
    server.write()
    server.run("DROP DATABASE t")
    (server.data / ".trash" / "1" / "autogen").mkdir(parents=True)
    server.reopen()
    assert server.files() == 1
    server.run("UNDROP DATABASE t")
    assert server.values() == [1.0]


def test_database_that_cannot_be_moved_back_stays_in_the_trash(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.write()
    server.run("DROP DATABASE t")

    def fail(_: OsFiles, source: Path, target: Path) -> None:
        raise PermissionError(13, "not yours", str(source))

    with monkeypatch.context() as patched:
        patched.setattr(OsFiles, "replace", fail)
        with pytest.raises(StorageError, match=r"not brought back: .*not yours"):
            server.run("UNDROP DATABASE t")
    assert server.trash() == [("database", "t", "t")]
    server.run("CREATE DATABASE t")
    assert server.values() == []
    server.run("UNDROP DATABASE t AS u")
    assert server.values("u") == [1.0]


def test_purge_makes_room_before_it_needs_any(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.write()
    server.run("DROP DATABASE t")

    def fail(*_: object) -> None:
        raise StorageError("the catalog could not be written: no space left")

    with monkeypatch.context() as patched:
        patched.setattr(catalogfile, "write", fail)
        with pytest.raises(StorageError, match="no space left"):
            server.run("PURGE TRASH")
    assert server.files() == 0
    assert server.refusal("UNDROP DATABASE t") == "database not in the trash: t"
    server.run("PURGE TRASH")
    assert server.trash() == []


def test_a_directory_of_somebody_else_is_left_alone(server: Server) -> None:
    server.write()
    server.run("DROP DATABASE t")
    (server.data / "t").mkdir()
    (server.data / "t" / "file").touch()
    with pytest.raises(StorageError, match="not brought back: there is a directory: "):
        server.run("UNDROP DATABASE t")
    server.reopen()
    server.run("UNDROP DATABASE t AS u")
    assert server.values("u") == [1.0]
    assert (server.data / "t" / "file").exists()


def test_in_memory_there_is_no_trash() -> None:
    catalog = Catalog(None, Settings())
    session = Session(catalog, Settings(), NOW_NS, "t")
    for text in ("CREATE DATABASE t", "DROP DATABASE t"):
        execute(parse(text)[0], session)
    assert catalog.trash == ()
    with pytest.raises(InfluxError, match="database not in the trash: t"):
        execute(parse("UNDROP DATABASE t")[0], session)
    catalog.close()


def test_an_entry_is_read_as_it_was_written() -> None:
    was = Database("t", (), "autogen")
    for entry in (
        Trashed(5, Kind.DATABASE, "t", "t", 7, was=was),
        Trashed(6, Kind.MEASUREMENT, "t", "m", 7, 3),
    ):
        document = trash.to_document(entry)
        document["was"] = (
            None
            if entry.was is None
            else {"name": "t", "policies": [], "default_policy": "autogen"}
        )
        assert trash.from_document(document) == entry


def test_what_follows_a_database_was_dropped_from_that_very_one() -> None:
    def entry(number: int, kind: Kind, name: str) -> Trashed:
        return Trashed(number, kind, "t", name)

    entries = [
        entry(1, Kind.MEASUREMENT, "a"),
        entry(2, Kind.DATABASE, "t"),
        entry(3, Kind.MEASUREMENT, "b"),
        entry(4, Kind.DATABASE, "t"),
        entry(5, Kind.MEASUREMENT, "c"),
    ]
    after = trash.moved(entries, entries[3], "u")
    assert after == (*entries[:2], replace(entries[2], database="u"), entries[4])
