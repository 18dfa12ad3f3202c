"""`tizhuang doctor` at InfluxDB: version, databases, rights, retention and clock, tried with the driver's own means.

A point of our own is written to each database and removed again.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

import urllib3
from urllib3.exceptions import HTTPError

from core.clock import Clock
from core.doctor import Finding, Level
from core.errors import StoreUnavailable
from core.settings import Settings
from storage.influx_server import CONNECT_S, InfluxServer, LinesRefused

SKEW_S: Final = 5.0
MEASUREMENT: Final = "tizhuang_doctor"
DAY_S: Final = 86_400
_UNIT_S: Final = {"h": 3600, "m": 60, "s": 1}


def check_influx(settings: Settings, now: Clock) -> Iterator[Finding]:
    """All findings, in order. Stops where the next one would make no sense."""
    keep, bucket = settings.series, settings.influx.bucket
    databases = {bucket: keep.raw_days, f"{bucket}_1m": keep.minute_days, f"{bucket}_1h": keep.hour_days}
    with closing(InfluxServer(settings.influx)) as server:
        try:
            version = server.version()
        except StoreUnavailable as error:
            found = f"{error}: measurements wait in the spool ({settings.spool.limit_mb} MB), and alerts go on"
            yield Finding("series.reach", Level.LOST, found, "is InfluxDB running, and is influx.url right?")
            return
        way = "/api/v2/write" if version.has_v2_write else "/write"
        yield Finding("series.reach", Level.OK, f"{version.text} at {server.url}: written by {way}, read by /query")
        yield _clock(server.url, now)
        there = _databases(server, databases)
        yield there
        if there.level is not Level.LOST:
            yield _rights(server, databases, now())
            yield _retention(server, databases)


def _clock(url: str, now: Clock) -> Finding:
    """The Date header has whole seconds, so half a second and half the way there and back are not held against it."""
    sent, started = now(), time.monotonic()
    try:
        answer = urllib3.request("GET", f"{url}/ping", retries=False, timeout=CONNECT_S)
        told_s = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
    except (HTTPError, KeyError, ValueError) as error:
        return Finding(
            "series.clock", Level.UNKNOWN, f"it does not tell its time: {error}", "timedatectl on its machine"
        )
    way_s = (time.monotonic() - started) / 2
    skew_s = told_s - (sent / 1000 + way_s)
    if abs(skew_s) <= SKEW_S + 0.5 + way_s:
        return Finding("series.clock", Level.OK, f"within {SKEW_S:.0f} s of ours")
    return Finding(
        "series.clock",
        Level.WARNING,
        f"{abs(skew_s):.0f} s {'ahead of' if skew_s > 0 else 'behind'} ours: one of the two is wrong",
        "timedatectl on both machines: NTP",
    )


def _databases(server: InfluxServer, databases: Mapping[str, int]) -> Finding:
    """Those that are missing are made, as the service does when it starts."""
    names = ", ".join(databases)
    grant = f"CREATE DATABASE and GRANT ALL for {names} (1.x), or a token that may make buckets in influx.org (2.x, 3)"
    try:
        before = _missing(server, databases)
        if before:
            server.ensure({name: databases[name] for name in before})
        missing = _missing(server, databases)
    except StoreUnavailable as error:
        return Finding(
            "series.databases", Level.LOST, str(error), f"influx.token, or user and password in influx.url; {grant}"
        )
    if missing:
        found = f"not there, and we may not make them: {', '.join(missing)}. Nothing can be stored"
        return Finding("series.databases", Level.LOST, found, grant)
    made = f"; {', '.join(before)} made just now" if before else ""
    return Finding("series.databases", Level.OK, f"{names} are there{made}")


def _missing(server: InfluxServer, databases: Mapping[str, int]) -> list[str]:
    (found,) = server.query("", ["SHOW DATABASES"])
    there = {row[-1] for one in found for row in one.rows}
    return [name for name in databases if name not in there]


def _rights(server: InfluxServer, databases: Mapping[str, int], now: int) -> Finding:
    failed, stay = [], []
    for name in databases:
        probe = secrets.token_hex(4)
        try:
            server.write(name, [f"{MEASUREMENT},probe={probe} value=1i {now}"], "ms")
            if not _found(server, name, probe):
                failed.append(f"{name}: what was written cannot be read")
        except (StoreUnavailable, LinesRefused) as error:
            failed.append(f"{name}: {error}")
        if not _removed(server, name, probe):
            stay.append(name)
    if failed:
        return Finding(
            "series.rights", Level.LOST, "; ".join(failed), f"GRANT ALL ON {', '.join(databases)} to our user"
        )
    left = f"; the measurement {MEASUREMENT} stays in {', '.join(stay)} until its retention" if stay else ""
    return Finding("series.rights", Level.OK, f"{', '.join(databases)} can be written and read{left}")


def _found(server: InfluxServer, database: str, probe: str) -> bool:
    wanted = f'SELECT "value" FROM "{MEASUREMENT}" WHERE probe = \'{probe}\''  # noqa: S608 - our own letters
    (found,) = server.query(database, [wanted])
    return any(one.rows for one in found)


def _removed(server: InfluxServer, database: str, probe: str) -> bool:
    """1.x forgets the series, 2.x the points; 3 deletes nothing."""
    remove = "DROP SERIES" if server.version().major == 1 else "DELETE"
    with suppress(StoreUnavailable):
        server.query(database, [f"{remove} FROM \"{MEASUREMENT}\" WHERE probe = '{probe}'"])
        return not _found(server, database, probe)
    return False


class _Kept(NamedTuple):
    """The retention of one database."""

    database: str
    policy: str
    seconds: int
    """0: for ever."""
    days: int
    """What our settings want."""

    @property
    def too_short(self) -> bool:
        return 0 < self.seconds < self.days * DAY_S

    @property
    def told(self) -> str:
        kept = f"{self.seconds / DAY_S:.0f} days" if self.seconds else "for ever"
        return f"{self.database} {kept} instead of {self.days} days"

    @property
    def mend(self) -> str:
        return f'ALTER RETENTION POLICY "{self.policy}" ON "{self.database}" DURATION {self.days}d'


def _retention(server: InfluxServer, databases: Mapping[str, int]) -> Finding:
    try:
        kept = [_kept(server, name, days) for name, days in databases.items()]
    except StoreUnavailable as error:
        return Finding("series.retention", Level.UNKNOWN, str(error), "the right to SHOW RETENTION POLICIES")
    other = [one for one in kept if one.seconds != one.days * DAY_S]
    told = ", ".join(one.told for one in other)
    mend = "; ".join([*(one.mend for one in other), "or section series of our settings"])
    if any(one.too_short for one in other):
        return Finding("series.retention", Level.LOST, f"data is dropped too early: {told}", mend)
    if other:
        found = f"kept longer than the settings say, so the disk fills: {told}"
        return Finding("series.retention", Level.WARNING, found, mend)
    told = ", ".join(f"{one.database} {one.days} days" for one in kept)
    return Finding("series.retention", Level.OK, f"{told}, as the settings say")


def _kept(server: InfluxServer, database: str, days: int) -> _Kept:
    (found,) = server.query(database, [f'SHOW RETENTION POLICIES ON "{database}"'])
    for row in (row for one in found for row in one.dicts()):
        if row.get("default"):
            return _Kept(database, row["name"], _seconds(row["duration"]), days)
    raise StoreUnavailable(f"{database} names no default retention policy")


def _seconds(duration: str) -> int:
    """`720h0m0s`; 0 means for ever."""
    return sum(int(number) * _UNIT_S[unit] for number, unit in re.findall(r"(\d+)([hms])", duration))
