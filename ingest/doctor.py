"""`tizhuang doctor` at the broker: what would be lost there, found out by behaviour and not by reading configurations.

Everything is tried as an ordinary MQTT client, under client ids and topics of our own (`ingest.probe.Space`). Nothing
stays behind but the mark that the next run looks for, and that only when it is wanted.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from core import mqtt, topics
from core.clock import Clock
from core.doctor import Finding, Level
from core.settings import Mqtt
from ingest.probe import QUIET_S, SOON_S, Probe, ProbeFailed, Space
from ingest.probe_access import check_access
from ingest.probe_away import MESSAGES, check_away
from ingest.probe_mark import check_mark

PAYLOAD_BYTES: Final = 64 * 1024
"""The largest payload of the wire contract."""

EXPIRES_SOON_DAYS: Final = 30
DAY_S: Final = 86_400


class Seen(NamedTuple):
    """What the broker says of itself, where it does (Mosquitto, and only to whom may read $SYS)."""

    version: str
    uptime_s: int | None


def check_broker(
    settings: Mqtt,
    *,
    folder: Path,
    keep_mark: bool,
    now: Clock,
    tell: Callable[[str], None] = lambda _: None,
    messages: int = MESSAGES,
) -> Iterator[Finding]:
    """All findings, in order. `folder` remembers the mark; `tell` hears of progress. Raises SettingsError."""
    space = Space.of(settings, folder)
    where = mqtt.broker(settings)
    tell(f"connecting to {where.host}:{where.port}")
    started = time.monotonic()
    try:
        main = Probe(settings, space.client("p"))
    except ProbeFailed as error:
        yield Finding("broker.reach", Level.UNKNOWN, f"{where.host}:{where.port} {error}", _way_in(settings, error))
        return
    took_ms = (time.monotonic() - started) * 1000
    with main:
        seen, seen_ms = _about(settings, space), now()
        name = seen.version or "a broker that does not tell its name"
        user = urlsplit(settings.url).username
        yield Finding(
            "broker.reach",
            Level.OK,
            f"{where.host}:{where.port} answers in {took_ms:.0f} ms: {name}, MQTT 3.1.1, "
            + (f"as user '{user}'" if user else "without a password"),
        )
        yield _encryption(settings, main, seen_ms)
        yield from _tried("broker.read", _right_to_listen(settings, space))
        if unheard := _unheard(main, space):
            yield unheard
            return
        for check, findings in (
            ("broker.size", _size(settings, space)),
            ("broker.retained", _retained(settings, space)),
            ("broker.will", _last_will(settings, space, main)),
            ("broker.queue", check_away(settings, space, tell, messages)),
            (
                "broker.restart",
                check_mark(settings, space, folder, keep=keep_mark, now=seen_ms, uptime_s=seen.uptime_s),
            ),
            ("broker.intruder", check_access(settings, space, main)),
        ):
            yield from _tried(check, findings)


def _tried(check: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """A check that the broker cuts short is a finding, too."""
    try:
        yield from findings
    except ProbeFailed as error:
        yield Finding(
            check, Level.UNKNOWN, f"the broker {error}", "run doctor again, one at a time; the broker's log may say why"
        )


def _way_in(settings: Mqtt, error: ProbeFailed) -> str:
    if not error.refused:
        return "is the broker running, and is mqtt.url right?"
    if urlsplit(settings.url).scheme == "mqtts" and "certificate" in str(error):
        return "mqtt.ca_file (the authority that signed it), the host name in mqtt.url, or a new certificate"
    return "user and password in mqtt.url; password_file and acl_file of Mosquitto"


def _about(settings: Mqtt, space: Space) -> Seen:
    """Retained messages of the broker itself; they come right after the subscription, or never.

    On a connection of its own: some brokers end it for that.
    """
    told: dict[str, str] = {}
    with suppress(ProbeFailed), Probe(settings, space.client("b")) as probe:
        for topic in ("$SYS/broker/version", "$SYS/broker/uptime"):
            probe.subscribe(topic, qos=0)
        probe.wait_for(lambda: len(probe.received) >= 2, timeout_s=QUIET_S)
        told = {one.topic: one.payload.decode(errors="replace") for one in probe.received}
    uptime = told.get("$SYS/broker/uptime", "").partition(" ")[0]
    version = told.get("$SYS/broker/version", "").replace("mosquitto version", "Mosquitto")
    return Seen(version, int(uptime) if uptime.isdigit() else None)


def _encryption(settings: Mqtt, main: Probe, now: int) -> Finding:
    if urlsplit(settings.url).scheme != "mqtts":
        if main.near:
            return Finding("broker.tls", Level.OK, "not encrypted, and on this machine there is no need")
        return Finding(
            "broker.tls",
            Level.WARNING,
            "not encrypted: whoever listens on the way reads the password and can change what lifts say",
            "mqtts:// in mqtt.url; listener 8883 with certfile and keyfile in mosquitto.conf",
        )
    until = ssl.cert_time_to_seconds(main.certificate["notAfter"])
    days = (until - now / 1000) / DAY_S
    if days < EXPIRES_SOON_DAYS:
        return Finding(
            "broker.tls",
            Level.WARNING,
            f"the certificate ends in {days:.0f} days; after that neither devices nor we get in",
            "a new certfile for the broker, then reload it",
        )
    return Finding("broker.tls", Level.OK, f"encrypted; the certificate is good for {days:.0f} days")


def _right_to_listen(settings: Mqtt, space: Space) -> Iterator[Finding]:
    """The worker's own filter, without QoS and only until the answer: nothing is taken from anybody."""
    wanted = topics.subscription(settings.prefix)
    with Probe(settings, space.client("r")) as probe:
        if probe.subscribe(wanted, qos=0):
            yield Finding("broker.read", Level.OK, f"{wanted} is granted")
        else:
            yield Finding(
                "broker.read",
                Level.LOST,
                f"{wanted} is refused: nothing that devices say would be heard",
                f"a right to read {settings.prefix}{topics.ROOT}/# for our user (subscribePattern, acl_file)",
            )


def _unheard(main: Probe, space: Space) -> Finding | None:
    """A finding where we do not hear ourselves on a topic of our own: nothing else can be tried then."""
    topic = space.topic("echo")
    with suppress(ProbeFailed):  # some brokers end the connection of who may not
        if main.subscribe(space.topic("echo", "#")):
            main.publish(topic, b"echo")
            if main.wait_for(lambda: any(one.payload == b"echo" for one in main.received), timeout_s=SOON_S):
                return None
    return Finding(
        "broker.probe",
        Level.UNKNOWN,
        f"a message on {topic} does not come back to us, so session, queue, sizes and rights cannot be tried",
        f"for our user: topic readwrite {space.prefix}tizhuang-doctor/# (acl_file)",
    )


def _size(settings: Mqtt, space: Space) -> Iterator[Finding]:
    """On a connection of its own: some brokers cut it off."""
    with Probe(settings, space.client("s")) as probe:
        probe.subscribe(space.topic("size"))
        kib = PAYLOAD_BYTES // 1024
        lost = f"a message of {kib} KiB, which the wire contract allows, is lost"
        mend = "message_size_limit and max_packet_size of Mosquitto: take them out, or 70000 at least"
        try:
            probe.publish(space.topic("size"), bytes(PAYLOAD_BYTES))
        except ProbeFailed as error:
            yield Finding("broker.size", Level.LOST, f"{lost}, and the device with it: the broker {error}", mend)
            return
        if probe.wait_for(lambda: probe.received, timeout_s=SOON_S):
            yield Finding("broker.size", Level.OK, f"{kib} KiB, the most the wire contract allows, comes through")
        else:
            yield Finding("broker.size", Level.LOST, f"{lost}, although the broker acknowledges it", mend)


def _retained(settings: Mqtt, space: Space) -> Iterator[Finding]:
    topic = space.topic("retained")
    mend = "retain_available true in mosquitto.conf (the default)"
    try:
        with Probe(settings, space.client("s")) as probe:
            probe.publish(topic, b"kept", retain=True)
    except ProbeFailed as error:
        found = f"a device that says 'online' with the retain flag is lost: the broker {error}"
        yield Finding("broker.retained", Level.LOST, found, mend)
        return
    with Probe(settings, space.client("s")) as probe:
        try:
            probe.subscribe(topic)
            kept = probe.wait_for(lambda: any(one.retain for one in probe.received), timeout_s=SOON_S)
        finally:
            probe.publish(topic, b"", retain=True)
    if kept:
        yield Finding("broker.retained", Level.OK, "kept, and given to whoever comes later")
    else:
        found = "not kept: the state of a device that spoke before we came is lost"
        yield Finding("broker.retained", Level.LOST, found, mend)


def _last_will(settings: Mqtt, space: Space, main: Probe) -> Iterator[Finding]:
    """A device of ours loses its power."""
    device = Probe(settings, space.client("w"), will=space.topic("echo", "will"))
    started = time.monotonic()
    device.drop()
    if main.wait_for(lambda: any(one.payload == b"will" for one in main.received), timeout_s=2 * SOON_S):
        took_ms = (time.monotonic() - started) * 1000
        yield Finding("broker.will", Level.OK, f"delivered {took_ms:.0f} ms after a connection was cut")
    else:
        yield Finding(
            "broker.will",
            Level.LOST,
            "not delivered: a device that loses its power is noticed only when its silence is too long",
            "a right for every device to write its own status topic, which its last will goes to",
        )
