"""`tizhuang doctor` against real Mosquittos: good ones, default ones and wrong ones; and what it leaves behind."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import pytest

from core.doctor import NOT_CHECKED, NOTHING_LOST, SOMETHING_LOST, Finding, Level, exit_code
from core.settings import Mqtt
from ingest.broker import embedded_broker
from ingest.doctor import check_broker
from ingest.probe import Probe, Space
from tests import brokers
from tests.brokers import ROOMY, configured, ended
from tests.conftest import require
from tests.servers import Mosquitto, free_port, wait_until

MANY = 1_500
"""More than Mosquitto keeps by default."""

OPEN = "allow_anonymous true"
OUR_RIGHTS = ("user us", "topic read tizhuang/v1/#", "topic readwrite tizhuang/v1/+/alerts/+")
PROBES = "topic readwrite tizhuang-doctor/#"
SYS = "topic read $SYS/#"
DEVICES = "pattern readwrite tizhuang/v1/+/+/%u/#"

pytestmark = pytest.mark.real("mosquitto")


@pytest.fixture(autouse=True)
def _server() -> None:
    require("mosquitto")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Doctor:
    """What one run found, by check."""

    def __init__(
        self,
        url: str | Mqtt,
        folder: Path,
        *,
        keep_mark: bool = False,
        until: str = "",
        messages: int = 30,
        tell: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`until`: as if interrupted after this check."""
        settings = Mqtt(url=url) if isinstance(url, str) else url
        found = check_broker(settings, folder=folder, keep_mark=keep_mark, now=now_ms, tell=tell, messages=messages)
        assert isinstance(found, Generator)
        self.findings: list[Finding] = []
        with closing(found):
            for one in found:
                self.findings.append(one)
                if one.check == f"broker.{until}":
                    break
        self.by_check = {one.check: one for one in self.findings}

    def __getitem__(self, check: str) -> Finding:
        return self.by_check[f"broker.{check}"]

    def levels(self) -> dict[str, str]:
        return {check.removeprefix("broker."): str(one.level) for check, one in self.by_check.items()}

    @property
    def exit_code(self) -> int:
        return exit_code(self.findings)


def with_password(broker: Mosquitto, user: str = "us", password: str = "secret") -> str:
    return f"mqtt://{user}:{password}@127.0.0.1:{broker.port}"


def guarded(folder: Path, *rights: str) -> tuple[str, ...]:
    """Passwords for us, and an access list."""
    return "allow_anonymous false", brokers.passwords(folder, us="secret"), brokers.access(folder, *rights)


def test_a_broker_as_it_should_be_loses_nothing_and_nothing_is_left_on_it(tmp_path: Path):
    folder = tmp_path / "broker"
    rights = guarded(folder, *OUR_RIGHTS, PROBES, SYS, DEVICES)
    with configured(folder, *ROOMY, *rights, brokers.persistence(folder)) as broker:
        doctor = Doctor(with_password(broker), tmp_path / "data", messages=MANY)
        ended(broker)
    assert doctor.levels() == {
        "reach": "ok",
        "tls": "ok",
        "read": "ok",
        "size": "ok",
        "retained": "ok",
        "will": "ok",
        "session": "ok",
        "queue": "ok",
        "in_flight": "ok",
        "restart": "unknown",
        "alerts": "ok",
        "own": "ok",
        "intruder": "ok",
    }
    assert "Mosquitto 2" in doctor["reach"].found
    assert "as user 'us'" in doctor["reach"].found
    assert "500 sent" in doctor["in_flight"].found
    assert doctor.exit_code == NOTHING_LOST
    assert not (tmp_path / "data").exists()
    assert b"tizhuang" not in brokers.kept(folder)


def test_the_defaults_of_mosquitto_lose_what_comes_while_we_are_away(tmp_path: Path):
    with configured(tmp_path / "broker", OPEN) as broker:
        doctor = Doctor(broker.url, tmp_path, messages=MANY)
    assert doctor["queue"].level is Level.LOST
    assert f"1000 of {MANY} messages" in doctor["queue"].found
    assert "max_queued_messages" in doctor["queue"].mend
    assert doctor["in_flight"].level is Level.WARNING
    assert "after 20 messages" in doctor["in_flight"].found
    assert "max_inflight_messages" in doctor["in_flight"].mend
    assert doctor["intruder"].level is Level.WARNING  # the broker is on this machine
    for deed in ("publish as any device", "read what devices", "take our client id"):
        assert deed in doctor["intruder"].found
    assert doctor.exit_code == SOMETHING_LOST


def test_a_queue_bounded_in_bytes_and_messages_that_are_too_large(tmp_path: Path):
    with configured(tmp_path / "broker", OPEN, *ROOMY, "max_queued_bytes 2000", "message_size_limit 1000") as broker:
        doctor = Doctor(broker.url, tmp_path, until="queue")
    assert doctor["queue"].level is Level.LOST
    assert "max_queued_bytes" in doctor["queue"].mend
    assert doctor["size"].level is Level.LOST
    assert "acknowledges it" in doctor["size"].found


def test_a_broker_that_cuts_devices_off(tmp_path: Path):
    with configured(tmp_path / "broker", OPEN, *ROOMY, "retain_available false", "max_packet_size 2000") as broker:
        doctor = Doctor(broker.url, tmp_path, until="retained")
    assert doctor["size"].level is Level.LOST
    assert "the device with it" in doctor["size"].found
    assert doctor["retained"].level is Level.LOST
    assert "retain_available" in doctor["retained"].mend


def test_a_session_that_does_not_survive(tmp_path: Path):
    with configured(tmp_path / "broker", OPEN, *ROOMY) as broker:
        settings = Mqtt(url=broker.url)
        me = Space.of(settings, tmp_path).client("a")

        def clear(told: str) -> None:
            if told.startswith("coming back"):
                Probe(settings, me).close()

        doctor = Doctor(settings, tmp_path, tell=clear)
    assert doctor["session"].level is Level.LOST
    assert "all 30 messages" in doctor["session"].found


def test_what_a_killed_doctor_left_is_removed_by_the_next_one(tmp_path: Path):
    folder = tmp_path / "broker"
    with configured(folder, OPEN, *ROOMY, brokers.persistence(folder)) as broker:
        settings = Mqtt(url=broker.url)
        space = Space.of(settings, tmp_path)
        with Probe(settings, space.client("a"), clean=False) as probe:
            probe.subscribe(space.topic("away"))
        with Probe(settings, space.client("s")) as probe:
            probe.publish(space.topic("retained"), b"kept", retain=True)
            probe.publish(space.topic("away"), b"left")
        doctor = Doctor(settings, tmp_path, until="queue")
        ended(broker)
    assert doctor["queue"].level is Level.OK
    assert b"tizhuang" not in brokers.kept(folder)


def test_an_operator_who_loses_patience_leaves_nothing_behind(tmp_path: Path):
    def interrupt(told: str) -> None:
        if told.startswith("coming back"):
            raise KeyboardInterrupt

    folder = tmp_path / "broker"
    with configured(folder, OPEN, *ROOMY, brokers.persistence(folder)) as broker:
        with pytest.raises(KeyboardInterrupt):
            Doctor(broker.url, tmp_path, tell=interrupt)
        ended(broker)
    assert b"tizhuang" not in brokers.kept(folder)


def test_the_broker_of_the_demo_can_be_asked_too(tmp_path: Path):
    """It ends connections that ask for $SYS, and now and then those of a client id that has just gone."""
    with embedded_broker(0) as port:
        doctor = Doctor(f"mqtt://127.0.0.1:{port}", tmp_path)
    assert "does not tell its name" in doctor["reach"].found
    assert {"broker.queue", "broker.intruder"} <= doctor.by_check.keys()
    assert doctor.exit_code != NOT_CHECKED


class TestRestart:
    def test_with_persistence_the_mark_survives(self, tmp_path: Path):
        folder, port = tmp_path / "broker", free_port()
        lines = (OPEN, *ROOMY, brokers.persistence(folder), "sys_interval 1")
        with configured(folder, *lines, port=port) as broker:
            wait_until("an uptime", lambda: _uptime(broker) >= 2)
            first = Doctor(broker.url, tmp_path, keep_mark=True)
            again = Doctor(broker.url, tmp_path, keep_mark=True)
            space = Space.of(Mqtt(url=broker.url), tmp_path)
            Probe(Mqtt(url=broker.url), space.client("m")).close()  # somebody clears the session
            cleared = Doctor(broker.url, tmp_path, keep_mark=True)
            ended(broker)
            # the session of the mark, and who published the messages in it
            assert set(_ids(brokers.kept(folder))) == {space.client("m").encode(), space.client("s").encode()}
        with configured(folder, *lines, port=port) as broker:
            after = Doctor(broker.url, tmp_path, keep_mark=False)
            ended(broker)
        assert first["restart"].level is Level.UNKNOWN
        assert "restart the broker" in first["restart"].mend
        assert again["restart"].level is Level.UNKNOWN
        assert "has not restarted since" in again["restart"].found
        assert cleared["restart"].level is Level.LOST
        assert "persistent_client_expiration" in cleared["restart"].mend
        assert after["restart"].level is Level.OK
        assert b"tizhuang" not in brokers.kept(folder)
        assert not (tmp_path / "doctor.json").exists()

    def test_without_persistence_everything_is_gone(self, tmp_path: Path):
        port = free_port()
        for expected in (Level.UNKNOWN, Level.LOST):
            with configured(tmp_path / "broker", OPEN, *ROOMY, "persistence false", port=port) as broker:
                doctor = Doctor(broker.url, tmp_path, keep_mark=True, until="alerts")
                assert doctor["restart"].level is expected
                ended(broker)
        assert "the session, the message that waited for it, the retained message" in doctor["restart"].found
        assert "persistence true" in doctor["restart"].mend

    def test_a_folder_that_cannot_remember(self, tmp_path: Path):
        folder = tmp_path / "broker"
        (tmp_path / "data").write_text("not a folder")
        with configured(folder, OPEN, *ROOMY, brokers.persistence(folder)) as broker:
            doctor = Doctor(broker.url, tmp_path / "data", keep_mark=True)
            ended(broker)
        assert doctor["restart"].level is Level.UNKNOWN
        assert "cannot be remembered" in doctor["restart"].found
        assert b"tizhuang" not in brokers.kept(folder)

    def test_the_mark_of_another_broker_says_nothing(self, tmp_path: Path):
        mark = {"broker": "elsewhere:1883", "nonce": "x", "left_ms": 1, "uptime_s": None}
        (tmp_path / "doctor.json").write_text(json.dumps(mark))
        with configured(tmp_path / "broker", OPEN, *ROOMY) as broker:
            doctor = Doctor(broker.url, tmp_path, keep_mark=True)
        assert doctor["restart"].level is Level.UNKNOWN


class TestAccess:
    def test_a_wrong_password_and_no_broker_at_all(self, tmp_path: Path):
        with configured(tmp_path / "broker", *guarded(tmp_path / "broker", PROBES)) as broker:
            wrong = Doctor(with_password(broker, password="wrong"), tmp_path)
        nobody = Doctor(f"mqtt://127.0.0.1:{free_port()}", tmp_path)
        for doctor, mend in ((wrong, "password"), (nobody, "is the broker running")):
            assert doctor.levels() == {"reach": "unknown"}
            assert mend in doctor["reach"].mend
            assert doctor.exit_code == NOT_CHECKED

    def test_without_a_topic_of_our_own_nothing_can_be_tried(self, tmp_path: Path):
        with configured(tmp_path / "broker", *guarded(tmp_path / "broker", *OUR_RIGHTS)) as broker:
            doctor = Doctor(with_password(broker), tmp_path)
        assert doctor["probe"].level is Level.UNKNOWN
        assert PROBES in doctor["probe"].mend
        assert doctor.exit_code == NOT_CHECKED

    def test_credentials_that_may_do_everything(self, tmp_path: Path):
        with configured(tmp_path / "broker", *ROOMY, *guarded(tmp_path / "broker", "user us", "topic #")) as broker:
            doctor = Doctor(with_password(broker), tmp_path)
        assert doctor["own"].level is Level.WARNING
        assert doctor["intruder"].level is Level.OK

    def test_credentials_that_may_not_even_see_incidents_or_a_last_will(self, tmp_path: Path):
        names = ("echo", "away", "size", "retained", "round-trip")
        writes = [f"topic write tizhuang-doctor/+/{name}" for name in names]
        rights = ("user us", "topic read tizhuang-doctor/#", *writes)
        with configured(tmp_path / "broker", *ROOMY, *guarded(tmp_path / "broker", *rights)) as broker:
            doctor = Doctor(with_password(broker), tmp_path)
        assert doctor["alerts"].level is Level.WARNING
        assert doctor["own"].level is Level.UNKNOWN
        assert doctor["will"].level is Level.LOST
        assert "last will" in doctor["will"].mend

    def test_strangers_who_may_read_only(self, tmp_path: Path):
        folder = tmp_path / "broker"
        rights = ("topic read tizhuang/v1/#", *OUR_RIGHTS, PROBES)
        lines = ("allow_anonymous true", *guarded(folder, *rights)[1:])
        with configured(folder, *ROOMY, *lines) as broker:
            doctor = Doctor(with_password(broker), tmp_path)
        assert doctor["intruder"].level is Level.WARNING
        assert "read what devices" in doctor["intruder"].found
        assert "publish" not in doctor["intruder"].found

    def test_a_broker_that_others_can_reach_lets_strangers_in(self, tmp_path: Path):
        address = _own_address()
        with configured(tmp_path / "broker", OPEN, *ROOMY, listen="0.0.0.0") as broker:
            doctor = Doctor(f"mqtt://{address}:{broker.port}", tmp_path)
        assert doctor["intruder"].level is Level.LOST
        assert doctor["tls"].level is Level.WARNING
        assert doctor.exit_code == SOMETHING_LOST

    def test_a_subscription_that_is_refused(self, tmp_path: Path):
        with configured(tmp_path / "broker", OPEN, *ROOMY, _dynamic_security(tmp_path)) as broker:
            doctor = Doctor(broker.url, tmp_path, until="queue")
        assert doctor["read"].level is Level.LOST
        assert "nothing that devices say" in doctor["read"].found
        assert doctor["queue"].level is Level.OK


class TestEncryption:
    @pytest.fixture(autouse=True)
    def _openssl(self) -> None:
        require("openssl")

    @pytest.mark.parametrize(("days", "level"), [(90, Level.OK), (5, Level.WARNING)])
    def test_a_certificate_and_its_last_day(self, tmp_path: Path, days: int, level: Level):
        folder = tmp_path / "broker"
        cert, lines = brokers.certificate(folder, days=days)
        with configured(folder, *guarded(folder, *OUR_RIGHTS, PROBES), lines) as broker:
            url = with_password(broker).replace("mqtt://", "mqtts://")
            doctor = Doctor(Mqtt(url=url, ca_file=cert), tmp_path, until="will")
            stranger = Doctor(url, tmp_path)
        assert doctor["tls"].level is level
        assert doctor["will"].level is Level.OK
        assert f"{days} days" in doctor["tls"].found
        assert stranger.exit_code == NOT_CHECKED
        assert "certificate is not to be trusted" in stranger["reach"].found
        assert "mqtt.ca_file" in stranger["reach"].mend


def _uptime(broker: Mosquitto) -> int:
    with Probe(Mqtt(url=broker.url), "uptime") as probe:
        probe.subscribe("$SYS/broker/uptime", qos=0)
        probe.wait_for(lambda: probe.received)
        return int(probe.received[0].payload.split()[0])


def _ids(database: bytes) -> list[bytes]:
    """Client ids of ours in what the broker keeps."""
    start = b"tizhuang-doctor-"
    return [start + rest[:7] for rest in database.split(start)[1:]]


def _own_address() -> str:
    """An address of this machine that is not the loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no network")
        return str(probe.getsockname()[0])


def _dynamic_security(folder: Path) -> str:
    """Mosquitto's access plug-in: unlike an access list it refuses a subscription outright."""
    found = [*Path("/usr/lib").glob("mosquitto_*.so"), *Path("/usr/lib").glob("*/mosquitto_dynamic_security.so")]
    if not found:
        pytest.skip("this Mosquitto has no dynamic security plug-in")
    allowed = {"acltype": "subscribePattern", "topic": "tizhuang-doctor/#", "priority": 0, "allow": True}
    config = {
        "defaultACLAccess": {
            "publishClientSend": True, "publishClientReceive": True, "subscribe": False, "unsubscribe": True,
        },
        "anonymousGroup": "strangers",
        "groups": [{"groupname": "strangers", "roles": [{"rolename": "probe"}]}],
        "roles": [{"rolename": "probe", "acls": [allowed]}],
        "clients": [],
    }  # fmt: skip
    path = folder / "dynamic-security.json"
    path.write_text(json.dumps(config))
    return f"plugin {found[0]}\nplugin_opt_config_file {path}"
