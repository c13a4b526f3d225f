"""Version 2's buckets: the policies of all databases, listed, made, changed and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from tests.unit.gateway.conftest import Ask


def test_buckets_are_the_policies_of_all_databases(db: TestClient, ask: Ask) -> None:
    ask("CREATE RETENTION POLICY month ON t DURATION 30d REPLICATION 1")
    listed = db.get("/api/v2/buckets").json()["buckets"]
    assert listed == [
        {
            "id": "t/autogen",
            "name": "t/autogen",
            "type": "user",
            "rp": "autogen",
            "retentionRules": [
                {"type": "expire", "everySeconds": 0, "shardGroupDurationSeconds": 604_800}
            ],
        },
        {
            "id": "t/month",
            "name": "t/month",
            "type": "user",
            "rp": "month",
            "retentionRules": [
                {"type": "expire", "everySeconds": 2_592_000, "shardGroupDurationSeconds": 86_400}
            ],
        },
    ]
    assert db.get("/api/v2/buckets?name=t/month").json()["buckets"] == listed[1:]
    assert db.get("/api/v2/buckets?name=x").json()["buckets"] == []
    assert db.get("/api/v2/buckets/t/month").json() == listed[1]
    assert db.get("/api/v2/buckets/t%2Fmonth").json() == listed[1]
    assert db.get("/api/v2/buckets/t/x").status_code == 404
    assert db.get("/api/v2/buckets?limit=x").status_code == 400


def test_buckets_come_in_pages(db: TestClient, ask: Ask) -> None:
    for name in ("a", "b", "c"):
        ask(f"CREATE RETENTION POLICY {name} ON t DURATION INF REPLICATION 1")
    path: str | None = "/api/v2/buckets?limit=3"
    pages = []
    while path:
        page = db.get(path).json()
        pages.append([bucket["rp"] for bucket in page["buckets"]])
        path = page["links"].get("next")
    assert pages == [["autogen", "a", "b"], ["c"]]
    page = db.get("/api/v2/buckets?limit=1&after=t/a").json()
    assert [bucket["rp"] for bucket in page["buckets"]] == ["b"]
    for after in ("t/c", "t/x"):
        page = db.get("/api/v2/buckets", params={"after": after}).json()
        assert (page["buckets"], page["links"].get("next")) == ([], None)


@pytest.mark.parametrize("database", ["t", "new"])
def test_new_bucket_is_a_policy_and_its_database(db: TestClient, ask: Ask, database: str) -> None:
    rules = [{"type": "expire", "everySeconds": 7200, "shardGroupDurationSeconds": 3600}]
    name = f"{database}/p"
    response = db.post(
        "/api/v2/buckets", json={"name": name, "orgID": "x", "retentionRules": rules}
    )
    assert response.status_code == 201
    assert response.json()["retentionRules"] == rules
    [result] = ask(f"SHOW RETENTION POLICIES ON {database}")
    assert ["p", "2h0m0s", "1h0m0s", 1, database == "new"] in result["series"][0]["values"]  # type: ignore[index]


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": "x"},
        {"name": "/p"},
        {"name": "t/p", "retentionRules": [{"everySeconds": -1}]},
        {"name": "t/p", "retentionRules": [{"everySeconds": "1h"}]},
        {"name": "t/p", "retentionRules": [{"everySeconds": 60}]},
        {"name": "t/p", "retentionRules": ["x"]},
        {"name": "t/p", "retentionRules": 5},
        {"name": "t/p", "retentionRules": {"everySeconds": 7200}},
        {"name": "t/p", "retentionRules": [{"everySeconds": True}]},
        {"name": "t/p", "retentionRules": [{"everySeconds": 10**17}]},
        {"name": "t/p", "retentionRules": [{"shardGroupDurationSeconds": 10**10}]},
        {"name": "t/autogen", "retentionRules": [{"everySeconds": 7200}]},
    ],
)
def test_bad_bucket_is_refused(db: TestClient, document: dict[str, object]) -> None:
    response = db.post("/api/v2/buckets", json=document)
    assert response.status_code == 400
    assert response.json()["code"] == "invalid"


def test_bucket_is_changed_in_what_is_said_and_dropped(db: TestClient, ask: Ask) -> None:
    ask("CREATE RETENTION POLICY p ON t DURATION 30d REPLICATION 1 SHARD DURATION 2d")
    unchanged = db.patch("/api/v2/buckets/t/p", json={"description": "mine"})
    rules = [{"type": "expire", "everySeconds": 2_592_000, "shardGroupDurationSeconds": 172_800}]
    assert (unchanged.status_code, unchanged.json()["retentionRules"]) == (200, rules)
    rules[0]["everySeconds"] = 604_800
    changed = db.patch(
        "/api/v2/buckets/t%2Fp",
        json={"name": "t/p", "retentionRules": [{"type": "expire", "everySeconds": 604_800}]},
    )
    assert (changed.status_code, changed.json()["retentionRules"]) == (200, rules)
    dropped = db.delete("/api/v2/buckets/t/p")
    assert (dropped.status_code, dropped.content) == (204, b"")
    assert db.get("/api/v2/buckets/t/p").status_code == 404
    assert db.delete("/api/v2/buckets/t/p").status_code == 404
    [result] = ask("SHOW RETENTION POLICIES ON t")
    assert [row[0] for row in result["series"][0]["values"]] == ["autogen"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"name": "t/q"}, "the name of a bucket cannot be changed"),
        ({"retentionRules": ["x"]}, "retentionRules must be a list of objects"),
        (
            {"retentionRules": [{"everySeconds": 60}]},
            "retention policy duration must be at least 1h0m0s",
        ),
    ],
)
def test_bad_change_of_a_bucket_is_refused(
    db: TestClient, document: dict[str, object], message: str
) -> None:
    response = db.patch("/api/v2/buckets/t/autogen", json=document)
    assert response.status_code == 400
    assert response.json() == {"code": "invalid", "message": message, "error": message}


@pytest.mark.parametrize("part", ["labels", "members", "owners"])
def test_buckets_have_no_labels_members_or_owners(db: TestClient, part: str) -> None:
    assert db.get(f"/api/v2/buckets/t/autogen/{part}").status_code == 405
