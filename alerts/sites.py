"""Many devices of a site silent at once are one thing: a gateway, the mains, the network. One incident, not forty.

A rule of kind `site` fires when so large a share of the site's devices, and so many, said nothing for its `silence`.
Its incident stands for the device `SITE.*`. Rules of devices that it inhibits (`inhibited_by`) are held back meanwhile;
those that are still true when it is over fire then.

This runs on the wall clock, by receive times: silence is what we do not hear. Time in which we could not hear does not
count, so an outage of our own is nobody's silence.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field

from alerts.condition import NEVER_MS
from alerts.course import finding_of, without
from alerts.memory import Device
from alerts.rulebook import RuleBook
from alerts.rules import Rule
from core.incident import Change, RuleState


@dataclass(slots=True)
class Site:
    """Who of a site is quiet, by rule."""

    devices: set[str] = field(default_factory=set)
    quiet: dict[str, set[str]] = field(default_factory=dict)
    states: dict[str, RuleState] = field(default_factory=dict)


class Sites:
    """All sites of an engine."""

    def __init__(self, book: RuleBook, devices: Mapping[str, Device], emit: Callable[[Change], None]) -> None:
        """`devices`: the engine's, by id."""
        self._emit = emit
        self._book = book
        self._devices = devices
        self._sites: dict[str, Site] = {}
        self._timers: list[tuple[int, str, str]] = []
        """(receive time, device, rule): when a device that was heard then must be looked at. A heap."""
        self._clearing: set[str] = set()
        self._freed: list[tuple[str, int]] = []
        """(site, receive time): where something that inhibits ended."""

    def join(self, device: Device, now: int) -> None:
        """A device of the site is known from now on."""
        self._sites.setdefault(device.site, Site()).devices.add(device.id)
        for rule in self._rules(device.site).values():
            heapq.heappush(self._timers, (now + (rule.silence_ms or 0), device.id, rule.id))

    def forget(self, device: Device) -> None:
        site = self._sites[device.site]
        site.devices.discard(device.id)
        for quiet in site.quiet.values():
            quiet.discard(device.id)

    def heard(self, device: Device, rx: int) -> None:
        """A sign of life."""
        site = self._sites[device.site]
        for rule_id, quiet in site.quiet.items():
            if device.id in quiet:
                quiet.discard(device.id)
                rule = self._rules(device.site).get(rule_id)
                if rule is not None:
                    heapq.heappush(self._timers, (rx + (rule.silence_ms or 0), device.id, rule_id))
                    self._look(device.site, site, rule, rx)

    def firing(self, site_id: str) -> Collection[str]:
        """Fault groups that fire for the whole site."""
        site = self._sites.get(site_id)
        if site is None or not site.states:
            return ()
        rules = self._rules(site_id)
        firing = [rule_id for rule_id, state in site.states.items() if state.state == "firing" and rule_id in rules]
        return {rules[rule_id].finding.group for rule_id in firing}

    def next_due(self) -> int:
        """When something must be looked at, Unix ms."""
        due = self._timers[0][0] if self._timers else NEVER_MS
        return min([due, *(over for site_id in self._clearing for over in self._overs(site_id))])

    def advance(self, now: int, listening_since: int | None) -> None:
        """Moves on to the wall time `now`, Unix ms."""
        while self._timers and self._timers[0][0] <= now:
            due, device_id, rule_id = heapq.heappop(self._timers)
            device = self._devices.get(device_id)
            rule = self._rules(device.site).get(rule_id) if device is not None else None
            if device is None or rule is None or rule.silence_ms is None:
                continue
            site = self._sites[device.site]
            heard = max(device.last_rx or 0, listening_since or now)
            if heard + rule.silence_ms > now:
                heapq.heappush(self._timers, (heard + rule.silence_ms, device_id, rule_id))
            elif device_id not in site.quiet.setdefault(rule_id, set()):
                site.quiet[rule_id].add(device_id)
                self._look(device.site, site, rule, max(due, heard + rule.silence_ms))
        for site_id in list(self._clearing):
            self._end_what_is_over(site_id, now)

    def freed(self) -> list[tuple[Device, int]]:
        """Devices of sites where something that inhibits ended since this was last asked, and when (receive time)."""
        freed, self._freed = self._freed, []
        return [(self._devices[one], at) for site_id, at in freed for one in sorted(self._sites[site_id].devices)]

    def restore(self, state: RuleState) -> bool:
        """Takes up a saved state, if it is a site's."""
        site_id, _, rest = state.device_id.partition(".")
        if rest != "*":
            return False
        site = self._sites.setdefault(site_id, Site())
        site.states[state.rule_id] = state
        if state.state == "firing":  # who speaks from now on is taken out; who is not known yet does not count
            site.quiet[state.rule_id] = set(site.devices)
        if "clearing" in state.memo:
            self._clearing.add(site_id)
        return True

    def reload(self, book: RuleBook, now: int) -> None:
        """Goes on with other rules."""
        self._book = book
        self._timers.clear()
        for site_id, site in self._sites.items():
            site.quiet.clear()
            for device_id in site.devices:
                heard = self._devices[device_id].last_rx or now
                for rule in self._rules(site_id).values():
                    heapq.heappush(self._timers, (heard + (rule.silence_ms or 0), device_id, rule.id))

    def settle(self) -> None:
        """States of rules that are gone end, with the reason."""
        for site_id, site in self._sites.items():
            rules = self._rules(site_id)
            for state in [one for one in site.states.values() if one.rule_id not in rules]:
                del site.states[state.rule_id]
                if state.state == "firing":
                    idle = state._replace(state="idle", memo={})
                    self._emit(Change(finding_of(state), idle, "clear", state.changed, reason="rule-deleted"))
                    self._freed.append((site_id, state.changed))

    def _look(self, site_id: str, site: Site, rule: Rule, at: int) -> None:
        """Whether enough of the site is quiet at this receive time."""
        assert rule.quorum is not None
        quiet = len(site.quiet.get(rule.id, ()))
        true = quiet >= rule.quorum.at_least and quiet >= rule.quorum.share * len(site.devices)
        state = site.states.get(rule.id)
        firing = state is not None and state.state == "firing"
        if true and not firing:
            memo = {"group": rule.finding.group, "close": rule.finding.close}
            fired = RuleState(f"{site_id}.*", "", rule.id, "firing", at, at, (), rule.version, memo)
            site.states[rule.id] = fired
            told = {
                "rule": rule.id,
                "version": rule.version,
                "since": at - (rule.silence_ms or 0),
                "at": at,
                "silent_for_ms": rule.silence_ms,
                "silent_devices": quiet,
                "devices": len(site.devices),
                "values": {},
            }
            self._emit(Change(rule.finding, fired, "raise", at, False, told, rule.finding.severity))
        elif state is not None and firing:
            clearing = state.memo.get("clearing")
            if not true and clearing is None:
                site.states[rule.id] = state._replace(memo={**state.memo, "clearing": at})
                self._clearing.add(site_id)
            elif true and clearing is not None:
                site.states[rule.id] = state._replace(memo=without(state.memo, "clearing"))

    def _end_what_is_over(self, site_id: str, now: int) -> None:
        site, rules = self._sites[site_id], self._rules(site_id)
        waiting = False
        for state in list(site.states.values()):
            clearing, rule = state.memo.get("clearing"), rules.get(state.rule_id)
            if state.state != "firing" or clearing is None or rule is None:
                continue
            over = clearing + rule.clear_for_ms
            if over > now:
                waiting = True
                continue
            idle = state._replace(state="idle", since=over, changed=over, memo={})
            site.states[rule.id] = idle
            self._emit(Change(rule.finding, idle, "clear", over))
            self._freed.append((site_id, over))
        if not waiting:
            self._clearing.discard(site_id)

    def _overs(self, site_id: str) -> Iterator[int]:
        rules = self._rules(site_id)
        for state in self._sites[site_id].states.values():
            if state.state == "firing" and "clearing" in state.memo and state.rule_id in rules:
                yield state.memo["clearing"] + rules[state.rule_id].clear_for_ms

    def _rules(self, site_id: str) -> dict[str, Rule]:
        return {rule.id: rule for rule in self._book.rules_for("site", device_id=f"{site_id}.*", model=None)}
