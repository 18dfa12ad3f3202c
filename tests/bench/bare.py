"""The yardstick: a bare paho subscriber that only counts, QoS 1, with paho's own acknowledgements.

`python -m tests.bench.bare PORT MESSAGES` takes what waits in its session and prints one JSON line: rate and CPU over
the last nine tenths of the messages.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

CLIENT_ID = "bare-subscriber"


def client(client_id: str = CLIENT_ID) -> paho.Client:
    return paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=False)


def count(port: int, messages: int) -> dict[str, float]:
    """Takes so many messages."""
    first = messages // 10
    marks: list[tuple[float, float]] = []
    seen = 0

    def on_message(taker: paho.Client, _data: Any, _message: paho.MQTTMessage) -> None:
        nonlocal seen
        seen += 1
        if seen in (first, messages):
            marks.append((time.perf_counter(), time.process_time()))
        if seen == messages:
            taker.disconnect()

    taker = client()
    taker.on_message = on_message
    taker.connect("127.0.0.1", port)
    taker.loop_forever()
    (began, cpu_began), (ended, cpu_ended) = marks
    taken = messages - first
    return {"rate": taken / (ended - began), "cpu_us": (cpu_ended - cpu_began) / taken * 1e6}


if __name__ == "__main__":
    print(json.dumps(count(int(sys.argv[1]), int(sys.argv[2]))))
