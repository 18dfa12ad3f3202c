"""The subscription against a real Mosquitto: nothing is lost, and nothing acknowledged that is not ours to."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from core import mqtt
from core.errors import TizhuangError
from core.settings import Mqtt
from ingest.subscription import Delivery, Inbox, Subscription
from tests import brokers, servers
from tests.conftest import require
from tests.proxy import proxy
from tests.servers import Mosquitto, free_port, wait_until

TOPIC = "tizhuang/v1/here/elevator/lift/telemetry"
CLOSE_WITHIN_S = 2.0


class Taker:
    """A subscription and all that was taken from it."""

    def __init__(self, url: str, max_waiting: int = 1_000) -> None:
        self.connections: list[bool] = []
        self.taken: list[Delivery] = []
        self.source = Subscription(
            Mqtt(url=url), now=lambda: 7, on_connection=self.connections.append, max_waiting=max_waiting
        )

    def take(self, count: int, *, ack: bool = False, timeout_s: float = 20) -> list[Delivery]:
        """Exactly so many messages, then proof that no further one is on its way."""
        got: list[Delivery] = []

        def enough() -> bool:
            more = self.source.take(count - len(got), wait_s=0.05, linger_s=0.02)
            got.extend(more)
            if ack:
                self.source.ack(more)
            return len(got) >= count

        wait_until(f"{count} messages", enough, timeout_s=timeout_s)
        self.taken += got
        return got

    def nothing_more(self) -> bool:
        return not self.source.take(1, wait_s=0.3, linger_s=0)


@contextmanager
def subscribed(url: str, max_waiting: int = 1_000) -> Iterator[Taker]:
    taker = Taker(url, max_waiting)
    taker.source.start()
    try:
        wait_until("connected", lambda: taker.source.connected)
        yield taker
    finally:
        taker.source.close()


def payloads(deliveries: list[Delivery]) -> list[int]:
    return [int(one.payload) for one in deliveries]


def publish(broker: Mosquitto, numbers: range, topic: str = TOPIC) -> None:
    broker.publish_lines(topic, [str(number) for number in numbers])


def test_a_message_arrives_with_all_that_is_known_of_it(mosquitto: Mosquitto):
    mosquitto.publish(TOPIC, b"\x00\xff", retain=True)
    with subscribed(mosquitto.url) as taker:
        (kept,) = taker.take(1)
        mosquitto.publish(TOPIC, b"live")
        (live,) = taker.take(1)
    assert (kept.topic, kept.payload, kept.rx, kept.retained, kept.repeated, kept.qos) == (
        TOPIC, b"\x00\xff", 7, True, False, 1,
    )  # fmt: skip
    assert (live.payload, live.retained) == (b"live", False)
    assert taker.connections == [True, False]


def test_malformed_topics_reach_us_too_and_our_own_alerts_do_not(mosquitto: Mosquitto):
    with subscribed(mosquitto.url) as taker:
        for topic in ("tizhuang/v1/here/alerts/7", "tizhuang/v1/here", "tizhuang/v2/a/b/c/d"):
            mosquitto.publish(topic, "0")
        for topic in ("tizhuang/v1/HERE/rocket/x.y/telemetry", f"{TOPIC}/deeper/still", "tizhuang/v1////"):
            mosquitto.publish(topic, "1")
        assert payloads(taker.take(3)) == [1, 1, 1]
        assert taker.nothing_more()


def test_unacknowledged_messages_come_back_and_acknowledged_ones_do_not(mosquitto: Mosquitto):
    with proxy(mosquitto.port) as cable, subscribed(cable.url) as taker:
        publish(mosquitto, range(10))
        first = taker.take(10)
        assert taker.source.ack(first[:5]) == 5
        publish(mosquitto, range(10, 11))
        taker.take(1)  # the broker answers in order, so the acknowledgements before it have arrived
        wait_until("acknowledged", lambda: taker.source.ack([]) == 0 and taker.nothing_more())
        cable.cut()
        again = taker.take(6)
        assert payloads(again) == [5, 6, 7, 8, 9, 10]
        assert all(one.repeated for one in again)
        assert taker.nothing_more()
        assert taker.source.ack(again) == 6
        assert taker.connections == [True, False, True]
    with subscribed(mosquitto.url) as taker:
        assert taker.nothing_more()


def test_an_acknowledgement_of_an_older_connection_is_not_sent(mosquitto: Mosquitto):
    with proxy(mosquitto.port) as cable, subscribed(cable.url) as taker:
        publish(mosquitto, range(3))
        old = taker.take(3)
        cable.cut()
        fresh = taker.take(3)
        assert {one.mid for one in old} & {one.mid for one in fresh}, "the same numbers, on another connection"
        assert taker.source.ack(old) == 0
        assert taker.nothing_more()
        cable.cut()
        assert payloads(taker.take(3)) == [0, 1, 2], "they are still unacknowledged"


def test_a_process_that_died_gets_its_messages_in_its_next_life(mosquitto: Mosquitto):
    with subscribed(mosquitto.url) as taker:
        publish(mosquitto, range(5))
        taker.source.ack(taker.take(5)[:2])
    publish(mosquitto, range(5, 8))
    with subscribed(mosquitto.url) as taker:
        assert payloads(taker.take(6, ack=True)) == [2, 3, 4, 5, 6, 7]
        assert taker.nothing_more()


def test_a_full_queue_holds_the_broker_back_and_loses_nothing(mosquitto: Mosquitto):
    with subscribed(mosquitto.url, max_waiting=10) as taker:
        publish(mosquitto, range(600))
        wait_until("full", lambda: taker.source.received == 10)
        publish(mosquitto, range(600, 700))
        assert taker.source.received == 10, "read on while nobody took"
        assert payloads(taker.take(700, ack=True)) == list(range(700))
        assert taker.nothing_more()


def test_a_message_of_megabytes_comes_cut_and_holds_nothing_up(mosquitto: Mosquitto):
    """Were the connection ended instead, the broker would send the message again on the next one, for ever."""
    with subscribed(mosquitto.url) as taker:
        mosquitto.publish(TOPIC, b"1" * 5_000_000)
        publish(mosquitto, range(3))
        huge, *small = taker.take(4)
        assert 65_536 < len(huge.payload) < 1_100_000
        assert payloads(small) == [0, 1, 2]
        assert taker.source.ack([huge, *small]) == 4
        assert taker.nothing_more()
        assert taker.connections == [True]


def test_over_tls_large_and_small_messages_come_whole_and_are_acknowledged(tmp_path: Path):
    """TLS hands over its records at its own pace: what it still holds must not wait for the next one."""
    require("mosquitto")
    require("openssl")
    folder = tmp_path / "broker"
    cert, lines = brokers.certificate(folder, days=30)
    with brokers.configured(folder, "allow_anonymous true", "max_inflight_messages 500", lines) as broker:
        settings = Mqtt(url=broker.url.replace("mqtt://", "mqtts://"), ca_file=cert)
        source = Subscription(settings, now=lambda: 7, on_connection=lambda _: None)
        sender = mqtt.client(settings)
        sender.connect("127.0.0.1", broker.port)
        sender.loop_start()
        source.start()
        try:
            wait_until("connected", lambda: source.connected)
            sent = [bytes([number % 256]) * (60_000 if number % 50 == 0 else 30) for number in range(600)]
            for payload in sent:
                sender.publish(TOPIC, payload, qos=1)
            got: list[bytes] = []

            def all_came() -> bool:
                taken = source.take(100, wait_s=0.05, linger_s=0.02)
                assert source.ack(taken) == len(taken)
                got.extend(one.payload for one in taken)
                return len(got) >= len(sent)

            wait_until("all", all_came)
            assert got == sent
        finally:
            source.close()
            sender.disconnect()
            sender.loop_stop()


def test_a_broker_that_comes_later(tmp_path: Path):
    require("mosquitto")
    port = free_port()
    taker = Taker(f"mqtt://127.0.0.1:{port}")
    taker.source.start()
    try:
        assert not taker.source.connected
        with servers.mosquitto(tmp_path, port=port) as broker:
            wait_until("connected", lambda: taker.source.connected)
            publish(broker, range(2))
            assert payloads(taker.take(2, ack=True)) == [0, 1]
        wait_until("lost", lambda: taker.connections == [True, False])
        folder = tmp_path / "again"
        folder.mkdir()
        with servers.mosquitto(folder, port=port) as broker:  # an empty one: it knows no session of ours
            wait_until("connected again", lambda: taker.source.connected)
            publish(broker, range(2, 4))
            assert payloads(taker.take(2, ack=True)) == [2, 3]
    finally:
        taker.source.close()
    assert taker.connections == [True, False, True, False]


def test_a_refused_subscription_is_not_called_connected():
    """A broker that lets us in but not listen. By hand, because Mosquitto's access file accepts every subscription."""
    attempts = []

    def refuse(server: socket.socket) -> None:
        while True:
            try:
                line, _ = server.accept()
            except OSError:
                return
            with line:
                line.recv(1_000)  # CONNECT
                line.sendall(b"\x20\x02\x00\x00")
                subscribe = line.recv(1_000)
                line.sendall(b"\x90\x03" + subscribe[2:4] + b"\x80")
                attempts.append(subscribe)
                line.recv(1_000)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse, args=(server,))
        thread.start()
        taker = Taker(f"mqtt://127.0.0.1:{server.getsockname()[1]}")
        taker.source.start()
        wait_until("tried again", lambda: len(attempts) >= 2)
        closes_in_time(taker.source)
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert not thread.is_alive(), "a connection was left open"
    assert taker.connections == []


# --- the inbox --------------------------------------------------------------------------------------------------------


def delivery(number: int, channel: str = "telemetry") -> Delivery:
    topic = f"tizhuang/v1/here/elevator/lift/{channel}"
    return Delivery(topic, str(number).encode(), 7, False, False, number, 1, 1)


@contextmanager
def taking(inbox: Inbox, at_most: int = 500) -> Iterator[list[list[Delivery]]]:
    """Somebody who takes one batch and would linger for hours; the batch, when it is closed."""
    taken: list[list[Delivery]] = []
    thread = threading.Thread(
        target=lambda: taken.append(inbox.take(at_most, wait_s=3_600, linger_s=3_600)), daemon=True
    )
    thread.start()
    yield taken
    thread.join(10)


def test_an_event_closes_the_batch_at_once():
    inbox = Inbox(1_000, idle_gap_s=3_600)
    with taking(inbox) as taken:
        inbox.put([delivery(1, "event")])
    assert list(map(payloads, taken)) == [[1]]


def test_an_event_takes_along_what_waited_for_company():
    inbox = Inbox(1_000, idle_gap_s=3_600)
    with taking(inbox) as taken:
        inbox.put([delivery(1)])
        inbox.put([delivery(2), delivery(3, "event"), delivery(4)])
    assert list(map(payloads, taken)) == [[1, 2, 3, 4]]


def test_an_event_that_did_not_fit_closes_the_next_batch_and_no_other():
    inbox = Inbox(1_000, idle_gap_s=3_600)
    inbox.put([*map(delivery, range(5)), delivery(5, "event")])
    with taking(inbox, 5) as taken:
        pass
    assert list(map(payloads, taken)) == [[0, 1, 2, 3, 4]]
    with taking(inbox) as taken:
        pass
    assert list(map(payloads, taken)) == [[5]]
    assert inbox._urgent == 0
    with taking(inbox, 3) as taken:  # nobody is urgent any more: it lingers until it has its three
        inbox.put([delivery(6)])
        inbox.put([delivery(7)])
        inbox.put([delivery(8)])
    assert list(map(payloads, taken)) == [[6, 7, 8]]


# --- a thread that dies -----------------------------------------------------------------------------------------------


class Mistake(Exception):
    """A bug of ours."""


def mistaken() -> int:
    raise Mistake


def deaf_to_all(connected: bool) -> None:
    raise Mistake


def unlucky(connected: bool) -> None:
    if not connected:
        raise Mistake


@pytest.mark.parametrize("where", ["paho's callback", "taking in", "session"])
def test_a_thread_that_dies_is_noticed(mosquitto: Mosquitto, where: str):
    now = mistaken if where == "taking in" else lambda: 7
    on_connection = {"paho's callback": deaf_to_all, "session": unlucky, "taking in": lambda _: None}[where]
    with proxy(mosquitto.port) as cable:
        source = Subscription(Mqtt(url=cable.url), now=now, on_connection=on_connection)
        source.start()
        try:
            if where != "paho's callback":
                wait_until("connected", lambda: source.connected)
            if where == "taking in":
                mosquitto.publish(TOPIC, "1")
            if where == "session":
                cable.cut()
            with pytest.raises(TizhuangError) as caught:
                source.watch(threading.Event())
            assert isinstance(caught.value.__cause__, Mistake)
            wait_until("not called connected", lambda: not source.connected)
        finally:
            source.close()


def test_watching_ends_when_told_to(mosquitto: Mosquitto):
    stop = threading.Event()
    with subscribed(mosquitto.url) as taker:
        stop.set()
        taker.source.watch(stop)
        assert not taker.source.failed.is_set()


# --- closing ----------------------------------------------------------------------------------------------------------


def closes_in_time(source: Subscription) -> None:
    before = time.monotonic()
    source.close()
    assert time.monotonic() - before < CLOSE_WITHIN_S


def test_closing_what_was_never_started():
    closes_in_time(Taker("mqtt://127.0.0.1:1").source)


def test_closing_while_the_broker_is_down():
    taker = Taker(f"mqtt://127.0.0.1:{free_port()}")
    taker.source.start()
    closes_in_time(taker.source)
    assert taker.connections == []


def test_closing_while_connected_and_idle(mosquitto: Mosquitto):
    with subscribed(mosquitto.url) as taker:
        closes_in_time(taker.source)
        closes_in_time(taker.source)


def test_closing_while_the_queue_is_full(mosquitto: Mosquitto):
    with subscribed(mosquitto.url, max_waiting=1) as taker:
        publish(mosquitto, range(20))
        wait_until("full", lambda: taker.source.received == 1)
        closes_in_time(taker.source)


def test_closing_while_the_line_is_dead(mosquitto: Mosquitto):
    with proxy(mosquitto.port) as cable, subscribed(cable.url) as taker:
        cable.stalled.set()
        closes_in_time(taker.source)


def silent() -> Iterator[int]:
    """Takes the connection and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def deaf() -> Iterator[int]:
    """Not even takes the connection: its waiting room is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server, ExitStack() as stack:
        port = server.getsockname()[1]
        for _ in range(8):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port


@pytest.mark.parametrize("server", [silent, deaf])
def test_closing_while_the_broker_does_not_answer(server: Callable[[], Iterator[int]]):
    for port in server():
        taker = Taker(f"mqtt://127.0.0.1:{port}")
        taker.source.start()
        taker.source.take(1, wait_s=0.5, linger_s=0)  # nothing comes: time for the attempt to begin
        closes_in_time(taker.source)
        assert not taker.source.connected
