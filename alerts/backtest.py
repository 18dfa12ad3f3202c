"""What rules would have opened on stored history, and how that differs from the rules of today.

Pure: readings, events and rules in, incidents out. Device time is the clock: everything counts as heard at the instant
at which it was true, nothing is late or out of order, and a backlog that came after an outage is no silence. What was
never sent is: silence is a gap in what was measured. Devices commute, so their parts of the history can be judged apart
from each other, and the incidents put together (but a site's devices stay together where there are rules for sites).

A plain rule's verdict is a function of values, so readings that repeat what their part said last are left out
(`Thinner`); what comes out is the same, as tests/alerts/test_backtest.py shows.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import tzinfo
from heapq import heappop, heappush
from typing import Final, NamedTuple

from alerts.engine import HOME_ZONE, Engine
from alerts.pack import MODE, conditions, rule_series
from alerts.rulebook import RuleBook
from alerts.rules import SITE, Rule
from core.incident import Change
from core.kinds import KINDS, all_fields
from core.reading import Batch, Event, Reading, Value
from storage.history import STATUS, Item

TICK_MS: Final = 1_000
"""Silent devices are moved on this often."""

SLACK_MS: Final = 5_000
"""What is held back is told so long before it could matter: more than a tick and the grace of a timer."""


class Known(NamedTuple):
    """What the register says of a device."""

    kind: str
    statics: Mapping[str, Value]
    zone: tzinfo = HOME_ZONE


class Opening(NamedTuple):
    """An incident: one of `rules` fires for a part of a device. Times: device time, Unix ms."""

    device_id: str
    part: str
    group: str
    rule_id: str
    """That opened it."""
    severity: str
    at: int
    ended: int | None
    """None: it stands at the end."""
    joined: tuple[str, ...] = ()
    """Other rules of the group that fired while it was open."""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.device_id, self.part, self.group


class Chosen(RuleBook):
    """Some rules of a book."""

    def __init__(self, book: RuleBook, rule_ids: Collection[str]) -> None:
        """`rule_ids`: of rules and of steps of ladders."""
        super().__init__([], [one for one in book.sources if one.rule_id in rule_ids], book.files, book.digest)
        self.rules = tuple(rule for rule in book.rules if rule.id in rule_ids)
        self._book = book
        self._ids = rule_ids
        self._found: dict[int, tuple[tuple[Rule, ...], tuple[Rule, ...]]] = {}
        """By id of the whole tuple, which is kept so that the id stays its own."""

    def rules_for(self, kind: str, *, device_id: str, model: str | None) -> tuple[Rule, ...]:
        whole = self._book.rules_for(kind, device_id=device_id, model=model)
        if id(whole) not in self._found:
            self._found[id(whole)] = (whole, tuple(rule for rule in whole if rule.id in self._ids))
        return self._found[id(whole)][1]


def affected(today: RuleBook, other: RuleBook) -> frozenset[str]:
    """Rules whose incidents may differ: those that changed, and whom they share a group or an inhibition with."""
    before, after = ({(rule.id, rule.version) for rule in book} for book in (today, other))
    found = {rule_id for rule_id, _ in before ^ after}
    every = [*today, *other]
    while True:
        groups = {(rule.kind, rule.finding.group) for rule in every if rule.id in found}
        names = {group for _, group in groups}
        held_by = {group for rule in every if rule.id in found for group in rule.inhibited_by}
        linked = {
            rule.id
            for rule in every
            if (rule.kind, rule.finding.group) in groups
            or rule.finding.group in held_by
            or not rule.inhibited_by.isdisjoint(names)
        }
        if linked <= found:
            return frozenset(found)
        found |= linked


def fields_of(books: Iterable[RuleBook]) -> frozenset[str]:
    """The fields that must be read for them."""
    rules = [rule for book in books for rule in book]
    counted = (one.counted.fields for rule in rules for one in rule_series(rule) if one.counted is not None)
    return frozenset({MODE}).union(*(rule.watched for rule in rules), *counted)


def kinds_of(books: Iterable[RuleBook]) -> frozenset[str]:
    """The kinds of devices that they are about."""
    kinds = {rule.kind for book in books for rule in book}
    return frozenset(KINDS) if SITE in kinds else frozenset(kinds)


# --- playing ---------------------------------------------------------------------------------------------------------


class Play:
    """The same history through one engine for each of some books. Feed it items in order, then `finish`."""

    def __init__(self, books: Sequence[RuleBook], devices: Mapping[str, Known], *, start: int, end: int) -> None:
        """`start` to `end`, Unix ms. `devices`: of the register, by id; others are taken as they come."""
        self.items = 0
        self._engines = [Engine(book) for book in books]
        self._ledgers = [_Ledger() for _ in books]
        self._end = end
        self._tick = start - start % TICK_MS + TICK_MS
        self._batch: list[Item] = []
        self._thinner = Thinner(books)
        for engine in self._engines:
            for device_id, known in devices.items():
                engine.know_device(device_id, known.kind, known.statics, now=start, zone=known.zone)
            engine.listening(True, now=start)

    def feed(self, items: Iterable[Item], progress: Callable[[int], None] = lambda _: None) -> None:
        """Takes in items in the order of `storage.history`. `progress` is told the device time now and then."""
        take, end = self._thinner.take, self._end
        for item in items:
            at = item.ts
            if isinstance(item, Reading) and not item.fields.keys().isdisjoint(STATUS):
                at = item.rx  # see `storage.history.instant`
            if at >= end:
                break
            self.items += 1
            if at >= self._tick:
                self._move(at, progress)
            self._batch += take(_as_heard(item, at))

    def finish(self) -> list[list[Opening]]:
        """The incidents of each book, by time; with no end where they still stand. Time goes to `end`, no further."""
        self._batch += self._thinner.rest()
        self._observe()
        for engine, ledger in zip(self._engines, self._ledgers, strict=True):
            ledger.take(engine.advance(self._end))
        return [ledger.openings() for ledger in self._ledgers]

    def _move(self, at: int, progress: Callable[[int], None]) -> None:
        now = at - at % TICK_MS
        self._batch += self._thinner.due(now)
        self._observe()
        for engine, ledger in zip(self._engines, self._ledgers, strict=True):
            ledger.take(engine.advance(now))
        self._tick = now + TICK_MS
        progress(now)

    def _observe(self) -> None:
        if self._batch:
            batch = Batch(tuple(self._batch))
            for engine, ledger in zip(self._engines, self._ledgers, strict=True):
                ledger.take(engine.observe(batch))
            self._batch = []


def _as_heard(item: Item, at: int) -> Item:
    """As if it had come at the instant at which it was true. Without its number: nothing is out of order here."""
    if isinstance(item, Reading):
        # Directly, because this is done for every reading: `_replace` takes three times as long.
        return tuple.__new__(Reading, (item[0], item[1], item[2], at, at, None, item[6], True, item[8]))
    return item._replace(ts=at, rx=at, seq=None, clock_ok=True)


class Thinner:
    """Leaves out readings that change nothing: repeats of what their part said last, by no field that is timed.

    What is left out lengthens nothing: a repeat is told again before its values can go stale or its device can be
    called silent, and the last one before a pause is always told. So every value is known or unknown, and every device
    heard or silent, at exactly the instants at which it would be. Only the times of values in the evidence differ.
    """

    def __init__(self, books: Iterable[RuleBook]) -> None:
        rules = [rule for book in books for rule in book]
        self._timed = {kind: _timed(rule for rule in rules if rule.kind == kind) for kind in KINDS}
        """Fields of which every report matters."""
        self._heeded = {rule.kind for rule in rules if any("absent(" in one.text for one in conditions(rule))}
        """Kinds whose every message matters."""
        self._hold_ms = {kind: _hold_ms(kind, rules) for kind in KINDS}
        self._told: dict[tuple[str, str], tuple[int, Mapping[str, Value]]] = {}
        """Of each part: time and fields of what was told last."""
        self._held: dict[tuple[str, str], Reading] = {}
        """Of each part: the newest repeat, not told yet."""
        self._queue: list[tuple[int, tuple[str, str]]] = []
        """When what is held must be told at the latest: a heap."""

    def take(self, item: Item) -> Iterable[Item]:
        """What of this item, and of what is held back, must be told now."""
        key = (item[0], item[2])
        if isinstance(item, Event):
            return (item,) if (held := self._held.pop(key, None)) is None else (held, item)
        told, held = self._told.get(key), self._held.get(key)
        fields = item.fields
        hold_ms = self._hold_ms[item.kind]
        if told is not None and item.ts - told[0] < hold_ms and fields == told[1] and self._is_plain(item):
            if held is None:
                heappush(self._queue, (told[0] + hold_ms, key))
            self._held[key] = item
            return ()
        self._told[key] = (item.ts, fields)
        if held is None:
            return (item,)
        del self._held[key]
        return (held, item)

    def _is_plain(self, reading: Reading) -> bool:
        return reading.kind not in self._heeded and self._timed[reading.kind].isdisjoint(reading.fields)

    def due(self, now: int) -> list[Item]:
        """What was held back for as long as it may be."""
        found: list[Item] = []
        while self._queue and self._queue[0][0] <= now:
            by, key = heappop(self._queue)
            held = self._held.get(key)
            if held is not None and self._told[key][0] + self._hold_ms[held.kind] <= by:
                del self._held[key]
                self._told[key] = (held.ts, held.fields)
                found.append(held)
        return found

    def rest(self) -> list[Item]:
        """All that is held back."""
        found: list[Item] = list(self._held.values())
        self._held.clear()
        return found


def _hold_ms(kind: str, rules: Sequence[Rule]) -> int:
    """How long a repeat may wait: until shortly before values would be stale, or the device silent."""
    mine = [rule for rule in rules if rule.kind == kind]
    looked_at = frozenset({MODE}).union(*(rule.watched for rule in mine))
    stale = (spec.stale_ms for name, spec in all_fields(kind).items() if name in looked_at)
    silences = (rule.silence_ms for rule in rules if rule.silence_ms and rule.kind in (kind, SITE))
    return max(0, min([600_000, *stale, *silences]) - SLACK_MS)


def _timed(rules: Iterable[Rule]) -> frozenset[str]:
    rules = [*rules]
    names = (rule.watched for rule in rules if not rule.plain)
    counted = (one.counted.fields for rule in rules for one in rule_series(rule) if one.counted is not None)
    return frozenset[str]().union(*names, *counted)


class _Ledger:
    """Incidents as they open and close."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str, str], Opening] = {}
        self._over: list[Opening] = []

    def take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.effect == "raise":
                self._raise(change)
            elif change.effect == "clear":
                key = (change.state.device_id, change.state.part, change.finding.group)
                if (opening := self._open.pop(key, None)) is not None:
                    self._over.append(opening._replace(ended=change.at))

    def _raise(self, change: Change) -> None:
        rule_id, severity = change.finding.rule_id, str(change.severity or change.finding.severity)
        key = (change.state.device_id, change.state.part, change.finding.group)
        known = self._open.get(key)
        if known is None:
            self._open[key] = Opening(*key, rule_id, severity, change.at, None)
        else:
            joined = known.joined if rule_id in (known.rule_id, *known.joined) else (*known.joined, rule_id)
            self._open[key] = known._replace(joined=joined, severity=min(severity, known.severity))

    def openings(self) -> list[Opening]:
        return sorted([*self._over, *self._open.values()], key=lambda one: (one.at, one.key, one.rule_id))


# --- comparing -------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    """One incident under both rules; one of the two may be missing."""

    today: Opening | None
    other: Opening | None


def compared(today: Iterable[Opening], other: Iterable[Opening]) -> list[Pair]:
    """Which incident of today's rules is which of the others: of one fault, and open at the same time, each once."""
    left: dict[tuple[str, str, str], list[Opening]] = {}
    for opening in today:
        left.setdefault(opening.key, []).append(opening)
    pairs: list[Pair] = []
    for opening in sorted(other, key=lambda one: one.at):
        mine = left.get(opening.key, [])
        match = next((one for one in mine if _overlap(one, opening)), None)
        if match is not None:
            mine.remove(match)
        pairs.append(Pair(match, opening))
    pairs += [Pair(opening, None) for rest in left.values() for opening in rest]
    return sorted(pairs, key=lambda pair: min((one.at, one.key) for one in pair if one is not None))


def _overlap(one: Opening, other: Opening) -> bool:
    return (one.ended is None or other.at <= one.ended) and (other.ended is None or one.at <= other.ended)


def cuts(devices: Mapping[str, int], parts: int, *, whole_sites: bool) -> Iterator[list[str]]:
    """Devices (id: how much they said) in about equal shares that can be judged apart from each other."""
    units: dict[str, list[str]] = {}
    for device_id in devices:
        units.setdefault(device_id.partition(".")[0] if whole_sites else device_id, []).append(device_id)
    shares: list[tuple[int, list[str]]] = [(0, []) for _ in range(parts)]
    for unit in sorted(units.values(), key=lambda ids: (-sum(devices[one] for one in ids), ids)):
        said, ids = min(shares, key=lambda share: share[0])
        shares.remove((said, ids))
        shares.append((said + sum(devices[one] for one in unit), [*ids, *unit]))
    yield from (sorted(ids) for _, ids in shares if ids)
