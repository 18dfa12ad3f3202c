"""Device kinds: one file each, and one line here."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Final, NamedTuple

from core.fields import FieldSpec, Wire, specs
from core.kinds.charger import ChargerTelemetry, PortTelemetry
from core.kinds.elevator import ElevatorTelemetry
from core.kinds.status import Status


class Kind(NamedTuple):
    """What the rest of the code needs to know about a kind of device."""

    name: str
    zh: str
    en: str
    telemetry: type[Wire]
    part: type[Wire] | None
    """Model of the parts a snapshot may carry (`ports`), or None."""


KINDS: Final = {
    kind.name: kind
    for kind in (
        Kind("elevator", "电梯", "lift", ElevatorTelemetry, None),
        Kind("charger", "充电桩", "charging pile", ChargerTelemetry, PortTelemetry),
    )
}


STATUS_FIELDS: Final = frozenset(specs(Status))
"""Their newest value is the one received last: a last will carries the time at which it was left with the broker."""


def is_status(kind: str, names: Collection[str]) -> bool:
    """Whether a reading of these fields is a status, and not a sample that happens to name the firmware too."""
    return not STATUS_FIELDS.isdisjoint(names) and specs(KINDS[kind].telemetry).keys().isdisjoint(names)


@cache
def device_fields(kind: str) -> dict[str, FieldSpec]:
    """Known fields of the device itself (part ""), its status included."""
    return specs(Status) | specs(KINDS[kind].telemetry)


@cache
def part_fields(kind: str) -> dict[str, FieldSpec]:
    """Known fields of a part; empty for kinds without parts."""
    model = KINDS[kind].part
    return specs(model) if model else {}


@cache
def all_fields(kind: str) -> dict[str, FieldSpec]:
    """Known fields of the device and its parts: the columns of a series table. Same name, same type and unit."""
    return device_fields(kind) | part_fields(kind)
