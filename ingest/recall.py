"""What devices said last may still be in the spool when we start: it is read through once, before anybody asks.

Nothing is taken out and nothing is written; draining does that, in its own time. A record that is damaged and a message
that cannot be understood are left out here, and dealt with when they are drained.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from core.payload import decode
from core.reading import Batch, Event, Reading
from ingest.repeats import UnknownFields
from ingest.spool import Spool, Spooled

TOLD_EVERY: Final = 200_000
"""Messages between two lines in the log: a few seconds of reading."""

_log = structlog.get_logger()


PATIENCE_S: Final = 10.0
"""Alarms wait at the broker meanwhile: no longer than this. What is left is heard of when it is drained."""


def recall(spool: Spool, heard: Callable[[Batch], None], *, patience_s: float = PATIENCE_S) -> int:
    """Gives `heard` (`SeriesStore.heard`) what is in the spool, oldest first; returns how many messages that were.

    Call it before the rule engine takes up last values and newest events, and before the spool is drained. One record
    is in memory at a time.
    """
    ends_at = time.monotonic() + patience_s
    unknown = UnknownFields()  # of its own: what is left out here is counted when it is drained
    done, told = 0, 0
    for messages in spool.each():
        heard(_batch(messages, unknown))
        done += len(messages)
        if done - told >= TOLD_EVERY:
            told = done
            _log.info("reading what waits in the spool", messages=done, of=spool.messages)
        if time.monotonic() > ends_at and done < spool.messages:
            _log.warning("beginning with what is known of the spool by now", messages=done, of=spool.messages)
            return done
    if done:
        _log.info("what waits in the spool is known", messages=done)
    return done


def _batch(messages: Sequence[Spooled], unknown: UnknownFields) -> Batch:
    items: list[Reading | Event] = []
    for one in messages:
        try:
            message = unknown.limit(decode(one.topic, one.payload, one.rx, retained=one.retained))
        except Exception:  # noqa: BLE001, S112 - draining puts it in quarantine, with the reason
            continue
        items += message.readings
        items += message.events
    return Batch(tuple(items))
