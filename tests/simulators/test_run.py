import json
import shutil
import socket
import subprocess
import threading
from collections import defaultdict

import pytest

from core.errors import SettingsError
from core.mqtt import broker, client
from core.settings import Mqtt
from simulators import presets
from simulators.fleet import Fleet
from simulators.plan import parse
from simulators.run import run, simulate

WAIT_S = 20
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/sbin")


class Mosquitto:
    """A real broker on a loopback port that keeps its sessions over a restart."""

    def __init__(self, folder):
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\n"
            f"persistence true\npersistence_location {folder}/\n"
        )
        self.settings = Mqtt(url=f"mqtt://127.0.0.1:{self.port}", prefix="p/01")
        self.start()

    def start(self):
        command = [MOSQUITTO, "-c", str(self.folder / "mosquitto.conf")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "running" in line:
                return
        raise AssertionError("mosquitto did not start")

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=WAIT_S)


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


@pytest.fixture
def mosquitto(tmp_path):
    if MOSQUITTO is None:
        pytest.skip("mosquitto is not installed")
    server = Mosquitto(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def subscriber(mosquitto):
    hearing = Subscriber(mosquitto.settings)
    yield hearing
    hearing.stop()


def goodbyes(heard):
    return sum(topic.endswith("status") and not said["online"] for topic, said in heard)


@pytest.mark.real("mosquitto")
def test_a_fleet_is_heard_and_says_goodbye(mosquitto, subscriber):
    fleet = Fleet(presets.get("demo"), seed=1, speed=20, faults=[parse("smoke@500ms")])
    tally = run(mosquitto.settings, fleet, threading.Event(), for_s=1.5)
    subscriber.wait_for(lambda heard: goodbyes(heard) == 16)
    assert tally.published == tally.acknowledged == len(subscriber.heard)
    assert all(topic.startswith("p/01/tizhuang/v1/fenghe/") for topic, _ in subscriber.heard)
    assert [said["code"] for topic, said in subscriber.heard if topic.endswith("event")] == ["alarm-4"]


@pytest.mark.real("mosquitto")
def test_a_broker_that_goes_away_costs_no_message(mosquitto, subscriber):
    stop, notices = threading.Event(), []
    fleet = Fleet(presets.get("demo"), seed=1, speed=20)
    runner = threading.Thread(target=run, args=(mosquitto.settings, fleet, stop), kwargs={"notice": notices.append})
    runner.start()
    try:
        subscriber.wait_for(lambda heard: len(heard) > 50)
        mosquitto.stop()
        mosquitto.start()
        before = len(subscriber.heard)
        subscriber.wait_for(lambda heard: len(heard) > before + 100)
    finally:
        stop.set()
        runner.join(WAIT_S)
    subscriber.wait_for(lambda heard: goodbyes(heard) >= 16)
    seqs = defaultdict(set)
    for topic, said in subscriber.heard:
        seqs[topic.split("/")[-2]].add(said["seq"])
    assert all(seen == set(range(1, max(seen) + 1)) for seen in seqs.values())
    assert len(notices) == 2
    assert "trying again" in notices[0]
    assert "connected" in notices[1]


@pytest.mark.real("mosquitto")
def test_simulate_says_what_it_does(mosquitto, subscriber, capsys):
    stop = threading.Event()
    stop.set()
    simulate(mosquitto.settings, "shenhui", seed=1, speed=1, faults=["overheat@30s:pile-02/4"], for_s=None, stop=stop)
    told = capsys.readouterr().err
    assert told == (
        f"simulating shenhui: 4 lifts, 2 charging piles -> 127.0.0.1:{mosquitto.port}; "
        "faults: overheat on shenhui.pile-02/4 at 30 s\n"
    )


def test_no_broker_at_all_is_said_once_and_ends_in_time():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        settings = Mqtt(url=f"mqtt://127.0.0.1:{nobody.getsockname()[1]}")
        notices = []
        tally = run(settings, Fleet(presets.get("demo"), seed=1), threading.Event(), for_s=1.2, notice=notices.append)
    assert tally == (0, 0)
    assert len(notices) == 1


def test_faults_are_understood_before_anything_is_connected():
    with pytest.raises(SettingsError, match="unknown fault 'fire'"):
        simulate(
            Mqtt(url="mqtt://127.0.0.1:1"),
            "demo",
            seed=1,
            speed=1,
            faults=["fire@1m"],
            for_s=1,
            stop=threading.Event(),
        )
