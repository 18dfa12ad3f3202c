"""The engine at work: a sink for batches, a clock that moves silent devices on, and a memory that survives kill -9.

Changes are written in one transaction before the batch counts as accepted. A transaction that failed is tried again
with the same changes: the engine never decides twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import tzinfo
from typing import Final
from zoneinfo import ZoneInfo

import structlog

from alerts.engine import HOME_ZONE, Engine
from alerts.readback import ReadBack, Store
from alerts.rulebook import RuleBook
from core.clock import Clock
from core.errors import RuleError, StoreUnavailable
from core.incident import Change, RuleState
from core.reading import Batch
from storage.incidents import Incidents
from storage.registry import Registry
from storage.series import SeriesStore

TICK_S: Final = 0.2
REGISTER_REFRESH_S: Final = 30.0

CATCH_UP_MS: Final = 5_000
"""After we could not hear, timers first let the broker deliver what queued up for us."""

LONGEST_WAIT_MS: Final = 60_000
"""After a start without a broker, timers wait no longer than this: what was pending then counts as still true."""

ASK_AGAIN_S: Final = 5.0
"""A series store that was away when we started is asked for the last values this often."""

PAUSE_S: Final = 3.0
"""A tick that comes so late means that this process did not run, and so could not hear."""

_log = structlog.get_logger()


class AlertDesk:
    """Owns the engine. `accept`, `listening` and the ticking thread may meet: a lock lets one in at a time."""

    def __init__(
        self,
        book: RuleBook,
        *,
        incidents: Incidents,
        registry: Registry,
        series: Store,
        now: Clock,
        told: Callable[[], None] = lambda: None,
        newer_rules: Callable[[str], RuleBook | None] = lambda _: None,
    ) -> None:
        """`told` is called after changes were written, so that notifications need not wait for their next look.

        `newer_rules` is asked now and then, with the digest of the rules in force: other ones, or None.
        """
        self._incidents = incidents
        self._registry = registry
        self._now = now
        self._told = told
        self._lock = threading.Lock()
        self._unsaved: list[Change] = []
        self._known: dict[str, str] = {}
        """Kind by device id."""
        self._connected = False
        self._flowing = True
        self.alerts_lost = 0
        """Decisions that a bug of ours kept from being written."""
        self.book = book
        self.rules_refused = ""
        """Why the rule files on disk are not in force; empty: they are."""
        self._newer_rules = newer_rules
        self._engine = Engine(book)
        self._engine.hold(now() + LONGEST_WAIT_MS)
        self._refresh_register()
        self._series: SeriesStore | None = series
        """The series store, until the last values are taken from it."""
        self._restore_values()
        self._read_back = ReadBack(self._engine, series, self._lock, now=now())
        self._read_back.begin()
        self._restore_states()
        self._unsaved += self._engine.reconcile()

    def accept(self, batch: Batch) -> None:
        """Judges a batch. Returns when everything that follows from it is durable."""
        with self._lock:
            strangers = {item.device_id: item.kind for item in batch.items if item.device_id not in self._known}
            if strangers:
                self._registry.heard(strangers.items(), now=self._now())
                self._known |= strangers
            self._engine.observe(batch, self._unsaved)
            self._save()

    def listening(self, connected: bool) -> None:
        """The connection to the broker came or went."""
        with self._lock:
            self._connected = connected
            self._hearing_changed()

    def flowing(self, flowing: bool) -> None:
        """Whether the worker gets rid of what it receives. A database that does not answer makes us deaf too."""
        with self._lock:
            self._flowing = flowing
            self._hearing_changed()

    def _hearing_changed(self) -> None:
        now = self._now()
        hearing = self._connected and self._flowing
        self._engine.listening(hearing, now=now)
        if hearing:
            self._engine.hold(now + CATCH_UP_MS)

    def tick(self) -> None:
        """Moves time on for devices that say nothing."""
        with self._lock:
            self._unsaved += self._engine.advance(self._now())
            self._save()

    def run(self, stop: threading.Event) -> None:
        """Ticks until told to stop. A database that does not answer is asked again at the next tick."""
        refreshed = asked = ticked = time.monotonic()
        while not stop.wait(TICK_S):
            try:
                paused, ticked = time.monotonic() - ticked > PAUSE_S, time.monotonic()
                if paused:
                    with self._lock:
                        self._hearing_changed()
                self.tick()
                if self._series is not None and time.monotonic() - asked > ASK_AGAIN_S:
                    self._restore_values()
                    asked = time.monotonic()
                if time.monotonic() - refreshed > REGISTER_REFRESH_S:
                    refreshed = time.monotonic()
                    with self._lock:
                        self._refresh_register()
                        self._unsaved += self._engine.reconcile()
                        self._save()
                    self.refresh_rules()
            except StoreUnavailable as error:
                _log.error("alerts wait for the records database", error=str(error))

    def read_back(self, stop: threading.Event) -> None:
        """What a long window of a rule looks at, and what short ones had no time for at the start."""
        self._read_back.run(stop)

    def refresh_rules(self) -> None:
        """Takes up rule files that were edited. Files with a fault in them are named, and the old rules go on."""
        try:
            book = self._newer_rules(self.book.digest)
        except (RuleError, OSError) as error:
            if str(error) != self.rules_refused:
                _log.error("the rule files have faults; the rules of before go on", error=str(error))
            self.rules_refused = str(error)
            return
        self.rules_refused = ""
        if book is None:
            return
        with self._lock:
            self._unsaved += self._engine.reload(book, now=self._now())
            self.book = book
            self._save()
        _log.info("other rules are in force", rules=len(book.rules))

    @property
    def troubles(self) -> Mapping[str, str]:
        """Rules that could not be evaluated, with the last reason."""
        return self._engine.troubles

    def kind_of(self, device_id: str) -> str | None:
        """The kind a device is known as; None for a stranger."""
        return self._known.get(device_id)

    @property
    def late_samples(self) -> int:
        return self._engine.late_samples

    def _save(self) -> None:
        if not self._unsaved:
            return
        try:
            self._incidents.apply(self._unsaved, now=self._now())
        except StoreUnavailable:
            raise
        except Exception:  # noqa: BLE001 - one change that cannot be written must not hold up the alarms of all others
            self._unsaved = [change for change in self._unsaved if self._is_saved(change)]
        for change in self._unsaved:
            if change.effect != "none":
                _log.info(
                    "fault" if change.effect == "raise" else "fault gone",
                    device=change.state.device_id,
                    part=change.state.part,
                    rule=change.state.rule_id,
                    severity=str(change.finding.severity),
                )
        announced = any(change.effect != "none" for change in self._unsaved)
        self._unsaved = []
        if announced:
            self._told()

    def _is_saved(self, change: Change) -> bool:
        """Writes one change alone; a bug of ours that makes this impossible is logged, counted, and fails readiness."""
        try:
            self._incidents.apply([change], now=self._now())
        except StoreUnavailable:
            raise
        except Exception:  # noqa: BLE001 - as above
            self.alerts_lost += 1
            _log.exception("AN ALERT IS LOST: it cannot be written down (please report this)", change=change)
            return False
        return True

    def _refresh_register(self) -> None:
        zones: dict[str, tzinfo] = {site.id: ZoneInfo(site.zone) for site in self._registry.sites()}
        for device in self._registry.devices():
            zone = zones.get(device.site_id, HOME_ZONE)
            self._engine.know_device(device.id, device.kind, device.statics, now=self._now(), zone=zone)
            self._known[device.id] = device.kind

    def _restore_values(self) -> None:
        """What devices said last. A series store that is away must not keep us from judging what they say now."""
        assert self._series is not None
        try:
            events, values = self._series.newest_events(), self._series.last_values()
        except StoreUnavailable as error:
            _log.warning("judging without the last values until the series store answers", error=str(error))
            return
        self._series = None
        now = self._now()
        with self._lock:
            for (device_id, part), found in values.items():
                if device_id in self._known:
                    held = {name: (last.value, last.ts) for name, last in found.values.items()}
                    self._engine.restore_values(device_id, part, held, ts=found.ts, rx=found.rx, now=now)
            for event in events:
                self._engine.restore_event(event)

    def _restore_states(self) -> None:
        """Takes up where the last process stopped, however it stopped."""
        for row in self._incidents.rule_states():
            self._engine.restore_state(
                RuleState(
                    row["device_id"],
                    row["part"],
                    row["rule_id"],
                    row["state"],
                    row["since_device_ms"],
                    row["changed_device_ms"],
                    tuple(row["event_ids"]),
                    row["version"],
                    row["memo"],
                )
            )
