"""The syntax of regexes: RE2, with the words Go's regexp package has for a broken one."""

from __future__ import annotations

import re2

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False

# RE2's own words -> Go's.
_WORDS = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "unexpected )": "unexpected )",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid repetition size": "invalid repeat count",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "trailing \\": "trailing backslash at end of expression",
    "invalid named capture group": "invalid named capture",
}


def check_regex(pattern: str) -> None:
    """Raise ValueError with Go's words when `pattern` is not a regex.

    Raises:
        ValueError: `error parsing regexp: ...`.
    """
    try:
        re2.compile(pattern, _OPTIONS)
    except re2.error as exc:
        reason = exc.args[0] if exc.args else b""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        words, _, part = text.partition(": ")
        raise ValueError(f"error parsing regexp: {_WORDS.get(words, words)}: `{part}`") from None
