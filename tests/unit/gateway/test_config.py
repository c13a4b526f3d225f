"""Settings from defaults, file, environment and flags."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import ConfigError, Settings, load, setting_fields


def test_defaults_hold_without_any_source() -> None:
    settings = load(environment={})
    assert settings == Settings()
    assert settings.port == 8086
    assert settings.data == Path("data")


def test_each_source_overrides_the_one_before(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text('host = "file"\nport = 1\nsync = "off"\nquery_timeout_s = 5\n')
    environment = {"TINYFLUX_PORT": "2", "TINYFLUX_HOST": "environment", "HOME": "/root"}
    settings = load(file, environment, {"host": "flag", "port": None})
    assert (settings.host, settings.port, settings.sync) == ("flag", 2, "off")
    assert settings.query_timeout_s == 5.0


def test_variable_that_names_the_file_is_no_setting() -> None:
    assert load(environment={"TINYFLUX_CONFIG": "x.toml"}) == Settings()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        pytest.param("colour", "red", "unknown setting: 'colour'", id="unknown"),
        pytest.param("port", "http", "port: not a whole number: 'http'", id="no number"),
        pytest.param("port", 1.5, "port: not a whole number: 1.5", id="a fraction"),
        pytest.param("port", True, "port: not a whole number: True", id="a boolean"),
        pytest.param("port", -1, "port: must be 0 or more: -1", id="negative"),
        pytest.param("port", 65536, "port: must be 65535 or less: 65536", id="no port"),
        pytest.param("max_body_bytes", 0, "max_body_bytes: must be 1 or more: 0", id="minimum"),
        pytest.param("query_timeout_s", "nan", "query_timeout_s: must be 0", id="nan"),
        pytest.param("sync", "never", "sync: must be one of always, group", id="choice"),
    ],
)
def test_bad_setting_is_refused_with_its_name(name: str, value: object, text: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(environment={}, flags={name: value})
    assert str(refused.value).startswith(text)


def test_file_that_is_not_toml_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    file.write_text("port: 8086\n")
    with pytest.raises(ConfigError, match=r"gateway\.toml"):
        load(file, {})


def test_every_setting_is_described() -> None:
    for setting in setting_fields():
        assert setting.doc.endswith("."), setting.name
        assert setting.flag == "--" + setting.name.replace("_", "-")
        assert setting.variable == "TINYFLUX_" + setting.name.upper()
