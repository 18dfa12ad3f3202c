"""The event stream: nothing missed and nothing twice across reconnects, values only of what is shown, and it ends."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from core.faults import Severity
from tests import servers
from tests.api import seed


class Told(NamedTuple):
    """One event as a browser would see it."""

    event: str
    id: str | None
    data: Any


@contextmanager
def listening(address: str, *, last_event_id: int | None = None, **query: Any) -> Iterator[Iterator[Told]]:
    headers = {} if last_event_id is None else {"last-event-id": str(last_event_id)}
    with httpx.stream("GET", f"{address}/api/v1/live", params=query, headers=headers, timeout=20) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield _events(answer)


def _events(answer: httpx.Response) -> Iterator[Told]:
    fields: dict[str, str] = {}
    for line in answer.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Told(fields["event"], fields.get("id"), json.loads(fields["data"]))
            fields = {}


def take(events: Iterator[Told], count: int) -> list[Told]:
    return [next(events) for _ in range(count)]


def test_changes_come_as_they_happen(home: seed.House, server: seed.Served) -> None:
    with listening(server.address) as events:
        assert take(events, 1) == [Told("hello", "0", {"last_id": 0})]
        ticket = home.raise_fault()
        report, _, dispatched = take(events, 3)
        assert (report.event, report.id, report.data["action"]) == ("ticket", "1", "report")
        assert dispatched.data["title"] == {"zh": "困人（层间）", "en": "Person trapped between floors"}
        assert {key: dispatched.data[key] for key in ("ticket", "state", "severity", "device")} == {
            "ticket": ticket,
            "state": "dispatched",
            "severity": "P0",
            "device": seed.LIFT,
        }


def test_reconnecting_misses_nothing_and_repeats_nothing(home: seed.House, server: seed.Served) -> None:
    """Connections are cut after every few events, while tickets keep coming."""
    total = 40
    stop = threading.Event()

    def write() -> None:
        for number in range(total):
            home.raise_fault(group=f"group-{number}", severity=Severity.P2)
            stop.wait(0.02)

    writer = threading.Thread(target=write)
    writer.start()
    got: list[int] = []
    cursor = 0
    while len(got) < total * 3:
        with listening(server.address, last_event_id=cursor) as events:
            assert next(events).data == {"last_id": cursor}
            for told in take(events, min(7, total * 3 - len(got))):
                cursor = int(told.id or "")
                got.append(cursor)
    writer.join()
    assert got == list(range(1, total * 3 + 1))


def test_a_stranger_to_this_database_starts_now(home: seed.House, server: seed.Served) -> None:
    home.raise_fault()
    for query in ({"last_event_id": 999}, {"last_id": 999}, {}):
        with listening(server.address, **query) as events:
            assert next(events).data == {"last_id": 3}
    with listening(server.address, last_event_id=2, last_id=0) as events:
        assert [told.id for told in take(events, 2)] == ["2", "3"]


def test_far_behind_catches_up_in_order(home: seed.House, server: seed.Served) -> None:
    """More changes than one read or the memory holds."""
    for number in range(450):
        home.raise_fault(group=f"group-{number}", severity=Severity.P2)
    with listening(server.address, last_id=0) as events:
        assert [told.id for told in take(events, 1_351)] == [str(number) for number in range(1_351)]


@pytest.mark.parametrize("device", ["fenghe", "+.x", "a.b/#", ",".join(f"a.d{number}" for number in range(301))])
def test_only_device_ids_become_subscriptions(calm: httpx.Client, device: str) -> None:
    answer = calm.get("/api/v1/live", params={"device": device})
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "query.device"


def test_open_streams_do_not_hold_up_the_end(home: seed.House) -> None:
    with seed.served(home.services) as server:
        opened = [listening(server.address) for _ in range(5)]
        streams = [one.__enter__() for one in opened]
        for events in streams:
            next(events)
        started = time.monotonic()
        server.app.state.stop_streams()
        for events in streams:
            assert list(events) == [], "the stream ends as a whole answer, not as a broken one"
        assert time.monotonic() - started < 1
        with listening(server.address) as late:
            assert [told.event for told in late] == ["hello"]
        for one in opened:
            one.__exit__(None, None, None)


def test_values_come_from_the_broker_for_devices_shown(tmp_path: Path, mosquitto: servers.Mosquitto) -> None:
    topic = "tizhuang/v1/fenghe/elevator/{}/telemetry"
    with seed.house(tmp_path, mqtt={"url": mosquitto.url}) as made, seed.served(made.services) as server:
        hub = server.app.state.live
        mosquitto.publish(topic.format("lift-01"), '{"ts": 1, "floor": 9}', retain=True)
        servers.wait_until("live client connected", lambda: hub.connected)
        with listening(server.address, device="fenghe.lift-01,fenghe.pile-01") as events:
            assert next(events).event == "hello"
            with repeating(lambda: say_things(mosquitto, topic, made.now)):
                told = next(events)
            assert (told.event, told.id, told.data["device"]) == ("values", None, "fenghe.lift-01")
            assert told.data["parts"][""] == {
                "floor": {"value": 4, "ts": made.now - 5},
                "door": {"value": "open", "ts": made.now - 5},
            }
        servers.wait_until("nobody watches any more", lambda: not hub._watch._pages and not hub._viewers)
        servers.wait_until("the poller has ended", lambda: hub.feed._poller is None)


def say_things(broker: servers.Mosquitto, topic: str, now: int) -> None:
    """What is not shown, what is no message, and what must arrive."""
    broker.publish(topic.format("lift-02"), f'{{"ts": {now}, "floor": 2}}')
    broker.publish(topic.format("lift-01"), "garbage")
    broker.publish(topic.format("lift-01"), f'{{"ts": {now - 5}, "floor": 4, "door": "open"}}')


@contextmanager
def repeating(say: Callable[[], None]) -> Iterator[None]:
    """Says it again and again: the subscription may stand a moment after the stream does."""
    stop = threading.Event()

    def repeat() -> None:
        while not stop.wait(0.1):
            say()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
