"""What survives a restart of the broker cannot be seen in one run: a mark is left, and the next run looks for it.

The mark is a session with one message waiting and one retained message; `doctor.json` remembers it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from core import mqtt
from core.clock import iso
from core.doctor import Finding, Level
from core.settings import Mqtt
from ingest.probe import Probe, Space

FILE: Final = "doctor.json"

STALE_S: Final = 15
"""Mosquitto tells its uptime every 10 s."""

_PERSIST: Final = (
    "persistence true, persistence_location on a disk, autosave_interval 60 (a crash loses what came since)"
)


class Mark(NamedTuple):
    """What was left, and when."""

    broker: str
    nonce: str
    left_ms: int
    uptime_s: int | None


def check_mark(
    settings: Mqtt, space: Space, folder: Path, *, keep: bool, now: int, uptime_s: int | None
) -> Iterator[Finding]:
    """Judges the mark of an earlier run, then leaves a new one, or none. `now`: when `uptime_s` was told."""
    broker = "{}:{}".format(*mqtt.broker(settings))
    path = folder / FILE
    left = _remembered(path)
    if left is not None and left.broker == broker:
        yield _judged(left, _forgotten(settings, space, left), _restarted(left, now, uptime_s))
    elif keep:
        yield Finding(
            "broker.restart", Level.UNKNOWN, "a mark was left", "restart the broker and run doctor again: it will tell"
        )
    else:
        found = "no mark was left (--no-mark)"
        yield Finding("broker.restart", Level.UNKNOWN, found, f"run doctor without --no-mark; {_PERSIST}")
    _remove(settings, space)
    with suppress(OSError):
        path.unlink(missing_ok=True)
    if keep:
        nonce = secrets.token_hex(8)
        _leave(settings, space, nonce.encode())
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(Mark(broker, nonce, now, uptime_s)._asdict()) + "\n", encoding="ascii")
        except OSError as error:
            _remove(settings, space)
            found = f"the mark cannot be remembered in {path}: {error.strerror}"
            yield Finding("broker.restart", Level.UNKNOWN, found, "data.dir or --data: a folder that we may write to")


def _remembered(path: Path) -> Mark | None:
    try:
        return Mark(**json.loads(path.read_text(encoding="ascii")))
    except (OSError, ValueError, TypeError):
        return None


def _forgotten(settings: Mqtt, space: Space, left: Mark) -> list[str]:
    """Which parts of the mark are gone."""
    nonce = left.nonce.encode()
    gone = []
    with Probe(settings, space.client("m"), clean=False) as probe:
        if not probe.session_present:
            gone.append("the session")
        probe.wait_until_quiet(space)
        if not any(one.payload == nonce for one in probe.received):
            gone.append("the message that waited for it")
    with Probe(settings, space.client("s")) as probe:
        probe.subscribe(space.topic("kept"))
        probe.wait_until_quiet(space)
        if not any(one.payload == nonce for one in probe.received):
            gone.append("the retained message")
    return gone


def _restarted(left: Mark, now: int, uptime_s: int | None) -> bool | None:
    """None: cannot be told, because the broker does not say since when it runs, or because it is too early."""
    if uptime_s is None or left.uptime_s is None:
        return None
    since_s = (now - left.left_ms) / 1000
    if uptime_s < left.uptime_s or uptime_s + STALE_S < since_s:
        return True
    return False if uptime_s >= since_s else None


def _judged(left: Mark, gone: list[str], restarted: bool | None) -> Finding:
    when = iso(left.left_ms)[:16].replace("T", " ") + " UTC"
    if gone:
        found = (
            f"{', '.join(gone)} of {when} {'is' if len(gone) == 1 else 'are'} gone: a restart of the broker loses it"
        )
        if restarted is False:
            found = f"{', '.join(gone)} of {when} vanished, although the broker did not restart"
            return Finding(
                "broker.restart", Level.LOST, found, "persistent_client_expiration, or somebody who clears sessions"
            )
        return Finding("broker.restart", Level.LOST, found, _PERSIST)
    if restarted:
        found = f"session, waiting message and retained message of {when} survived a restart of the broker"
        return Finding("broker.restart", Level.OK, found)
    why = (
        "the broker has not restarted since"
        if restarted is False
        else "whether the broker restarted since cannot be told (too early, or no right to read $SYS/broker/uptime)"
    )
    return Finding(
        "broker.restart",
        Level.UNKNOWN,
        f"the mark of {when} is there, and {why}",
        "restart the broker and run doctor again: it will tell",
    )


def _remove(settings: Mqtt, space: Space) -> None:
    with Probe(settings, space.client("m")) as probe:
        probe.publish(space.topic("kept"), b"", retain=True)


def _leave(settings: Mqtt, space: Space, nonce: bytes) -> None:
    with Probe(settings, space.client("m"), clean=False) as probe:
        probe.subscribe(space.topic("mark"))
    with Probe(settings, space.client("s")) as probe:
        probe.publish(space.topic("mark"), nonce)
        probe.publish(space.topic("kept"), nonce, retain=True)
