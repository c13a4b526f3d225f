"""The repository's own rules: lint, format, types, imports, documentation."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import grimp
import pytest

from tinyflux.version import __version__

ROOT = Path(__file__).parents[2]
TOP_LEVEL = {"pyproject.toml", "gateway", "tinyflux", "grammar", "tests", "grafana", "README.md"}
BESIDE = {"LICENSE", "CHANGELOG.md"}


def tool(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("ruff", "check", "."), id="lint"),
        pytest.param(("ruff", "format", "--check", "."), id="format"),
        pytest.param(("mypy",), id="types"),
    ],
)
def test_tool_finds_nothing(command: tuple[str, ...]) -> None:
    result = tool(sys.executable, "-m", *command)
    assert result.returncode == 0, result.stdout + result.stderr


def test_import_contracts_hold() -> None:
    result = tool(
        sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_no_module_imports_itself_by_way_of_others() -> None:
    graph = grimp.build_graph(
        "gateway", "grammar", "tinyflux", exclude_type_checking_imports=True, cache_dir=None
    )
    for module in graph.modules:
        assert not any(
            graph.chain_exists(importer=imported, imported=module)
            for imported in graph.find_modules_directly_imported_by(module)
        ), module


def test_each_trap_of_the_clients_has_its_test() -> None:
    text = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    numbers = re.findall(r"^@pytest\.mark\.trap\((\d+)\)", text, re.MULTILINE)
    assert set(map(int, numbers)) == set(range(1, 21))


def test_top_level_holds_exactly_the_layout() -> None:
    tracked = tool("git", "ls-files").stdout.splitlines()
    if not tracked:
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in tracked}
    visible = {name for name in names if not name.startswith(".")}
    assert visible == TOP_LEVEL | BESIDE


def test_version_is_the_top_of_the_changelog() -> None:
    headings = re.findall(r"^## \[?([^\]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in {"Unreleased", __version__}
    assert __version__ in headings


def test_packages_of_the_wheel_are_the_packages_of_the_tree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for top in ("gateway", "grammar", "tinyflux")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert set(project["tool"]["setuptools"]["packages"]) == found


def test_every_setting_is_in_the_readme() -> None:
    from gateway.config import Settings  # the module under documentation

    readme = (ROOT / "README.md").read_text()
    missing = [name for name in Settings.__dataclass_fields__ if f"`{name}`" not in readme]
    assert missing == []


def test_every_function_is_in_the_readme() -> None:
    from gateway.functions.registry import FUNCTIONS  # as above

    readme = (ROOT / "README.md").read_text()
    missing = [name for name in FUNCTIONS if not re.search(rf"\b{name}\b", readme)]
    assert missing == []


def test_every_dependency_has_its_line_in_the_readme() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    readme = (ROOT / "README.md").read_text()
    names = [re.split(r"[<>=;\s\[]", line)[0] for line in project["dependencies"]]
    assert [name for name in names if f"`{name}`" not in readme] == []


def test_dashboards_are_json_and_refer_to_the_provisioned_data_source() -> None:
    source = (ROOT / "grafana/provisioning/datasources/tinyflux.yaml").read_text()
    assert "uid: tinyflux" in source
    for path in (ROOT / "grafana/dashboards").glob("*.json"):
        dashboard = json.loads(path.read_text())
        variables = {v["name"]: v for v in dashboard["templating"]["list"]}
        assert variables["ds"]["current"]["value"] == "tinyflux"


def test_files_stay_short() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines}"
        for top in ("gateway", "grammar", "tinyflux")
        for path in sorted((ROOT / top).rglob("*.py"))
        if (lines := len(path.read_text().splitlines())) > 800
    ]
    assert long == []
