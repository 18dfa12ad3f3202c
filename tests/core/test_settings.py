"""Settings from file, environment and options; a bad one is one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from core import mqtt
from core.errors import SettingsError
from core.settings import Settings, load


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without a tizhuang.toml."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_defaults_are_safe_on_a_laptop():
    found = load()
    assert found.http.host == "127.0.0.1"
    assert (found.mqtt.url, found.influx.url, found.database.url) == ("", "", "")
    assert found.influx.token.get_secret_value() == ""
    assert (found.alerts.rules / "charger.yaml").exists() or list(found.alerts.rules.glob("*.yaml"))


def test_options_before_environment_before_file(empty_folder: Path, monkeypatch: pytest.MonkeyPatch):
    (empty_folder / "tizhuang.toml").write_text('[http]\nport = 1\nhost = "::1"\nallowed_hosts = ["a"]\n')
    assert (load().http.port, load().http.host) == (1, "::1")
    monkeypatch.setenv("TIZHUANG_HTTP__PORT", "2")
    assert (load().http.port, load().http.host, load().http.allowed_hosts) == (2, "::1", ("a",))
    assert load(http={"port": 3}).http.port == 3
    assert load(http={"port": None, "host": None}).http.port == 2
    assert load(http={"port": 0}).http.port == 0


def test_lists_and_secrets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIZHUANG_HTTP__ALLOWED_HOSTS", '["lifts.example", "10.0.0.7"]')
    monkeypatch.setenv("TIZHUANG_INFLUX__TOKEN", "geheim")
    found = load()
    assert found.http.allowed_hosts == ("lifts.example", "10.0.0.7")
    assert found.influx.token.get_secret_value() == "geheim"
    assert "geheim" not in repr(found)


def refused(name: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load()
    told = str(caught.value)
    assert name in told
    assert "\n" not in told
    return told


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("TIZHUANG_HTTP__PORT", "many", "http.port"),
        ("TIZHUANG_HTTP__PORT", "65536", "http.port"),
        ("TIZHUANG_HTTP__PORT", "-1", "http.port"),
        ("TIZHUANG_HTTP__PORT", "", "http.port"),
        ("TIZHUANG_HTTP__PROT", "80", "http.prot"),
        ("TIZHUANG_HTTP__ALLOWED_HOSTS", "a,b", '"http"'),
        ("TIZHUANG_HTTP__ALLOWED_HOSTS", '{"a": 1}', "http.allowed_hosts"),
        ("TIZHUANG_MQTT", "{", '"mqtt"'),
        ("TIZHUANG_MQTT", "5", "mqtt"),
        ("TIZHUANG_MQTT__URL", "http://broker", "mqtt.url"),
        ("TIZHUANG_MQTT__URL", "broker:1883", "mqtt.url"),
        ("TIZHUANG_MQTT__URL", "mqtt://", "mqtt.url"),
        ("TIZHUANG_MQTT__URL", "mqtt://broker:99999", "mqtt.url"),
        ("TIZHUANG_MQTT__URL", "mqtt://broker:port", "mqtt.url"),
        ("TIZHUANG_MQTT__URL", "mqtt://broker:0", "mqtt.url"),
        ("TIZHUANG_MQTT__URL", "mqtt://[::1", "mqtt.url"),
    ],
)
def test_a_bad_variable_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str):
    monkeypatch.setenv(variable, value)
    told = refused(name)
    assert "tizhuang.toml" not in told


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("[http]\nprot = 80\n", "http.prot"),
        ("[htpp]\nport = 80\n", "htpp"),
        ("port = 80\n", "port"),
        ("http = 80\n", "http"),
        ("[http]\nport = 70000\n", "http.port"),
        ("[mqtt]\nurl = 5\n", "mqtt.url"),
        ("[http\n", "tizhuang.toml"),
        ("[http]\nport = 1\nport = 2\n", "tizhuang.toml"),
    ],
)
def test_a_bad_file_is_named_in_one_line(empty_folder: Path, text: str, name: str):
    (empty_folder / "tizhuang.toml").write_text(text)
    refused(name)


def test_a_file_that_is_not_utf8(empty_folder: Path):
    (empty_folder / "tizhuang.toml").write_bytes(b'[mqtt]\nurl = "\xb5\xe7"\n')
    refused("tizhuang.toml")


def test_every_fault_at_once(empty_folder: Path):
    (empty_folder / "tizhuang.toml").write_text('[http]\nport = 70000\n[mqtt]\nurl = "x"\n')
    assert "http.port" in refused("mqtt.url")


def test_a_refusal_never_shows_the_password(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TIZHUANG_MQTT__URL", "mqtt://ingest:geheim@broker:99999")
    assert "geheim" not in refused("mqtt.url")


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("mqtt://broker", "broker", 1883),
        ("mqtts://broker", "broker", 8883),
        ("mqtt://u:p%40ss@10.0.0.1:1884", "10.0.0.1", 1884),
        ("mqtt://[::1]:1885", "::1", 1885),
    ],
)
def test_every_address_that_is_taken_can_be_used(url: str, host: str, port: int):
    settings = load(mqtt={"url": url})
    assert mqtt.broker(settings.mqtt) == (host, port)
    mqtt.client(settings.mqtt)


@pytest.mark.parametrize(("given", "used"), [("", ""), ("p/07", "p/07/"), ("p/07/", "p/07/")])
def test_a_prefix_is_whole_levels(given: str, used: str):
    assert load(mqtt={"prefix": given}).mqtt.prefix == used


def test_settings_cannot_be_changed_afterwards():
    found = load()
    with pytest.raises(ValueError, match="frozen"):
        found.http.port = 5  # type: ignore[misc]
    assert isinstance(found, Settings)
