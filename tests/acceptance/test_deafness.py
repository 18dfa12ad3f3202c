"""What must not happen to others because of us: a stuck database, a second start, a stop while somebody waits."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests import servers
from tests.acceptance.conftest import Recording, now_ms, records_locked, serving


def test_a_failed_second_start_takes_nothing_from_the_running_service(
    mosquitto: servers.Mosquitto, data: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    with serving(mosquitto, data) as (_, api), socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, str(servers.ROOT / "tizhuang.py"), "serve", "--mqtt-url", mosquitto.url]
        command += ["--http-port", port, "--data", str(other)]
        for _ in range(2):
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert done.returncode == 1
            assert "--http-port" in done.stderr
        Recording("entrapment").play(mosquitto, now_ms())
        api.wait_for_ticket("fenghe.lift-07")
        assert "New connection" in mosquitto.log.read_text()
        assert mosquitto.log.read_text().count("as tizhuang-ingest") == 1, "nobody else used our session"


def test_ctrl_c_while_the_records_are_stuck(mosquitto: servers.Mosquitto, data: Path) -> None:
    """A person waits for a ticket action, the worker for its transaction: the stop waits for neither for long."""
    recording = Recording("entrapment")
    with serving(mosquitto, data) as (service, api):
        recording.play(mosquitto, now_ms())
        number = api.wait_for_ticket("fenghe.lift-07")["id"]
        with records_locked(data), ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(api.act, number, "dispatch")
            mosquitto.publish("tizhuang/v1/fenghe/elevator/lift-09/telemetry", f'{{"ts": {now_ms()}, "moving": true}}')
            servers.wait_until("worker held up", lambda: api.get("/api/v1/stats")["blocked_by"])
            answer = waiting.result()
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
            assert httpx.get(f"{service.http}/readyz").status_code == 503
            pressed = time.monotonic()
            service.child.send_signal(signal.SIGINT)
            assert service.child.wait(10) == 0
            assert time.monotonic() - pressed < 3
    with serving(mosquitto, data) as (_, api):
        servers.wait_until("nothing was lost", lambda: api.items("/api/v1/devices", site="fenghe")[1:])


RULES = """
kind: elevator
rules:
  - {id: silent, group: offline, severity: P4, title: {zh: 无数据, en: silent}, silence: 5s, close: telemetry}
"""


def test_a_stopped_process_calls_nobody_silent_who_went_on_talking(
    mosquitto: servers.Mosquitto, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped for longer than the rule's limit. Afterwards the one that really fell silent is found, the other not."""
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "elevator.yaml").write_text(RULES, encoding="utf-8")
    monkeypatch.setenv("TIZHUANG_ALERTS__RULES", str(tmp_path / "rules"))

    def talk() -> None:
        mosquitto.publish("tizhuang/v1/here/elevator/talks/telemetry", f'{{"ts": {now_ms()}, "moving": true}}')

    with serving(mosquitto, data) as (service, api):
        mosquitto.publish("tizhuang/v1/here/elevator/mute/telemetry", f'{{"ts": {now_ms()}, "moving": true}}')
        talk()
        api.wait_until_settled(2)
        service.child.send_signal(signal.SIGSTOP)
        stopped = time.monotonic()

        def long_enough() -> bool:
            talk()
            return time.monotonic() - stopped > 8

        servers.wait_until("stopped for longer than the limit", long_enough)
        service.child.send_signal(signal.SIGCONT)

        def found() -> bool:
            talk()
            return bool(api.items("/api/v1/incidents", device="here.mute"))

        servers.wait_until("the silent one found", found, timeout_s=25)
        assert api.items("/api/v1/incidents", device="here.talks") == []
