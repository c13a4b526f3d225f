"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("any machine", deadline=None)  # no test asserts how long something takes
settings.load_profile("any machine")
