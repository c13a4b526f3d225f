"""Databases and what belongs to them as values, and the rules of retention policies. Pure.

Source: influxd 1.x services/meta (NormalisedShardDuration, CreateRetentionPolicy, ...), measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from gateway.errors import RetentionPolicyNotFound, StatementError

if TYPE_CHECKING:
    from collections.abc import Mapping
from tinyflux.batch import MAX_TIME_NS, MIN_TIME_NS

HOUR_NS: Final = 3_600_000_000_000
DAY_NS: Final = 24 * HOUR_NS
MIN_DURATION_NS: Final = HOUR_NS  # influxdb 1.x services/meta: MinRetentionPolicyDuration
DEFAULT_POLICY: Final = "autogen"  # influxdb 1.x services/meta: DefaultRetentionPolicyName
MAX_NAME_BYTES: Final = 255  # of a directory entry on Linux


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long points are kept, and in time ranges of what size.

    Attributes:
        name: Its name, unique in a database.
        duration_ns: Points older than this may go; 0 keeps them for ever.
        shard_duration_ns: Length of one shard.
        replication: Kept and shown for InfluxDB's clients; this server has one copy.
        future_limit_ns: Points further ahead than this are not taken; 0 takes all.
        past_limit_ns: Points older than this are not taken; 0 takes all that `duration_ns` keeps.
    """

    name: str = DEFAULT_POLICY
    duration_ns: int = 0
    shard_duration_ns: int = 7 * DAY_NS
    replication: int = 1
    future_limit_ns: int = 0
    past_limit_ns: int = 0

    def write_window(self, now_ns: int) -> tuple[int, int] | None:
        """Return the first and the last time that a point may have now, None where any may, ns."""
        ages = [age for age in (self.duration_ns, self.past_limit_ns) if age]
        if not ages and not self.future_limit_ns:
            return None
        first_ns = now_ns - min(ages) if ages else MIN_TIME_NS
        return first_ns, now_ns + self.future_limit_ns if self.future_limit_ns else MAX_TIME_NS


@dataclass(frozen=True, slots=True)
class ContinuousQuery:
    """A continuous query: its name, and the statement that creates it as canonical text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Subscription:
    """Where the points of a retention policy are sent on to.

    Attributes:
        name: Its name, unique in a policy.
        retention_policy: The policy.
        mode: ALL sends each point to all destinations, ANY to one of them.
        destinations: URLs: udp, http or https.
    """

    name: str
    retention_policy: str
    mode: str
    destinations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Database:
    """A database and what belongs to it; everything in the order it was created.

    Attributes:
        name: Its name.
        policies: The retention policies.
        default_policy: The policy of requests that name none. It may not exist: it can be dropped.
        continuous_queries: The continuous queries.
        subscriptions: The subscriptions of all policies.
    """

    name: str
    policies: tuple[RetentionPolicy, ...]
    default_policy: str
    continuous_queries: tuple[ContinuousQuery, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()

    def policy(self, name: str = "") -> RetentionPolicy:
        """Return a policy; "" is the default one.

        Raises:
            RetentionPolicyNotFound: There is none of this name.
        """
        name = name or self.default_policy
        for policy in self.policies:
            if policy.name == name:
                return policy
        raise RetentionPolicyNotFound(name)

    def has_policy(self, name: str) -> bool:
        """Return whether there is a policy of this name."""
        return any(policy.name == name for policy in self.policies)

    def with_policy(self, policy: RetentionPolicy, *, is_default: bool = False) -> Database:
        """Return this database with a policy added, or changed in its place."""
        if self.has_policy(policy.name):
            policies = tuple(policy if p.name == policy.name else p for p in self.policies)
        else:
            policies = (*self.policies, policy)
        default = policy.name if is_default else self.default_policy
        return replace(self, policies=policies, default_policy=default)

    def without_policy(self, name: str) -> Database:
        """Return this database without a policy and the subscriptions of it."""
        return replace(
            self,
            policies=tuple(p for p in self.policies if p.name != name),
            subscriptions=tuple(s for s in self.subscriptions if s.retention_policy != name),
        )

    def only_policy(self, name: str) -> Database:
        """Return a database that has a policy of this one with its subscriptions, and no more."""
        subscriptions = tuple(s for s in self.subscriptions if s.retention_policy == name)
        return Database(self.name, (self.policy(name),), name, subscriptions=subscriptions)

    def continuous_query(self, name: str) -> ContinuousQuery | None:
        """Return a continuous query; None when there is none of this name."""
        return next((query for query in self.continuous_queries if query.name == name), None)

    def subscription(self, policy: str, name: str) -> Subscription | None:
        """Return a subscription of a policy; None when there is none of this name."""
        wanted = policy, name
        return next((s for s in self.subscriptions if (s.retention_policy, s.name) == wanted), None)


def from_document(document: Mapping[str, Any]) -> Database:
    """Return the database that a document of catalog.json says: the fields of these classes.

    Raises:
        KeyError, TypeError: It says none.
    """
    return Database(
        document["name"],
        tuple(RetentionPolicy(**policy) for policy in document["policies"]),
        document["default_policy"],
        tuple(ContinuousQuery(**query) for query in document.get("continuous_queries", ())),
        tuple(
            Subscription(**known | {"destinations": tuple(known["destinations"])})
            for known in document.get("subscriptions", ())
        ),
    )


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What a statement says about a policy; None where it says nothing, duration 0 is infinite."""

    duration_ns: int | None = None
    shard_duration_ns: int | None = None
    replication: int | None = None
    is_default: bool = False
    future_limit_ns: int | None = None
    past_limit_ns: int | None = None


def shard_duration(duration_ns: int, wanted_ns: int | None = None) -> int:
    """Return the shard duration of a policy in ns.

    Args:
        duration_ns: The policy's duration; 0 is infinite.
        wanted_ns: What was asked for; None or 0 leaves it to the duration.

    Source: influxdb 1.x services/meta/data.go shardGroupDuration, normalisedShardDuration.
    """
    if wanted_ns:
        return max(wanted_ns, HOUR_NS)
    if duration_ns == 0 or duration_ns >= 180 * DAY_NS:
        return 7 * DAY_NS
    return DAY_NS if duration_ns >= 2 * DAY_NS else HOUR_NS


def directory_name(name: str) -> str:
    """Return the directory of a database or policy: its name with `%` and `.` percent-encoded.

    Raises:
        StatementError: `invalid name` or `name too long`: influxd takes none of these either, or
            the directory could not exist.
    """
    if not name or name in {".", ".."} or "/" in name or "\\" in name or not name.isprintable():
        raise StatementError("invalid name")
    encoded = name.replace("%", "%25").replace(".", "%2E")
    if len(encoded.encode()) > MAX_NAME_BYTES:
        raise StatementError("name too long")
    return encoded


def new_policy(name: str, change: PolicyChange) -> RetentionPolicy:
    """Return the policy that a CREATE statement describes.

    Raises:
        StatementError: `invalid name`, or a bad duration.
    """
    directory_name(name)
    duration = change.duration_ns or 0
    policy = RetentionPolicy(
        name,
        duration,
        shard_duration(duration, change.shard_duration_ns),
        change.replication or 1,
        change.future_limit_ns or 0,
        change.past_limit_ns or 0,
    )
    _check_durations(policy)
    return policy


def _check_durations(policy: RetentionPolicy) -> None:
    if policy.duration_ns == 0:
        return
    if policy.duration_ns < MIN_DURATION_NS:
        raise StatementError("retention policy duration must be at least 1h0m0s")
    if policy.duration_ns < policy.shard_duration_ns:
        raise StatementError("retention policy duration must be greater than the shard duration")


def check_same_default(database: Database, wanted: PolicyChange, policy: str) -> None:
    """Compare what CREATE DATABASE says about the policy of a database that exists.

    Raises:
        StatementError: `retention policy conflicts with an existing policy`.
    """
    conflict = StatementError("retention policy conflicts with an existing policy")
    name = policy or DEFAULT_POLICY
    if not database.has_policy(name) or database.default_policy != name:
        raise conflict
    old = database.policy(name)
    if _changed(old, wanted) != old:
        raise conflict


def altered_policy(old: RetentionPolicy, change: PolicyChange) -> RetentionPolicy:
    """Return a policy with what an ALTER statement says.

    Raises:
        StatementError: A bad duration.
    """
    policy = _changed(old, change)
    _check_durations(policy)
    return policy


def _changed(old: RetentionPolicy, change: PolicyChange) -> RetentionPolicy:
    duration = _given(change.duration_ns, old.duration_ns)
    wanted = change.shard_duration_ns
    return replace(
        old,
        duration_ns=duration,
        shard_duration_ns=old.shard_duration_ns
        if wanted is None
        else shard_duration(duration, wanted),
        replication=change.replication or old.replication,
        future_limit_ns=_given(change.future_limit_ns, old.future_limit_ns),
        past_limit_ns=_given(change.past_limit_ns, old.past_limit_ns),
    )


def _given(wanted: int | None, old: int) -> int:
    return old if wanted is None else wanted
