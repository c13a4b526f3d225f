"""Cases of what is not built yet, by what is missing: expected to fail, strictly.

A case that starts to pass fails the run until it has left this list.
"""

from __future__ import annotations

NOT_BUILT: dict[str, tuple[str, ...]] = {}

PENDING = {name: reason for reason, names in NOT_BUILT.items() for name in names}
