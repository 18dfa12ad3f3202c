"""What the broker keeps for a session that is away, and how much it sends before it wants an acknowledgement."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator
from typing import Final

from core.doctor import Finding, Level
from core.settings import Mqtt
from ingest.probe import QUIET_S, Probe, ProbeFailed, Space

MESSAGES: Final = 20_000
"""More than any broker keeps by default; a second of work, and 5 MB for the broker."""

PAYLOAD_BYTES: Final = 200
"""About what a lift says at once: some brokers count bytes."""

ENOUGH_IN_FLIGHT: Final = 100
"""From here on the acknowledgements, which wait for the disk, are no longer what limits us."""

PUBLISHING_S: Final = 15.0
TAKING_S: Final = 20.0
_BURST: Final = 500


def check_away(settings: Mqtt, space: Space, tell: Callable[[str], None], messages: int) -> Iterator[Finding]:
    """Session, queue and messages in flight, in one go: subscribe, go away, let messages come, come back."""
    me, topic = space.client("a"), space.topic("away")
    Probe(settings, me).close()  # what an earlier run may have left
    try:
        with Probe(settings, me, clean=False) as probe:
            probe.subscribe(topic)
        published = _publish(settings, space, topic, tell, messages)
        tell(f"coming back for {published} messages")
        with Probe(settings, me, clean=False, by_hand=True) as probe:
            if not probe.session_present:
                yield _no_session(published)
                return
            yield Finding("broker.session", Level.OK, "survives a disconnect")
            probe.wait_until_quiet(space)
            in_flight = len(probe.received)
            came = _take(probe, space, published, tell)
        yield _queue(came, published, messages)
        yield _flight(in_flight, published)
    finally:
        Probe(settings, me).close()


def _publish(settings: Mqtt, space: Space, topic: str, tell: Callable[[str], None], messages: int) -> int:
    """How many the broker acknowledged in the time it was given."""
    deadline = time.monotonic() + PUBLISHING_S
    filler = bytes(PAYLOAD_BYTES - 4)
    sent = 0
    with Probe(settings, space.client("f")) as probe:
        while sent < messages and time.monotonic() < deadline:
            for number in range(sent, min(sent + _BURST, messages)):
                probe.send(topic, struct.pack(">I", number) + filler)
            sent = min(sent + _BURST, messages)
            probe.wait_for(lambda: probe.confirmed >= sent - _BURST, timeout_s=deadline - time.monotonic())  # noqa: B023
            tell(f"queue: {probe.confirmed} of {messages} messages published to a session that is away")
        probe.wait_for(lambda: probe.confirmed >= sent, timeout_s=max(0.1, deadline - time.monotonic()))
        if not probe.confirmed:
            raise ProbeFailed(f"acknowledged no message in {PUBLISHING_S:.0f} s")
        return probe.confirmed


def _take(probe: Probe, space: Space, published: int, tell: Callable[[str], None]) -> int:
    """How many different messages come once everything is acknowledged."""
    probe.acknowledge()
    deadline = time.monotonic() + TAKING_S
    while len(probe.received) < published and time.monotonic() < deadline:
        before = len(probe.received)
        tell(f"queue: {before} of {published} messages taken")
        if not probe.wait_for(lambda: len(probe.received) >= min(before + _BURST, published), timeout_s=QUIET_S):  # noqa: B023
            probe.wait_until_quiet(space, timeout_s=deadline - time.monotonic())
            break
    return len({one.payload[:4] for one in probe.received})


def _no_session(published: int) -> Finding:
    return Finding(
        "broker.session",
        Level.LOST,
        f"gone when we came back: all {published} messages published meanwhile are lost",
        "a broker that keeps sessions of MQTT 3.1.1; with Mosquitto: no persistent_client_expiration, "
        "and a client id that may do so",
    )


def _queue(came: int, published: int, messages: int) -> Finding:
    if came < published:
        return Finding(
            "broker.queue",
            Level.LOST,
            f"{came} of {published} messages published while we were away came: the broker acknowledged "
            f"{published - came} and dropped them",
            "max_queued_messages 100000 or more, and max_queued_bytes 0 in mosquitto.conf (default: 1000 messages)",
        )
    if published < messages:
        return Finding(
            "broker.queue",
            Level.UNKNOWN,
            f"the broker took only {published} of {messages} messages in {PUBLISHING_S:.0f} s, and kept all of them",
            "run doctor again when the broker has less to do",
        )
    minutes = published / 100 / 60
    return Finding(
        "broker.queue",
        Level.OK,
        f"all {published} messages published while we were away came ({minutes:.0f} min at 100 a second); "
        "more were not tried",
    )


def _flight(in_flight: int, published: int) -> Finding:
    if in_flight >= published:
        return Finding("broker.in_flight", Level.OK, f"{in_flight} sent without an acknowledgement, no limit was seen")
    if in_flight < ENOUGH_IN_FLIGHT:
        return Finding(
            "broker.in_flight",
            Level.WARNING,
            f"the broker stops after {in_flight} messages without an acknowledgement, and ours wait for the disk: "
            f"at 10 ms a write, {in_flight * 100} messages a second at most",
            "max_inflight_messages 500 in mosquitto.conf (default: 20)",
        )
    return Finding("broker.in_flight", Level.OK, f"{in_flight} sent before an acknowledgement is wanted")
