"""Cases of what is not built yet, by the issue that builds it: expected to fail, strictly.

A case that starts to pass fails the run until it has left this list.
"""

from __future__ import annotations

NOT_BUILT: dict[str, tuple[str, ...]] = {
    "issue 6: holt_winters": (
        "technical::holt_winters of a forecast",
        "technical::holt_winters with a season",
        "technical::holt_winters with fit",
        "technical::holt_winters of no rows is refused",
        "technical::holt_winters of a field is refused",
        "technical::holt_winters with a negative season is refused",
        "technical::holt_winters without GROUP BY time is refused",
    ),
    "issue 7: continuous queries": (
        "continuous_queries::create",
        "continuous_queries::shown in canonical form",
        "continuous_queries::create again is fine",
        "continuous_queries::create again with another text is refused",
        "continuous_queries::create with resample",
        "continuous_queries::create with a backreference",
        "continuous_queries::all of them",
        "continuous_queries::create into an unknown policy is refused",
        "continuous_queries::create on an unknown database is refused",
        "continuous_queries::two are left",
    ),
    "issue 7: subscriptions": (
        "subscriptions::create",
        "subscriptions::create for any of two",
        "subscriptions::they are shown",
        "subscriptions::create again is refused",
        "subscriptions::another protocol is refused",
        "subscriptions::an unknown database is refused",
        "subscriptions::an unknown policy is refused",
        "subscriptions::drop",
        "subscriptions::drop the other",
    ),
}

PENDING = {name: reason for reason, names in NOT_BUILT.items() for name in names}
