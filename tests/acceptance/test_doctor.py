"""`tizhuang doctor` as an operator starts it: what it prints, its exit code, and that a live service hears nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests import brokers, servers
from tests.acceptance.conftest import serving
from tests.conftest import require
from tizhuang import app

pytestmark = pytest.mark.real("mosquitto")


@pytest.fixture(autouse=True)
def _server() -> None:
    require("mosquitto")


def in_its_own_process(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(servers.ROOT / "tizhuang.py"), "doctor", *words]
    return subprocess.run(line, cwd=servers.ROOT, capture_output=True, text=True, timeout=100, check=False)


def doctor(*words: str, **env: str) -> Result:
    """The same command without a second start of the program."""
    return CliRunner().invoke(app, ["doctor", *words], env=env)


def test_a_default_broker_under_a_live_service(tmp_path: Path, data: Path):
    with brokers.configured(tmp_path / "broker", "allow_anonymous true") as broker:
        with serving(broker, data) as (_, api):
            seen = in_its_own_process("--mqtt-url", broker.url, "--data", str(data))
            broker.publish("tizhuang/v1/here/elevator/lift/status", '{"online": true, "ts": 1}')
            counts = api.wait_until_settled(1)
            assert counts["received"] == 1, "the worker heard the doctor"
            assert api.items("/api/v1/quarantine") == []
            assert [one["id"] for one in api.items("/api/v1/devices")] == ["here.lift"]
        assert seen.returncode == 1
        assert seen.stderr == ""
        assert "✗ 离线队列 queue while away" in seen.stdout
        assert "1000 of 20000 messages" in seen.stdout
        assert "→ max_queued_messages 100000" in seen.stdout
        assert "! 在途消息 messages in flight" in seen.stdout
        assert "held by the running service" in seen.stdout
        assert seen.stdout.splitlines()[-1].startswith("Something would be lost: 1 finding to mend")


def test_a_broker_and_a_store_as_they_should_be(tmp_path: Path, data: Path, influx: servers.Influx):
    folder = tmp_path / "broker"
    rights = ("user us", "topic read tizhuang/v1/#", "topic readwrite tizhuang/v1/+/alerts/+")
    probes = ("topic readwrite tizhuang-doctor/#", "topic read $SYS/#")
    lines = (
        "allow_anonymous false",
        brokers.passwords(folder, us="s3cret"),
        brokers.access(folder, *rights, *probes),
        brokers.persistence(folder),
    )
    with brokers.configured(folder, *brokers.ROOMY, *lines) as broker:
        url = f"mqtt://us:s3cret@127.0.0.1:{broker.port}"
        seen = doctor("--data", str(data), "--json", TIZHUANG_MQTT__URL=url, TIZHUANG_INFLUX__URL=influx.url)
        brokers.ended(broker)
    assert seen.exit_code == 0, seen.output
    assert "s3cret" not in seen.stdout
    told = json.loads(seen.stdout)
    assert told["exit_code"] == 0
    levels = {one["check"]: one["level"] for one in told["findings"]}
    unknown = {"broker.restart", "devices.clock", "host.clock"}
    assert {check for check, level in levels.items() if level != "ok"} == unknown
    assert {one["title"]["zh"] for one in told["findings"]} >= {"离线队列", "保留期限"}
    mark = json.loads((data / "doctor.json").read_text())
    assert mark["nonce"].encode() in brokers.kept(folder)


def test_what_cannot_be_checked(tmp_path: Path):
    nobody = doctor("--mqtt-url", f"mqtt://127.0.0.1:{servers.free_port()}", "--data", str(tmp_path))
    assert nobody.exit_code == 2
    assert "cannot be reached" in nobody.stdout
    assert "The broker could not be checked" in nobody.stdout
    wrong = doctor("--mqtt-url", "http://broker")
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "must look like mqtt://" in wrong.stderr
