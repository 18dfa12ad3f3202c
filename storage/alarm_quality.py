"""How good the alarms are: few enough to be answered, none that chatters, none that stays, few that were for nothing.

The measures and figures are those of alarm management as ANSI/ISA-18.2 (IEC 62682) knows it; an operator position here
is a site. Acceptable are, over at least 30 days: on average 1 alarm in 10 minutes (at most 2), never more than 10 in 10
minutes (a flood) and less than 1 % of the time in flood, the ten most frequent alarms no more than 1 % to 5 % of all,
nothing that chatters, fewer than 5 stale ones in a day, and about 80 % low, 15 % medium and 5 % high urgency.

An alarm is each time that a rule fired: the opening of an incident, a rule that joined it, and its return. Load counts
by our clock, when people could see it, and without late ones, which page nobody. Chattering counts by the device's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, Select, or_, select

from storage.records import Records
from storage.tables import device, incident, ticket, ticket_history

PERIOD_MS: Final = 600_000
FLOOD: Final = 10
"""More alarms in a period than this are a flood."""
CHATTER_MS: Final = 60_000
CHATTER: Final = 3
"""So many raises of one rule on one part within `CHATTER_MS` chatter."""
STALE_MS: Final = 86_400_000
OFFENDERS: Final = 10
RAISED: Final = ("report", "joined", "reopen")
UNSTABLE: Final = "unstable"


class Source(NamedTuple):
    """Who raises: one rule on one part of a device."""

    rule_id: str
    device_id: str
    part: str


class Alarm(NamedTuple):
    """One time that a rule fired. `at`: our clock; `device_ms`: the device's; Unix ms."""

    at: int
    device_ms: int
    site_id: str
    source: Source
    severity: str
    """Of its incident, as it is now."""
    late: bool = False
    unstable: bool = False
    """Not a raise: the rule was found to be unstable, and its raises are no longer told apart."""


class Course(NamedTuple):
    """One incident from its opening to its end; `closed`, `outcome`: None while it is open."""

    id: int
    site_id: str
    source: Source
    severity: str
    opened: int
    closed: int | None
    outcome: str | None


class Load(NamedTuple):
    """What one operator position had to answer."""

    site_id: str
    alarms: int
    average: float
    """Alarms in 10 minutes."""
    peak: int
    """The most in one period of 10 minutes."""
    peak_start: int | None
    flood_share: float
    """Of the periods, from 0 to 1."""


class Offender(NamedTuple):
    """A source and how often it raised."""

    source: Source
    alarms: int
    share: float


class Chatter(NamedTuple):
    """A source that raises and clears again and again."""

    source: Source
    most: int
    """Raises within 60 seconds, at the worst; 0 where only the engine found it unstable."""
    unstable: int
    """How often the engine found it unstable."""


class FalseAlarms(NamedTuple):
    """Of the incidents of a rule or device that were closed: how many a person called a false alarm."""

    name: str
    closed: int
    false_alarms: int
    rate: float


class Quality(NamedTuple):
    """All measures over a time; `end` is not part of it."""

    start: int
    end: int
    alarms: int
    late: int
    loads: Sequence[Load]
    severities: Mapping[str, int]
    offenders: Sequence[Offender]
    chattering: Sequence[Chatter]
    stale: Sequence[Course]
    by_rule: Sequence[FalseAlarms]
    by_device: Sequence[FalseAlarms]


def measure(
    alarms: Iterable[Alarm], courses: Sequence[Course], *, start: int, end: int, sites: Iterable[str] = ()
) -> Quality:
    """The measures of a time, from what was raised and the incidents of it. `sites`: also those without an alarm."""
    told = sorted((one for one in alarms if start <= one.at < end), key=lambda one: one.at)
    raised = [one for one in told if not one.unstable]
    seen = [one for one in raised if not one.late]
    closed = [one for one in courses if one.closed is not None and start <= one.closed < end]
    return Quality(
        start,
        end,
        len(raised),
        len(raised) - len(seen),
        _loads(seen, start, end, sites),
        dict(sorted(Counter(one.severity for one in raised).items())),
        _offenders(raised),
        _chattering(told),
        [one for one in courses if one.opened < end and min(one.closed or end, end) - one.opened > STALE_MS],
        _false_alarms((one.source.rule_id, one) for one in closed),
        _false_alarms((one.source.device_id, one) for one in closed),
    )


def _loads(seen: Iterable[Alarm], start: int, end: int, sites: Iterable[str]) -> list[Load]:
    periods = -(-(end - start) // PERIOD_MS)
    counts: dict[str, Counter[int]] = {site_id: Counter() for site_id in sites}
    for one in seen:
        counts.setdefault(one.site_id, Counter())[(one.at - start) // PERIOD_MS] += 1
    return [_load(site_id, counts[site_id], start, end, periods) for site_id in sorted(counts)]


def _load(site_id: str, count: Counter[int], start: int, end: int, periods: int) -> Load:
    total = count.total()
    peak, first = max(((alarms, -number) for number, alarms in count.items()), default=(0, 0))
    floods = sum(alarms > FLOOD for alarms in count.values())
    average = total * PERIOD_MS / (end - start)
    return Load(site_id, total, average, peak, start - first * PERIOD_MS if peak else None, floods / periods)


def _offenders(raised: Sequence[Alarm]) -> list[Offender]:
    counts = Counter(one.source for one in raised)
    worst = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:OFFENDERS]
    return [Offender(source, alarms, alarms / len(raised)) for source, alarms in worst]


def _chattering(told: Iterable[Alarm]) -> list[Chatter]:
    """The worst first."""
    times: defaultdict[Source, list[int]] = defaultdict(list)
    unstable: Counter[Source] = Counter()
    for one in told:
        if one.unstable:
            unstable[one.source] += 1
        else:
            times[one.source].append(one.device_ms)
    most = {source: _most_within(sorted(mine)) for source, mine in times.items()}
    found = {source: count for source, count in most.items() if count >= CHATTER}
    chatters = [Chatter(source, found.get(source, 0), unstable[source]) for source in found.keys() | unstable.keys()]
    return sorted(chatters, key=lambda one: (-one.most, -one.unstable, one.source))


def _most_within(times: Sequence[int]) -> int:
    """The most of the sorted times that lie within `CHATTER_MS`."""
    return max(number + 1 - bisect_left(times, at - CHATTER_MS) for number, at in enumerate(times))


def _false_alarms(named: Iterable[tuple[str, Course]]) -> list[FalseAlarms]:
    """The worst first; only names with a false alarm."""
    closed: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    for name, one in named:
        closed[name] += 1
        wrong[name] += one.outcome == "false_alarm"
    rates = [
        FalseAlarms(name, count, wrong[name], wrong[name] / count) for name, count in closed.items() if wrong[name]
    ]
    return sorted(rates, key=lambda one: (-one.rate, -one.false_alarms, one.name))


class AlarmQuality:
    """Reads what `measure` needs."""

    def __init__(self, records: Records) -> None:
        self._records = records

    def over(self, *, start: int, end: int, site_id: str | None = None) -> Quality:
        """The measures of a time, of all sites or one. Two queries."""
        sites = [] if site_id is None else [site_id]
        with self._records.read() as connection:
            alarms = [_alarm(row) for row in connection.execute(_of_site(_raised(start, end), site_id))]
            courses = [_course(row) for row in connection.execute(_of_site(_courses(start, end), site_id))]
        return measure(alarms, courses, start=start, end=end, sites=sites)


def _raised(start: int, end: int) -> Select[Any]:
    line = ticket_history.c
    return (
        select(line.at, line.device_ms, line.action, line.facts, *_INCIDENT)
        .select_from(ticket_history)
        .join(ticket, ticket.c.id == line.ticket_id)
        .join(incident, incident.c.id == ticket.c.incident_id)
        .join(device, device.c.id == incident.c.device_id)
        .where(line.at >= start, line.at < end, line.action.in_((*RAISED, UNSTABLE)))
    )


def _courses(start: int, end: int) -> Select[Any]:
    """Incidents that were open at some moment of the time."""
    return (
        select(incident.c.id, incident.c.opened, incident.c.closed, incident.c.outcome, *_INCIDENT)
        .join(device, device.c.id == incident.c.device_id)
        .where(incident.c.opened < end, or_(incident.c.closed.is_(None), incident.c.closed >= start))
        .order_by(incident.c.id)
    )


def _of_site(query: Select[Any], site_id: str | None) -> Select[Any]:
    return query if site_id is None else query.where(device.c.site_id == site_id)


_INCIDENT: Final = (
    device.c.site_id,
    incident.c.device_id,
    incident.c.part,
    incident.c.rule_id,
    incident.c.severity,
    incident.c.late,
)


def _alarm(row: Row[Any]) -> Alarm:
    """A line without a rule is of an older version: its incident's rule stands for it."""
    source = Source(str(row.facts.get("rule") or row.rule_id), row.device_id, row.part)
    when = row.at if row.device_ms is None else row.device_ms
    return Alarm(row.at, when, row.site_id, source, row.severity, row.late, row.action == UNSTABLE)


def _course(row: Row[Any]) -> Course:
    source = Source(row.rule_id, row.device_id, row.part)
    return Course(row.id, row.site_id, source, row.severity, row.opened, row.closed, row.outcome)
