import json
import socket
import threading
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from core.errors import SettingsError
from core.mqtt import broker, client
from core.settings import Mqtt
from simulators import presets
from simulators.fleet import Fleet
from simulators.plan import parse
from simulators.run import run, simulate
from tests import servers
from tests.conftest import require

WAIT_S = 20


class Subscriber:
    """Hears everything, in a session that outlives the broker."""

    def __init__(self, settings):
        self.heard = []
        self.changed = threading.Condition()
        subscribed = threading.Event()
        self.client = client(settings, "test-subscriber", clean_session=False)
        self.client.on_connect = lambda c, *_: c.subscribe("#", qos=1)
        self.client.on_subscribe = lambda *_: subscribed.set()
        self.client.on_message = self.on_message
        self.client.connect(*broker(settings))
        self.client.loop_start()
        assert subscribed.wait(WAIT_S)

    def on_message(self, _client, _data, message):
        with self.changed:
            self.heard.append((message.topic, json.loads(message.payload)))
            self.changed.notify_all()

    def wait_for(self, condition):
        with self.changed:
            assert self.changed.wait_for(lambda: condition(self.heard), WAIT_S), len(self.heard)

    def stop(self):
        self.client.disconnect()
        self.client.loop_stop()


@contextmanager
def subscriber(settings):
    hearing = Subscriber(settings)
    try:
        yield hearing
    finally:
        hearing.stop()


def goodbyes(heard):
    return sum(topic.endswith("status") and not said["online"] for topic, said in heard)


def test_a_fleet_is_heard_and_says_goodbye(mosquitto):
    settings = Mqtt(url=mosquitto.url, prefix="p/01")
    fleet = Fleet(presets.get("demo"), seed=1, speed=20, faults=[parse("smoke@500ms")])
    with subscriber(settings) as hearing:
        tally = run(settings, fleet, threading.Event(), for_s=1.5)
        hearing.wait_for(lambda heard: goodbyes(heard) == 16)
    assert tally.published == tally.acknowledged == len(hearing.heard)
    assert all(topic.startswith("p/01/tizhuang/v1/fenghe/") for topic, _ in hearing.heard)
    assert [said["code"] for topic, said in hearing.heard if topic.endswith("event")] == ["alarm-4"]


def test_a_broker_that_goes_away_costs_no_message(tmp_path):
    require("mosquitto")
    port = servers.free_port()
    settings = Mqtt(url=f"mqtt://127.0.0.1:{port}")
    stop, notices = threading.Event(), list[str]()
    fleet = Fleet(presets.get("demo"), seed=1, speed=20)
    runner = threading.Thread(target=run, args=(settings, fleet, stop), kwargs={"notice": notices.append})
    with ExitStack() as stack:
        # Both brokers keep the subscriber's session in the same folder, so what was said meanwhile still reaches it.
        first = stack.enter_context(servers.mosquitto(tmp_path, port=port, persistence=True))
        hearing = stack.enter_context(subscriber(settings))
        runner.start()
        stack.callback(stop.set)
        hearing.wait_for(lambda heard: len(heard) > 50)
        first.child.terminate()
        first.child.wait(WAIT_S)
        stack.enter_context(servers.mosquitto(tmp_path, port=port, persistence=True))
        before = len(hearing.heard)
        hearing.wait_for(lambda heard: len(heard) > before + 100)
        stop.set()
        runner.join(WAIT_S)
        hearing.wait_for(lambda heard: goodbyes(heard) >= 16)
    seqs = defaultdict(set)
    for topic, said in hearing.heard:
        seqs[topic.split("/")[-2]].add(said["seq"])
    assert all(seen == set(range(1, max(seen) + 1)) for seen in seqs.values())
    assert len(notices) == 2
    assert "trying again" in notices[0]
    assert "connected" in notices[1]


def test_simulate_says_what_it_does(mosquitto, capsys):
    stop = threading.Event()
    stop.set()
    options: dict[str, Any] = {"seed": 1, "speed": 1, "for_s": None, "stop": stop}
    simulate(Mqtt(url=mosquitto.url), "shenhui", faults=["overheat@30s:pile-02/4"], **options)
    told = capsys.readouterr().err
    assert told == (
        f"simulating shenhui: 4 lifts, 2 charging piles -> 127.0.0.1:{mosquitto.port}; "
        "faults: overheat on shenhui.pile-02/4 at 30 s\n"
    )


def test_no_broker_at_all_is_said_once_and_ends_in_time():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = Mqtt(url=f"mqtt://127.0.0.1:{nobody.getsockname()[1]}")
        notices = list[str]()
        tally = run(settings, Fleet(presets.get("demo"), seed=1), threading.Event(), for_s=1.2, notice=notices.append)
    assert tally == (0, 0)
    assert len(notices) == 1


def test_faults_are_understood_before_anything_is_connected():
    options: dict[str, Any] = {"seed": 1, "speed": 1, "for_s": 1, "stop": threading.Event()}
    with pytest.raises(SettingsError, match="unknown fault 'fire'"):
        simulate(Mqtt(url="mqtt://127.0.0.1:1"), "demo", faults=["fire@1m"], **options)
