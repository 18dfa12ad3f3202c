"""What a stranger could do at the broker, and what our own credentials may do beyond what they need.

Nobody may speak as a device in a test: each topic of six levels under `tizhuang/v1/` reaches a worker, which would keep
a device that does not exist, or a message in quarantine. So the probe is published one level above the channels, on
`tizhuang/v1/tizhuang-doctor/elevator/MARK`: no worker's filter matches five levels, but every usual grant to devices
does (`tizhuang/v1/#`, `tizhuang/v1/+/+/+/#`), while a grant to one device alone (`tizhuang/v1/+/+/%u/#`) does not. A
right to exactly six levels for everybody is the one thing that this cannot see. What is published is observed by a
subscription of our own; incident 0, which never exists, proves that we would see it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit, urlunsplit

from core import topics
from core.doctor import Finding, Level
from core.settings import Mqtt
from ingest.probe import Probe, ProbeFailed, Space

_SITE: Final = "tizhuang-doctor"
_LIMITED: Final = "pattern readwrite tizhuang/v1/+/+/%u/# for devices, topic read tizhuang/v1/# for our user"
_CLOSED: Final = f"allow_anonymous false, password_file, acl_file ({_LIMITED})"


def check_access(settings: Mqtt, space: Space, main: Probe) -> Iterator[Finding]:
    """`main`: our own connection, which observes."""
    as_device = f"{space.prefix}{topics.ROOT}/{_SITE}/elevator/{space.mark}"
    incident = topics.alert_topic(_SITE, 0, space.prefix)
    main.subscribe(as_device)
    main.subscribe(incident)
    announces = _arrives(main, main, space, incident, b"")  # empty: "closed", which is what no incident 0 is anyway
    stranger = settings.model_copy(update={"url": _nameless(settings.url)})
    named = stranger.url != settings.url
    speaks = _arrives(main, main, space, as_device, b"own")
    yield _announcing(announces, incident)
    if named:
        yield _own(speaks, announces, as_device)
    try:
        with Probe(stranger, space.client("i")) as intruder:
            heard = _overhears(intruder, main, incident, space)
            speaks = _arrives(intruder, main, space, as_device, b"stranger")
    except ProbeFailed as error:
        yield _kept_out(error)
        return
    level = Level.WARNING if main.near else Level.LOST
    yield Finding("broker.intruder", level, _deeds(heard, speaks, announces), _CLOSED)


def _arrives(speaker: Probe, listener: Probe, space: Space, topic: str, payload: bytes) -> bool:
    """Whether the listener hears it."""

    def came() -> bool:
        return any(one.topic == topic and one.payload == payload for one in listener.received)

    speaker.publish(topic, payload)
    return listener.hears(space, came)


def _overhears(intruder: Probe, main: Probe, incident: str, space: Space) -> bool:
    """One retained state of a device or one incident is enough; without QoS, so that nothing is kept for it."""
    intruder.subscribe(incident, qos=0)
    intruder.subscribe(f"{space.prefix}{topics.ROOT}/+/+/+/status", qos=0)
    main.publish(incident, b"")
    return intruder.hears(space, lambda: intruder.received)


def _nameless(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _announcing(announces: bool, incident: str) -> Finding:
    if announces:
        return Finding("broker.alerts", Level.OK, "incidents can be announced on MQTT")
    return Finding(
        "broker.alerts",
        Level.WARNING,
        f"a message on {incident} did not come back: incidents are not announced on MQTT, or we may not see it",
        "for our user: topic readwrite tizhuang/v1/+/alerts/+ (acl_file)",
    )


def _own(speaks: bool, announces: bool, as_device: str) -> Finding:
    if speaks:
        return Finding(
            "broker.own",
            Level.WARNING,
            "our own password may publish as any device: who steals it can invent alarms, or end real ones",
            f"for our user: topic read tizhuang/v1/# and topic readwrite tizhuang/v1/+/alerts/+ only ({_LIMITED})",
        )
    if announces:
        return Finding("broker.own", Level.OK, "our own password cannot publish as a device")
    return Finding(
        "broker.own",
        Level.UNKNOWN,
        f"a message on {as_device} did not come back, which may only mean that we cannot read it",
        "for our user: topic read tizhuang/v1/# (acl_file)",
    )


def _kept_out(error: ProbeFailed) -> Finding:
    if error.refused:
        return Finding("broker.intruder", Level.OK, "a client without a password is turned away")
    return Finding("broker.intruder", Level.UNKNOWN, f"a client without a password: the broker {error}", _CLOSED)


def _deeds(heard: bool, speaks: bool, visible: bool) -> str:
    """What a client without a password can do. It always can take our client id."""
    deeds = ["take our client id, throw us out and empty our session"]
    if speaks:
        deeds.insert(0, "publish as any device, so invent alarms or end real ones")
    elif not visible:
        deeds.append("perhaps publish as a device, which we have no right to see")
    if heard:
        deeds.append("read what devices and incidents say")
    return f"anybody who reaches the port gets in without a password, and can {'; '.join(deeds)}"
