"""What a condition sees, made of plain data, for the tests of the language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, tzinfo
from typing import Any

from alerts.expression import Condition, Track, make_track
from core.fields import FieldSpec
from core.reading import Value

LONG_MS = 10 * 365 * 86_400_000


def spec(name: str, of: type, *choices: str, unit: str = "", stale_ms: int = LONG_MS) -> FieldSpec:
    made: dict[str, Any] = dict.fromkeys(FieldSpec._fields)
    return FieldSpec(**{**made, "name": name, "type": of, "unit": unit, "choices": choices, "stale_ms": stale_ms})


FIELDS = {
    one.name: one
    for one in (
        spec("a", bool),
        spec("b", bool),
        spec("c", bool),
        spec("brief", bool, stale_ms=60_000),
        spec("x", float),
        spec("n", int),
        spec("label", str),
        spec("door", str, "closed", "open"),
        spec("speed_mps", float, unit="m/s"),
        spec("temp_c", float, unit="°C", stale_ms=600_000),
        spec("power_w", float, unit="W"),
        spec("load_kg", float, unit="kg"),
        spec("leakage_ma", float, unit="mA"),
        spec("current_a", float, unit="A"),
        spec("voltage_v", float, unit="V"),
        spec("duration_s", int, unit="s"),
        spec("run_hours", float, unit="h"),
        spec("battery_pct", float, unit="%"),
        spec("trips", int),
    )
}
PORTS = {name: FIELDS[name] for name in ("temp_c", "power_w", "trips", "a", "label")}
FAULTS = frozenset({"smoke", "heat"})


class World:
    """A scope at one instant. `values`: (value, device time) by field."""

    def __init__(
        self,
        values: Mapping[str, tuple[Value, int]],
        *,
        now: int = 0,
        zone: tzinfo = UTC,
        statics: Mapping[str, Value] | None = None,
        faults: frozenset[str] = frozenset(),
        heard: int | None = None,
        tracks: Mapping[str, Track] | None = None,
        ports: Mapping[str, Sequence[Value]] | None = None,
    ) -> None:
        self.values, self.now, self.zone = values, now, zone
        self._heard, self._faults = heard, faults
        self._statics, self.tracks, self._ports = statics or {}, tracks or {}, ports or {}

    def at(self, now: int) -> World:
        """The same world at another instant, if nothing comes."""
        return World(
            self.values,
            now=now,
            zone=self.zone,
            statics=self._statics,
            faults=self._faults,
            heard=self._heard,
            tracks=self.tracks,
            ports=self._ports,
        )

    def field(self, name: str) -> Value | None:
        held = self.values.get(name)
        return None if held is None or self.stale(name) else held[0]

    def stale(self, name: str) -> bool:
        held = self.values.get(name)
        return held is not None and self.now - held[1] > FIELDS[name].stale_ms

    def updated(self, name: str) -> int | None:
        held = self.values.get(name)
        return None if held is None else held[1]

    def static(self, name: str) -> Value | None:
        return self._statics.get(name)

    def active(self, fault: str) -> bool:
        return fault in self._faults

    def heard(self) -> int | None:
        return self._heard

    def track(self, key: str) -> Track | None:
        return self.tracks.get(key)

    def siblings(self, name: str) -> Sequence[Value]:
        return self._ports.get(name, ())


def tracks_of(condition: Condition, samples: Mapping[str, Sequence[tuple[int, Value]]]) -> dict[str, Track]:
    """The tracks that a condition asks for, filled. Samples of a field; for a counted condition under its key."""
    made = {}
    for series in condition.series:
        made[series.key] = make_track(series)
        for ts, value in samples.get(series.field or series.key, ()):
            made[series.key].add(ts, value)
    return made
