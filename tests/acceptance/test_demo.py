"""`tizhuang demo` as a user runs it: alive in seconds, a ticket within 20 s, and it ends when it should."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests import servers
from tests.acceptance.conftest import Api, Recording, now_ms, serving

DEMO = ["demo", "--http-port", "0", "--mqtt-port", "0"]


def run(command: Sequence[str], data: Path) -> subprocess.CompletedProcess[str]:
    """A command that is expected to end by itself."""
    line = [sys.executable, str(servers.ROOT / "tizhuang.py"), *command, "--data", str(data)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, cwd=servers.ROOT, check=False)


def one_clear_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error a user sees: one line that starts with our name, and an exit code that says so."""
    assert done.returncode not in (0, None), done.stdout
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("tizhuang: ")
    return lines[0]


def test_demo_shows_a_ticket_within_20_seconds(data: Path) -> None:
    started = now_ms()
    with servers.tizhuang(DEMO, data=data) as demo:
        run_file = data / "run.json"
        facts = json.loads(run_file.read_text())
        assert stat.S_IMODE(run_file.stat().st_mode) == 0o600
        assert facts["pid"] == demo.child.pid
        assert facts["mqtt"].startswith("mqtt://127.0.0.1:")
        api = Api(demo.http)
        servers.wait_until("a first ticket", lambda: api.items("/api/v1/tickets"), timeout_s=20)
        assert api.items("/api/v1/tickets")[0]["created"] - started < 20_000
        assert len(api.items("/api/v1/devices")) == 16
        counts = api.get("/api/v1/stats")
        assert counts["quarantined"] == 0
        assert counts["unknown_fields"] == 0
        pressed = time.monotonic()
        demo.child.send_signal(signal.SIGINT)
        assert demo.child.wait(10) == 0
        assert time.monotonic() - pressed < 3
        assert not run_file.exists()


def test_demo_ends_by_itself_with_zero(data: Path) -> None:
    done = run([*DEMO, "--for", "3"], data)
    assert done.returncode == 0, done.stderr


def test_no_child_outlives_kill_9(data: Path) -> None:
    with servers.tizhuang(DEMO, data=data) as demo:
        facts = json.loads((data / "run.json").read_text())
        broker_port = int(facts["mqtt"].rsplit(":", 1)[1])
        children = _children(demo.child.pid)
        assert len(children) == 2, "broker and simulators"
        demo.kill()
        servers.wait_until("children gone", lambda: not any(_alive(child) for child in children), timeout_s=5)
        assert not servers.answers(broker_port)


def test_a_stream_does_not_hold_up_ctrl_c(data: Path, mosquitto: servers.Mosquitto) -> None:
    with (
        serving(mosquitto, data) as (service, _),
        httpx.stream("GET", f"{service.http}/api/v1/live", timeout=10) as live,
    ):
        assert live.status_code == 200
        pressed = time.monotonic()
        service.child.send_signal(signal.SIGINT)
        assert service.child.wait(10) == 0
        assert time.monotonic() - pressed < 3


@pytest.mark.parametrize("option", ["--http-port", "--mqtt-port"])
def test_port_in_use_is_one_line(data: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = one_clear_line(run(["demo", "--http-port", "0", "--mqtt-port", "0", option, port], data))
    assert port in line
    assert option in line


def test_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    assert "cannot be written" in one_clear_line(run(DEMO, tmp_path / "file" / "data"))


def test_folder_in_use_is_one_line(data: Path, mosquitto: servers.Mosquitto) -> None:
    with serving(mosquitto, data) as (service, _):
        assert str(service.child.pid) in one_clear_line(run(DEMO, data))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("DROP TABLE alembic_version", "an older version"),
        ("UPDATE alembic_version SET version_num = '9999'", "a newer version"),
    ],
)
def test_folder_of_another_version_is_refused_unchanged(data: Path, change: str, told: str) -> None:
    assert run([*DEMO, "--for", "0"], data).returncode == 0
    records = data / "records.sqlite"
    with closing(sqlite3.connect(records, isolation_level=None)) as connection:
        connection.execute(change)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = records.read_bytes()
    assert told in one_clear_line(run(DEMO, data))
    assert records.read_bytes() == before


def test_migrate_keeps_a_copy(data: Path) -> None:
    assert run([*DEMO, "--for", "0"], data).returncode == 0
    done = run(["migrate"], data)
    assert done.returncode == 0, done.stderr
    (copy,) = data.glob("records.sqlite.*.bak")
    assert copy.name in done.stdout


def test_serve_without_a_broker_says_which_setting(data: Path) -> None:
    assert "mqtt.url" in one_clear_line(run(["serve"], data))


def test_unknown_preset_and_fault_are_one_line(data: Path) -> None:
    assert "nowhere" in one_clear_line(run([*DEMO, "--preset", "nowhere"], data))
    assert "catfight" in one_clear_line(run([*DEMO, "--fault", "catfight@3s"], data))


def test_a_restart_of_the_broker_loses_nothing(tmp_path: Path, data: Path) -> None:
    """The broker goes down and comes back with its persistent session; the service finds it again by itself."""
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    recording = Recording("entrapment")
    end = now_ms()
    with servers.mosquitto(folder, persistence=True) as broker:
        port = broker.port
        with serving(broker, data) as (_, api):
            recording.play(broker, end, stop=11)
            api.wait_until_settled(11)
            broker.child.terminate()
            broker.child.wait()
            servers.wait_until("noticed", lambda: not api.get("/api/v1/stats")["connected"])
            with servers.mosquitto(folder, port=port, persistence=True) as again:
                recording.play(again, end, start=11)
                api.wait_for_ticket("fenghe.lift-07")


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
