"""A load of lifts on a broker: raw MQTT 3.1.1 packets over plain sockets, so that the publisher is never the limit.

`python -m tests.load --url mqtt://127.0.0.1:1883 --rate 5000 --devices 5000 --seconds 60` prints one JSON line. Tests
that need less use `loading` in a thread. Loopback only, and bounded in time and number.

Every device sends with rising `ts` and `seq`. What got a PUBACK stands in a `tests.ledger.Ledger`; what got none is
sent again with DUP on the next connection, for as long as the load runs and `grace_s` longer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.ledger import Ledger
from tests.packets import Maker, Plan, now_ms

LONGEST_S: Final = 3_600
MOST_MESSAGES: Final = 20_000_000
CHUNK: Final = 400
"""Messages made at once: one call to the kernel."""
BURST_S: Final = 0.25
"""A load that could not send for a while catches up with this much, and leaves the rest out."""
RECONNECT_S: Final = 0.1
TICK_S: Final = 0.004
"""A load with a rate sends that often."""
_CONNACK, _PUBACK, _DUP = 0x20, 0x40, 0x08


class Load:
    """A load that `run` sends; `ledger` tells what was sent and what is safe, also while it runs."""

    def __init__(self, url: str, plan: Plan) -> None:
        address = urlsplit(url)
        if address.hostname not in {"127.0.0.1", "localhost", "::1"}:
            raise ValueError(f"{url}: a load goes to loopback only")
        if not (plan.seconds or LONGEST_S) <= LONGEST_S or not (plan.messages or MOST_MESSAGES) <= MOST_MESSAGES:
            raise ValueError(f"at most {LONGEST_S} s and {MOST_MESSAGES} messages")
        self.plan = plan
        self.ledger = Ledger(plan.site, plan.devices)
        self.reconnects = -plan.connections
        self.resent = 0
        self.spent_s = self.cpu_s = 0.0
        self._made = Maker(plan, self.ledger)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(self._stop,), name="load", daemon=True)
        self._selector = selectors.DefaultSelector()
        target = (address.hostname or "", address.port or 1883)
        self._links = [_Link(self, target, number) for number in range(plan.connections)]

    @property
    def unacked(self) -> int:
        return sum(len(link.unacked) for link in self._links)

    def start(self) -> None:
        """Runs in a thread of its own."""
        self._thread.start()

    def finish(self) -> None:
        """Stops sending, and returns when the last PUBACKs are there or nobody waits for them any more."""
        self._stop.set()
        self._thread.join(self.plan.grace_s + 10)
        assert not self._thread.is_alive(), "the load did not end"

    def run(self, stop: threading.Event) -> None:
        """Sends until `stop`, or until the plan's time or number is over; then waits for the last PUBACKs."""
        began, cpu_began = time.monotonic(), time.thread_time()
        paid_until = began
        """Up to here the rate's messages were sent or left out."""
        ends = began + (self.plan.seconds or LONGEST_S)
        most = self.plan.messages or MOST_MESSAGES
        while not stop.is_set() and (now := time.monotonic()) < ends and len(self.ledger) < most:
            quota = min(most - len(self.ledger), CHUNK * len(self._links))
            if self.plan.rate:
                paid_until = max(paid_until, now - BURST_S)
                quota = min(quota, int((now - paid_until) * self.plan.rate))
            sent = self._pump(quota)
            if self.plan.rate:
                paid_until += sent / self.plan.rate
            if self.plan.rate:
                time.sleep(TICK_S)
            self._turn(0 if sent or self.plan.rate else 0.002)
        self.spent_s, self.cpu_s = time.monotonic() - began, time.thread_time() - cpu_began
        over = time.monotonic() + self.plan.grace_s
        while self.unacked and time.monotonic() < over:
            self._pump(0)
            self._turn(0.01)
        for link in self._links:
            link.close()
        self._selector.close()

    def _pump(self, quota: int) -> int:
        """Sends up to `quota` new messages over the connections, in turn."""
        left = quota
        for index, link in enumerate(self._links):
            link.keep_up()
            share = -(-left // (len(self._links) - index))
            left -= link.send(min(share, CHUNK), self._made)
        self._links.append(self._links.pop(0))  # none is always served last
        return quota - left

    def _turn(self, patience_s: float) -> None:
        if not self._selector.get_map():
            time.sleep(0.01)  # no broker just now
            return
        for key, events in self._selector.select(patience_s):
            link: _Link = key.data
            if events & selectors.EVENT_WRITE:
                link.flush()
            if events & selectors.EVENT_READ:
                link.read()

    def watch(self, link: _Link, *, writing: bool) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        if link.number in {key.data.number for key in self._selector.get_map().values()}:
            self._selector.modify(link.socket, events, link)
        else:
            self._selector.register(link.socket, events, link)

    def unwatch(self, link: _Link) -> None:
        self._selector.unregister(link.socket)


class _Link:
    """One connection, its session and what it has sent without a PUBACK."""

    def __init__(self, load: Load, target: tuple[str, int], number: int) -> None:
        self.number = number
        self.unacked: dict[int, tuple[int, bytes]] = {}
        """(message number, packet) by packet identifier, oldest first."""
        self.socket = socket.socket()
        self._load, self._target = load, target
        self._ready = self._open = False
        self._retry_at = 0.0
        self._output = memoryview(b"")
        self._input = b""
        self._mids = itertools.cycle(range(1, 65_536))
        self._devices = itertools.cycle(range(number, load.plan.devices, load.plan.connections))

    def keep_up(self) -> None:
        """Connects where there is no connection."""
        if self._open or time.monotonic() < self._retry_at:
            return
        self._retry_at = time.monotonic() + RECONNECT_S
        try:
            self.socket = socket.create_connection(self._target, timeout=2)
        except OSError:
            return
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._open, self._ready, self._input = True, False, b""
        name = f"{self._load.plan.site}-load-{self.number}".encode()
        # Not a clean session, no keep-alive: unacknowledged messages belong to the session and are sent again.
        body = b"\0\4MQTT\4\0\0\0" + struct.pack(">H", len(name)) + name
        self._output = memoryview(b"\x10" + bytes([len(body)]) + body)
        self._load.reconnects += 1
        self._load.watch(self, writing=True)
        self.flush()

    def send(self, most: int, maker: Maker) -> int:
        """Makes and sends new messages as the window and the socket allow; returns how many."""
        room = min(most, self._load.plan.window - len(self.unacked))
        if not self._ready or self._output or room <= 0:
            return 0
        packets = []
        now = now_ms()
        for _ in range(room):
            mid = next(self._mids)
            while mid in self.unacked:
                mid = next(self._mids)
            faulty = maker.next_fault(self.number)
            if faulty is None:
                numbered = maker.snapshot(next(self._devices), mid, now)
            else:
                numbered = maker.fault(faulty, mid, now)
            self.unacked[mid] = numbered
            packets.append(numbered[1])
        self._output = memoryview(b"".join(packets))
        self.flush()
        return len(packets)

    def flush(self) -> None:
        waited = bool(self._output)
        try:
            while self._output:
                self._output = self._output[self.socket.send(self._output) :]
        except BlockingIOError:
            self._load.watch(self, writing=True)
        except OSError:
            self._lost()
        else:
            if waited:
                self._load.watch(self, writing=False)

    def read(self) -> None:
        try:
            data = self.socket.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        data = self._input + data
        if not self._ready:
            if len(data) < 4:
                self._input = data
                return
            assert (data[0], data[3]) == (_CONNACK, 0), f"the broker refused the load: {data[:4]!r}"
            self._ready = True
            data = data[4:]
            self._send_again()
        whole = len(data) - len(data) % 4
        self._input = data[whole:]
        self._take(data[:whole])

    def close(self) -> None:
        if self._open:
            self._load.unwatch(self)
            self.socket.close()
            self._open = self._ready = False

    def _take(self, pubacks: bytes) -> None:
        """Every PUBACK has four bytes: 40 02 and the packet identifier."""
        words = array("H", pubacks)
        if sys.byteorder == "little":
            words.byteswap()
        ledger, number = self._load.ledger, -1
        for first, mid in zip(words[::2], words[1::2], strict=True):
            assert first >> 8 == _PUBACK, f"not a PUBACK: {first:#x}"
            if mid in self.unacked:
                number = max(number, self.unacked.pop(mid)[0])
                ledger.ack(number)
        if number >= 0:
            ledger.mark(now_ms(), number)

    def _send_again(self) -> None:
        again = [bytes([packet[0] | _DUP]) + packet[1:] for _, packet in self.unacked.values()]
        self._load.resent += len(again)
        self._output = memoryview(b"".join(again))
        self.flush()

    def _lost(self) -> None:
        self.close()
        self._output = memoryview(b"")


@contextmanager
def loading(url: str, plan: Plan) -> Iterator[Load]:
    """A load in a thread of this process. It ends with the block, or before that by `finish`."""
    made = Load(url, plan)
    made.start()
    try:
        yield made
    finally:
        made.finish()


def main(words: Sequence[str] | None = None) -> None:
    """The load as a process of its own."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True)
    for name, kind in Plan.__annotations__.items():
        if "bool" in str(kind):
            parser.add_argument(f"--{name}", action="store_true")
        else:
            made = str if "str" in str(kind) else float if "float" in str(kind) else int
            parser.add_argument(f"--{name.replace('_', '-')}", type=made, default=Plan._field_defaults[name])
    parser.add_argument("--ledger", type=Path, help="write all messages to this file")
    parser.add_argument("--progress", action="store_true", help="also a line every 0.1 s")
    options = parser.parse_args(words)
    plan = Plan(**{name: getattr(options, name) for name in Plan._fields})
    if not plan.seconds and not plan.messages:
        parser.error("say --seconds or --messages")
    load, stop = Load(options.url, plan), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if options.progress:
        threading.Thread(target=_tell, args=(load,), daemon=True).start()
    load.run(stop)
    if options.ledger:
        load.ledger.save(options.ledger)
    print(json.dumps(_report(load) | {"done": True}), flush=True)
    if load.unacked:
        sys.exit(f"{load.unacked} messages got no PUBACK")


def _tell(load: Load) -> None:
    while True:
        time.sleep(0.1)
        print(json.dumps({"at": time.time(), "sent": len(load.ledger), "acked": load.ledger.acked}), flush=True)


def _report(load: Load) -> dict[str, float]:
    sent = len(load.ledger)
    return {
        "sent": sent,
        "acked": load.ledger.acked,
        "resent": load.resent,
        "reconnects": load.reconnects,
        "seconds": round(load.spent_s, 3),
        "rate": round(sent / load.spent_s, 1) if load.spent_s else 0,
        "cpu_us_per_message": round(load.cpu_s / max(1, sent) * 1e6, 2),
    }


if __name__ == "__main__":
    main()
