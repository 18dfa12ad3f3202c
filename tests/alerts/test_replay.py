"""Live = backlog = replay: one recording of a neighbourhood, delivered in three ways, gives the same incidents.

What is compared: every change that does something to an incident (raise, ease, clear), as one line of JSON with its
device time, device, part, rule, effect, urgency, reason and evidence, sorted by (device time, device, part, rule). The
logs must be the same bytes. Two things are left out, because they say when we heard, and not what happened: the mark
`late`, and the raise for the reason `still-true` that follows it.

Rules of silence are judged by our own clock: they are the same live and in a replay, where the recording is the clock.
In a backlog the device really was silent to us, so there the rules are played without them. An outage is one in which
we hear nobody, as when the broker is away: no timer runs, because none may before the backlog is in (`hold`).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest
import yaml

from alerts.engine import Engine
from alerts.rulebook import RuleBook, load_rules
from core.incident import Change
from core.payload import MAX_SNAPSHOTS, decode
from core.reading import Batch
from core.topics import parse as address_of
from simulators import presets
from simulators.device import Device
from simulators.fleet import Fleet
from simulators.plan import parse
from tests.faults.conftest import LONG

START_MS: Final = 1_790_000_000_000
DAYS: Final = 7
TICK_MS: Final = 30_000 if LONG else 120_000
"""A week of more than that is for the long suite."""
DELAY_MS: Final = 100
RULES: Final = Path(__file__).parents[2] / "deploy" / "rules"
FAULTS: Final = (
    *("entrapment@5h:lift-01", "entrapment-level@29h:lift-02", "entrapment@50h+3m:lift-02", "stopped@20h+40m:lift-01"),
    *("overtravel@70h+5m:lift-02", "code:5@33h+10m:lift-01", "code:43@80h+6h:lift-01", "entrapment@81h:lift-01"),
    *(
        "overheat@9h+1h:pile-01/3",
        "overheat@31h+2m:pile-01/4",
        "smoke@52h+20m:pile-01",
        "relay-welded@60h+1h:pile-01/2",
    ),
    *("offline@100h+2h:pile-01", "silence@110h+90m:lift-02", "offline@112h+30s:lift-01", "code:4@130h+1h:lift-02"),
)


class Sent(NamedTuple):
    """One message of the recording."""

    at: int
    topic: str
    payload: bytes


def devices() -> tuple[Device, ...]:
    """Two lifts, and a pile of few ports."""
    kept = [one for one in presets.get("fenghe").devices if one.id in ("lift-01", "lift-02", "pile-01")]
    return tuple(one._replace(statics={**one.statics, "ports": 4}) if "ports" in one.statics else one for one in kept)


@cache
def recording(seed: int) -> tuple[Sent, ...]:
    """A week of two lifts and a pile, at the pace of a real neighbourhood, with faults."""
    preset = presets.get("fenghe")._replace(devices=devices())
    fleet = Fleet(preset, seed=seed, faults=[parse(one) for one in FAULTS])
    sent = []
    for now in range(START_MS, START_MS + DAYS * 86_400_000, TICK_MS):
        sent += [Sent(now, topic, payload) for topic, payload, _ in fleet.tick(now)]
    return tuple(sent)


def batch_of(sent: Sent, rx: int) -> Batch:
    message = decode(sent.topic, sent.payload, rx)
    return Batch((*message.readings, *message.events))


def engine_of(book: RuleBook) -> Engine:
    engine = Engine(book)
    for device in devices():
        engine.know_device(device.device_id, device.kind, device.statics, now=START_MS)
    engine.listening(True, now=START_MS)
    return engine


def log(changes: Iterable[Change]) -> bytes:
    """As the introduction says."""
    rows: list[tuple[Any, ...]] = [
        (
            *(one.at, one.state.device_id, one.state.part, one.state.rule_id, one.effect),
            one.severity,
            one.reason,
            one.evidence,
        )
        for one in changes
        if one.effect != "none" and one.reason != "still-true"
    ]
    return b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in sorted(rows, key=lambda row: row[:5]))


# --- three ways ------------------------------------------------------------------------------------------------------


def live(sent: Sequence[Sent], book: RuleBook) -> bytes:
    """Each message by itself; the clock ticks just before each."""
    engine, changes = engine_of(book), list[Change]()
    for one in sent:
        changes += engine.advance(one.at + DELAY_MS - 1)
        changes += engine.observe(batch_of(one, one.at + DELAY_MS))
    return log(changes + engine.advance(sent[-1].at + 86_400_000))


def replay(sent: Sequence[Sent], book: RuleBook) -> bytes:
    """A thousand times as fast: ticks of 200 ms are 200 s of the recording, and what comes between is one batch.

    Where the recording is silent for longer, its clock ticks once more just before it goes on.
    """
    engine, changes = engine_of(book), list[Change]()
    items: list[Any] = []
    ticked = last = START_MS
    for one in sent:
        now = one.at + DELAY_MS
        if now >= ticked + 200_000 or now > last + 60_000:
            changes += engine.observe(Batch(tuple(items)))
            changes += engine.advance(now - 1)
            items, ticked = [], now
        items += batch_of(one, now).items
        last = now
    changes += engine.observe(Batch(tuple(items)))
    return log(changes + engine.advance(sent[-1].at + 86_400_000))


def backlog(sent: Sequence[Sent], book: RuleBook, rng: random.Random) -> bytes:
    """Outages of up to hours: devices gather what they say, then send it in arrays, one device after the other."""
    engine, changes = engine_of(book), list[Change]()
    index = 0
    while index < len(sent):
        ends = sent[index].at + rng.choice([0, 60_000, 3_600_000, 6 * 3_600_000])
        gathered: dict[str, list[Sent]] = {}
        while index < len(sent) and sent[index].at <= ends:
            gathered.setdefault(address_of(sent[index].topic).device_id, []).append(sent[index])
            index += 1
        rx = sent[index - 1].at + DELAY_MS
        arrays = {device_id: list(in_arrays(mine, rng)) for device_id, mine in gathered.items()}
        while arrays:
            device_id = rng.choice(sorted(arrays))
            changes += engine.observe(batch_of(arrays[device_id].pop(0), rx))
            if not arrays[device_id]:
                del arrays[device_id]
        changes += engine.advance(rx)
    return log(changes + engine.advance(sent[-1].at + 86_400_000))


def in_arrays(mine: Sequence[Sent], rng: random.Random) -> Iterator[Sent]:
    """What one device gathered, in its order: telemetry in arrays, events and status between them."""
    size, run = rng.choice([1, 7, 100, MAX_SNAPSHOTS]), list[Sent]()
    for one in mine:
        fits = run and one.topic == run[0].topic and len(run) < size
        if run and (not fits or sum(len(other.payload) for other in run) + len(one.payload) > 60_000):
            yield array(run)
            run = []
        run.append(one)
        if not one.topic.endswith("telemetry"):
            yield run.pop()
    if run:
        yield array(run)


def array(run: Sequence[Sent]) -> Sent:
    return run[0] if len(run) == 1 else run[-1]._replace(payload=b"[" + b",".join(one.payload for one in run) + b"]")


def differences(log: bytes, other: bytes) -> list[bytes]:
    """Lines of one log only; a few are enough to see why. Logs of the same lines are the same bytes."""
    mine, others = log.split(b"\n"), other.split(b"\n")
    assert len(mine) == len(set(mine)), "a line twice"
    missing, new = set(mine) - set(others), set(others) - set(mine)
    return sorted([b"- " + one for one in missing] + [b"+ " + one for one in new], key=lambda one: one[2:])[:20]


# --- what must hold --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_silence(tmp_path_factory: pytest.TempPathFactory) -> RuleBook:
    folder = tmp_path_factory.mktemp("rules")
    for path in RULES.glob("*.yaml"):
        said = yaml.safe_load(path.read_text())
        for one in said.get("rules", ()):
            one |= {"enabled": "silence" not in one}
        (folder / path.name).write_text(yaml.safe_dump(said, allow_unicode=True))
    return load_rules(folder)


SEEDS = range(10) if LONG else (1,)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_replay_is_what_was_live(seed):
    book, sent = load_rules(RULES), recording(seed)
    first = live(sent, book)
    assert differences(first, replay(sent, book)) == []
    for word in ("entrapment", "port-hot", "pile-smoke", "relay-welded", "-silent", "last-will", "overtravel"):
        assert word.encode() in first, f"the week has no {word}: it would prove little"


@pytest.mark.parametrize("seed", SEEDS)
def test_a_backlog_is_what_would_have_been_live(seed, without_silence):
    sent = recording(seed)
    first = live(sent, without_silence)
    for number in range(3 if LONG else 1):
        assert differences(first, backlog(sent, without_silence, random.Random(f"{seed}/{number}"))) == []
