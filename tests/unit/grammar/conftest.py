"""Fixtures as text: statements a line, or with what is said of them indented below."""

from __future__ import annotations

from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_SYMBOLS = str.maketrans({"⏎": "\n", "␍": "\r", "⇥": "\t", "␀": "\x00"})
_TEXTS = {
    "broken": "errors.txt",
    "differing": "differences.txt",
    "example": "examples.influxql",
    "identical": "identity.influxql",
}


def _statements(name: str) -> list[list[str]]:
    """Return each statement with the lines indented below it."""
    statements: list[list[str]] = []
    for line in (_HERE / name).read_text("utf-8").split("\n"):
        if not line or line.startswith("# "):
            continue
        if line.startswith("    "):
            statements[-1].append(line[4:].translate(_SYMBOLS))
        else:
            statements.append([line.translate(_SYMBOLS)])
    return statements


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument, name in _TEXTS.items():
        if argument in metafunc.fixturenames:
            cases = _statements(name)
            ids = [statement[:60] for statement, *_ in cases]
            metafunc.parametrize(argument, cases, ids=ids)


@pytest.fixture
def all_broken() -> list[list[str]]:
    """Every statement of errors.txt with its error."""
    return _statements(_TEXTS["broken"])
