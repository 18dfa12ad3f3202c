"""The embedded broker (rumqttd inside the iotcore wheel) as a child process on loopback: for the demo and a laptop.

The child reads its standard input, which only the parent holds open: it ends when the parent does, kill -9 included,
so no child lives on to hold a port. It has a session of its own, so that Ctrl-C reaches the parent alone, which then
ends things in order. It keeps sessions in memory: whoever needs them to survive a power cut runs Mosquitto.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from core.errors import AddressInUse, TizhuangError

HOST: Final = "127.0.0.1"
MAX_PAYLOAD_BYTES: Final = 1_048_576
"""More than the contract allows, so that an oversized payload is quarantined and not merely cut off."""
MAX_IN_FLIGHT: Final = 500
START_TIMEOUT_S: Final = 10.0


@contextmanager
def embedded_broker(port: int) -> Iterator[int]:
    """A broker on loopback for the time of the `with` block. Port 0 takes a free one; yields the port.

    Raises AddressInUse, or TizhuangError when the broker does not come up.
    """
    port = _claim(port)
    child = subprocess.Popen([sys.executable, "-m", __name__, str(port)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        _wait_until_listening(child, port)
        yield port
    finally:
        stop_child(child)


def stop_child(child: subprocess.Popen[bytes], *, patience_s: float = 1.0) -> None:
    """Ends a child that watches its standard input: asks, waits, then insists."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        child.wait(patience_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def end_with_parent() -> None:
    """For a child: ends this process when the parent's end of our standard input closes."""

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 1024):  # not sys.stdin: its lock is held at exit
            pass
        os._exit(0)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _claim(port: int) -> int:
    """The port if it is free, or any free one for 0. There is a moment until the child takes it, which is harmless:
    the child then fails to start and says so."""
    try:
        with socket.create_server((HOST, port)) as probe:
            return int(probe.getsockname()[1])
    except OSError:
        raise AddressInUse("MQTT broker", HOST, port, "--mqtt-port") from None


def _wait_until_listening(child: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise TizhuangError(f"the embedded broker ended at once (exit code {child.returncode}) on port {port}")
        try:
            socket.create_connection((HOST, port), timeout=0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TizhuangError(f"the embedded broker did not listen on port {port} within {START_TIMEOUT_S:.0f} s")


def _main() -> None:
    from iotcore import Broker  # noqa: PLC0415 - only the child needs the broker

    logging.getLogger("rumqttd").setLevel(logging.CRITICAL)  # its tracing marks every packet as an error
    end_with_parent()
    Broker(
        port=int(sys.argv[1]), listen=HOST, max_payload_size=MAX_PAYLOAD_BYTES, max_inflight_count=MAX_IN_FLIGHT
    ).run_forever()


if __name__ == "__main__":
    _main()
