"""Plays a test case through an engine: what devices say, what the clock on the wall shows, what became of incidents.

A case can be played in several ways that must all come to the same: as it is written, with a kill and a start after
every step, and with ten messages handed over at once. Pure: `Memory` stands for the databases.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Final, Literal, NamedTuple

from alerts.desk import CATCH_UP_MS
from alerts.engine import HOME_ZONE, Engine
from alerts.rulebook import RuleBook
from alerts.rulefile import Spot
from core.incident import Change, RuleState
from core.reading import Batch, Event, Reading, Value

BASE: Final = 1_790_000_000_000
"""Second zero of a case that does not say when it starts, Unix ms."""

DELAY_MS: Final = 100
"""From device to us, unless a step says otherwise."""

AT_ONCE: Final = 10
"""Messages in one batch where batches are cut large."""

Way = Literal["plain", "restarts", "batches"]
WAYS: Final[Mapping[Way, str]] = {
    "plain": "as it is written",
    "restarts": "with a restart after every step",
    "batches": "with ten messages at once",
}


class Actor(NamedTuple):
    """A device of a case, as the register knows it."""

    kind: str
    statics: Mapping[str, Value]
    zone: tzinfo = HOME_ZONE


class Said(NamedTuple):
    """One message: the readings of one snapshot, or one event."""

    items: tuple[Reading | Event, ...]


class Wall(NamedTuple):
    """The clock on the wall moves on to `now`, Unix ms; and what happens to us then."""

    now: int
    listening: bool | None = None
    """The broker came or went."""
    restart: bool = False
    """A kill and a start."""
    book: RuleBook | None = None
    """Other rules are in force from now on."""


@dataclass(frozen=True)
class Case:
    """One time line and the incidents it must lead to."""

    about: str
    spot: Spot
    book: RuleBook
    devices: Mapping[str, Actor]
    """By id. The first one is that of steps that name none; lines leave out its name."""
    steps: tuple[Said | Wall, ...]
    expect: tuple[str, ...]
    """Lines as `told` writes them."""
    quiet: tuple[str, ...] = ()
    """Rules that must not fire."""
    start: int = BASE
    ways: frozenset[Way] = frozenset(WAYS)
    """In which ways it can be played."""
    known_faults: Mapping[Way, str] = field(default_factory=dict)
    """Why it fails today when it is played in that way."""

    @property
    def rule_ids(self) -> set[str]:
        """Rules that are in force at any time of it."""
        books = [self.book, *(step.book for step in self.steps if isinstance(step, Wall) and step.book is not None)]
        return {rule.id for book in books for rule in book}


class Memory:
    """What a process leaves behind: saved rule states, newest values and events. The slow, obvious store."""

    def __init__(self) -> None:
        self.states: dict[tuple[str, str, str], RuleState] = {}
        self.readings: list[Reading] = []
        self.events: list[Event] = []

    def keep(self, batch: Batch) -> None:
        """Stores what was said."""
        self.readings += batch.readings
        self.events += batch.events

    def save(self, changes: Iterable[Change]) -> None:
        """Stores where rules stand."""
        for change in changes:
            state = change.state
            self.states[state.device_id, state.part, state.rule_id] = state

    def restored(
        self,
        rules: RuleBook,
        devices: Mapping[str, tuple[str, Mapping[str, Value]] | Actor],
        *,
        now: int,
        started: int = 0,
    ) -> Engine:
        """A new engine that takes up where this memory ends, as `alerts.desk` makes one.

        `started`: when it counts its grace from, if that is not `now`.
        """
        engine = Engine(rules)
        engine.hold((started or now) + CATCH_UP_MS)
        for device_id, known in devices.items():
            actor = Actor(*known)
            engine.know_device(device_id, actor.kind, actor.statics, now=now, zone=actor.zone)
        for device_id, part in dict.fromkeys((one.device_id, one.part) for one in self.readings):
            mine = [one for one in self.readings if (one.device_id, one.part) == (device_id, part)]
            values: dict[str, tuple[Value, int]] = {}
            for one in sorted(mine, key=lambda one: one.ts):  # stable: of two at one instant the later arrival
                values |= {name: (value, one.ts) for name, value in one.fields.items()}
            heard = [one.rx for one in mine if one.sign_of_life]
            newest = max(one.ts for one in mine)
            engine.restore_values(device_id, part, values, ts=newest, rx=max(heard, default=None), now=now)
        newest_events: dict[tuple[str, str, str | None], Event] = {}
        once: dict[tuple[object, ...], Event] = {}
        for event in self.events:
            once.setdefault((event.device_id, event.part, event.id, event.ts, event.raised), event)
        for event in sorted(once.values(), key=lambda one: one.ts):
            newest_events[event.device_id, event.part, event.fault] = event
        for event in newest_events.values():
            engine.restore_event(event)
        for _, state in sorted(self.states.items()):
            engine.restore_state(state)
        self.save(engine.reconcile())
        rehearsal = engine.rehearsal()
        rehearsal.take(sorted([*self.readings, *once.values()], key=lambda one: one.ts))
        rehearsal.end()
        engine.plan_all()
        return engine


def play(case: Case, way: Way = "plain") -> list[Change]:
    """All changes of a case, in the order in which they were decided."""
    stage = _Stage(case, restarting=way == "restarts")
    for step in _joined(case.steps) if way == "batches" else case.steps:
        if isinstance(step, Wall):
            if way == "restarts" and step.restart:
                continue  # one of many, and the grace after it is not over as soon as that of the others
            stage.move(step)
        else:
            stage.hear(step)
    return stage.changes


def _joined(steps: Iterable[Said | Wall]) -> Iterator[Said | Wall]:
    """The same steps with up to ten messages in one."""
    items: list[tuple[Reading | Event, ...]] = []
    for step in steps:
        if isinstance(step, Said):
            items.append(step.items)
        if items and (isinstance(step, Wall) or len(items) == AT_ONCE):
            yield Said(tuple(one for message in items for one in message))
            items = []
        if isinstance(step, Wall):
            yield step
    if items:
        yield Said(tuple(one for message in items for one in message))


class _Stage:
    """The engine that is at work, what it decided, and what is left of it after a kill."""

    def __init__(self, case: Case, *, restarting: bool) -> None:
        self._devices = case.devices
        self._book = case.book
        self._restarting = restarting
        self._memory = Memory()
        self._listening = True
        self.changes: list[Change] = []
        self._engine = self._memory.restored(case.book, self._devices, now=case.start, started=case.start - CATCH_UP_MS)
        self._engine.listening(True, now=case.start)

    def hear(self, said: Said) -> None:
        batch = Batch(said.items)
        self._take(self._engine.observe(batch))
        self._memory.keep(batch)
        self._restart_after(max(one.rx for one in said.items))

    def move(self, step: Wall) -> None:
        if step.listening is not None:
            self._listening = step.listening
            self._engine.listening(step.listening, now=step.now)
            if step.listening:
                self._engine.hold(step.now + CATCH_UP_MS)
        if step.book is not None:
            self._book = step.book
            self._take(self._engine.reload(step.book, now=step.now))
        if step.restart:
            self._start(step.now, step.now)
        self._take(self._engine.advance(step.now))
        self._restart_after(step.now)

    def _take(self, made: list[Change]) -> None:
        self._memory.save(made)
        self.changes += made

    def _restart_after(self, now: int) -> None:
        if self._restarting:
            # The grace after a start is for what the broker holds; here nothing waits, so that it may be over at once.
            self._start(now, now - CATCH_UP_MS)

    def _start(self, now: int, started: int) -> None:
        self._engine = self._memory.restored(self._book, self._devices, now=now, started=started)
        self._engine.listening(self._listening, now=now)


# --- in words --------------------------------------------------------------------------------------------------------

_LINE = re.compile(
    r"(?P<at>\S+) +(?P<effect>raise|ease|clear) +(?P<rule>[a-z0-9.-]+)(?P<part>/[0-9]+)?(?P<device>@\S+)?"
    r"(?: +(?P<severity>P[0-4]))?(?P<late> +late)?(?: +\((?P<reason>[a-z-]+)\))?"
)
_PIECE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)")
_UNIT_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}


class Line(NamedTuple):
    """What became of an incident: `20s raise port-hot/3@pile-2 P1 late (late-data)`."""

    at_ms: int
    """From the start of the case."""
    effect: str
    rule_id: str
    part: str
    device: str
    """Empty: the first one of the case. The site is left out where it is the same."""
    severity: str
    late: bool
    reason: str

    def __str__(self) -> str:
        where = (f"/{self.part}" if self.part else "") + (f"@{self.device}" if self.device else "")
        line = f"{written(self.at_ms)} {self.effect} {self.rule_id}{where}"
        line += f" {self.severity}" if self.severity else ""
        return line + (" late" if self.late else "") + (f" ({self.reason})" if self.reason else "")


def line_of(text: str) -> Line:
    """Reads a line. ValueError says what is expected."""
    found = _LINE.fullmatch(text.strip())
    if found is None or (found["severity"] is None) != (found["effect"] == "clear"):
        example = "'20s raise port-hot/3 P1', '30s ease port-hot P2' or '1m30s clear port-hot'"
        raise ValueError(f"'{text[:80]}' is no line like {example}")
    return Line(
        instant_ms(found["at"]),
        found["effect"],
        found["rule"],
        (found["part"] or "")[1:],
        (found["device"] or "")[1:],
        found["severity"] or "",
        found["late"] is not None,
        found["reason"] or "",
    )


def told(changes: Iterable[Change], case: Case) -> list[Line]:
    """What became of incidents, without what only changed where a rule stands."""
    first = next(iter(case.devices))
    site = first.partition(".")[0]
    lines = []
    for change in changes:
        if change.effect == "none":
            continue
        device_id = change.state.device_id
        device = "" if device_id == first else device_id.removeprefix(f"{site}.")
        lines.append(
            Line(
                change.at - case.start,
                change.effect,
                change.finding.rule_id,
                change.state.part,
                device,
                "" if change.effect == "clear" else str(change.severity or change.finding.severity),
                change.late,
                change.reason,
            )
        )
    return lines


def instant_ms(text: str) -> int:
    """`20s`, `1h5m`, `0.5s` as ms. ValueError says what is expected."""
    pieces = _PIECE.findall(text)
    if not pieces or "".join(number + unit for number, unit in pieces) != text:
        raise ValueError(f"'{text[:40]}' is no time from the start of the case, like 20s, 1.5s or 1h5m")
    return sum(round(float(number) * _UNIT_MS[unit]) for number, unit in pieces)


def written(ms: int) -> str:
    """The same as text: seconds below an hour, then hours, minutes and seconds."""
    if ms < 0:
        return f"-{written(-ms)}"
    hours, rest = divmod(ms, 3_600_000)
    minutes, rest = divmod(rest, 60_000) if hours else (0, rest)
    seconds = f"{rest // 1000}" + (f".{rest % 1000:03}".rstrip("0") if rest % 1000 else "")
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes else "")
    return text if text and not rest else f"{text}{seconds}s"


def difference(case: Case, way: Way) -> str:
    """What is wrong with the outcome of a case: empty if nothing is. Lines with `-` did not come, `+` came instead."""
    expected = list(case.expect)
    got = [str(line) for line in told(play(case, way), case)]
    loud = [line for line in got if line_of(line).rule_id in case.quiet]
    if got == expected and not loud:
        return ""
    rows = [row for row in difflib.ndiff(expected, got) if not row.startswith("?")]
    rows += [f"! {line}: named as quiet" for line in loud]
    return "\n".join(rows)
