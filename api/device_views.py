"""Sites and devices as the API and the pages show them: register, last values and incidents put together.

A list of devices costs a handful of queries, however long it is: last values and last seen come out of memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from api import models, ticket_views
from api.services import Services
from core.errors import NotFound, StoreUnavailable
from core.faults import FAULTS
from core.fields import STALE_MS, FieldSpec
from core.kinds import KINDS, all_fields, part_fields
from core.reading import Event
from storage import registry
from storage.series import LastValue, PartValues

SILENT_MS: Final = 10 * 60_000
"""A device that no silence rule watches counts as offline after this."""

EVENT_DAYS_MS: Final = 7 * 86_400_000
MAX_EVENTS: Final = 50


@dataclass(frozen=True)
class Surroundings:
    """What is the same for all devices of one answer, read once."""

    now: int
    buildings: Mapping[str, tuple[str, str]]
    contractors: Mapping[str, tuple[str, str]]
    last_seen: Mapping[str, int]
    severities: Mapping[str, Mapping[str, int]]
    """Open incidents: count by severity, by device id."""
    silence: Mapping[str, int]
    """Milliseconds without a sign of life after which a device of a kind is offline."""


class Tile:
    """A device at a glance: the summary and its parts' newest values."""

    def __init__(
        self,
        row: registry.Device,
        device: models.Device,
        parts: Mapping[str, models.Part],
        severities: Mapping[str, int],
    ) -> None:
        self.row = row
        self.device = device
        self.parts = parts
        self.severities = severities
        """Open incidents: count by severity."""

    def fresh(self, field: str, part: str = "") -> object:
        """A value that is not stale; None when unknown."""
        found = self.parts[part].values.get(field) if part in self.parts else None
        return None if found is None or found.stale else found.value

    @property
    def ports(self) -> list[str]:
        """Port numbers in order: those the register promises, and those that were heard."""
        promised = self.row.statics.get("ports")
        numbers = set(range(1, min(promised, 64) + 1)) if isinstance(promised, int) else set()
        return [str(number) for number in sorted(numbers | {int(part) for part in self.parts if part.isdigit()})]

    @property
    def port_fields(self) -> list[str]:
        """The contract's fields that some port has sent: the columns of a table."""
        sent = {field for part, known in self.parts.items() if part for field in known.values}
        return [field for field in part_fields(self.device.kind) if field in sent] if self.device.kind in KINDS else []

    @property
    def busy(self) -> int:
        """Ports that charge now."""
        return sum(self.fresh("state", port) == "charging" for port in self.ports)

    @property
    def floor_field(self) -> str:
        """What people see on the landing, where the lift says it; otherwise the physical floor."""
        return "floor" if self.fresh("floor_label") is None else "floor_label"

    @property
    def floors(self) -> int:
        """Floors of a lift: as registered, or as many as were seen."""
        known = self.row.statics.get("floors")
        floor = self.parts[""].values.get("floor") if "" in self.parts else None
        seen = floor.value if floor is not None and isinstance(floor.value, int) else 1
        return max(known if isinstance(known, int) else 2, seen, 2)


def surroundings(services: Services) -> Surroundings:
    """Three queries."""
    silence: dict[str, int] = {}
    for rule in services.rules().book.rules:
        if rule.silence_ms is not None:
            silence[rule.kind] = min(rule.silence_ms, silence.get(rule.kind, rule.silence_ms))
    return Surroundings(
        now=services.now(),
        buildings=services.registry.buildings(),
        contractors=services.registry.contractors(),
        last_seen=services.series.last_seen(),
        severities=services.incidents.open_severities(),
        silence=silence,
    )


def sites(services: Services, tiles: Iterable[Tile]) -> list[models.Site]:
    """Registered sites and those that strangers named, by id, with counts over the given devices. Two queries.

    Incidents of a whole site (`SITE.*`) count for the site and for no device of it.
    """
    severities = services.incidents.open_severities()
    known = {site.id: site for site in services.registry.sites()}
    by_site: dict[str, list[Tile]] = {site_id: [] for site_id in known}
    for tile in tiles:
        by_site.setdefault(tile.device.site, []).append(tile)
    return [
        _site(site_id, known.get(site_id), mine, severities.get(f"{site_id}.*", {}))
        for site_id, mine in sorted(by_site.items())
    ]


def tiles(
    services: Services,
    *,
    site: str | None = None,
    kind: str | None = None,
    after_id: str | None = None,
    limit: int | None = None,
) -> list[Tile]:
    """Devices by id, each with its newest values."""
    rows = services.registry.devices(site_id=site, kind=kind, after_id=after_id, limit=limit)
    around = surroundings(services)
    everything = site is None and kind is None and limit is None
    last = services.series.last_values(None if everything else [row.id for row in rows])
    by_device: dict[str, dict[str, PartValues]] = {}
    for (device_id, part), values in last.items():
        by_device.setdefault(device_id, {})[part] = values
    return [_tile(row, by_device.get(row.id, {}), around) for row in rows]


def tile(services: Services, device_id: str) -> Tile:
    """One device. Raises NotFound."""
    row = services.registry.device(device_id)
    if row.kind == registry.WHOLE_SITE:
        raise NotFound("device", device_id)
    last = services.series.last_values([device_id])
    return _tile(row, {part: values for (_, part), values in last.items()}, surroundings(services))


def detail(services: Services, glance: Tile) -> models.DeviceDetail:
    """One device with everything known of it."""
    device_id, now = glance.device.id, services.now()
    incidents = services.incidents.find(open_only=True, device_id=device_id)
    tickets = services.tickets.find(open_only=True, device_id=device_id)
    recent: list[Event] = []
    history_away = ""
    try:
        recent = services.series.events(device_id, start=now - EVENT_DAYS_MS, end=now + EVENT_DAYS_MS, limit=MAX_EVENTS)
    except StoreUnavailable as error:  # tickets and live values must be seen all the same
        history_away = str(error)
    contractors = services.registry.contractors()
    return models.DeviceDetail(
        **glance.device.model_dump(),
        statics=dict(glance.row.statics),
        first_seen=glance.row.first_seen,
        parts=dict(glance.parts),
        incidents=[ticket_views.incident(one) for one in incidents],
        tickets=[ticket_views.ticket(one, contractors) for one in tickets],
        events=[_event(one) for one in recent],
        history_away=history_away,
    )


def spec_of(kind: str, field: str) -> FieldSpec | None:
    """What the contract says of a field; None for fields it does not know."""
    return all_fields(kind).get(field) if kind in KINDS else None


def _tile(row: registry.Device, last: Mapping[str, PartValues], around: Surroundings) -> Tile:
    seen = around.last_seen.get(row.id)
    counts = around.severities.get(row.id, {})
    parts = {part: _part(values, around.now) for part, values in sorted(last.items(), key=_part_order)}
    summary = models.Device(
        id=row.id,
        site=row.site_id,
        kind=row.kind,
        name=models.Name.of_device(row.id, row.zh, row.en),
        building=models.Party.known(row.building_id, around.buildings),
        contractor=models.Party.known(row.contractor_id, around.contractors),
        registered=row.registered,
        state=_state(seen, last.get(""), around.now - around.silence.get(row.kind, SILENT_MS)),
        last_seen=seen,
        age_ms=None if seen is None else max(0, around.now - seen),
        severity=min(counts, default=None),
        open_incidents=sum(counts.values()),
    )
    return Tile(row, summary, parts, counts)


def _state(seen: int | None, own: PartValues | None, silent_since: int) -> models.DeviceState:
    """A device is offline when its last will says so, or when it has been silent for longer than rules allow."""
    said = own.values.get("online") if own else None
    if said is not None and said.value is False:
        return "offline"
    if seen is None:
        return "never"
    return "offline" if seen < silent_since else "online"


def _part_order(item: tuple[str, PartValues]) -> tuple[int, str]:
    return (int(item[0]) if item[0].isdigit() else 0, item[0])


def _part(known: PartValues, now: int) -> models.Part:
    """Known fields first, in the order of the contract; then the others by name."""
    order = {name: index for index, name in enumerate(all_fields(known.kind))}
    names = sorted(known.values, key=lambda name: (order.get(name, len(order)), name))
    # A device whose clock is slow is not stale: its own time now is that of its newest sample, moved on since it came.
    device_now = now if known.rx is None else known.ts + (now - known.rx)
    return models.Part(
        ts=known.ts, values={name: _value(known.kind, name, known.values[name], device_now) for name in names}
    )


def _value(kind: str, name: str, last: LastValue, device_now: int) -> models.FieldValue:
    spec = spec_of(kind, name)
    age = max(0, device_now - last.ts)
    return models.FieldValue.model_construct(
        value=last.value,
        unit=spec.unit if spec else "",
        ts=last.ts,
        age_ms=age,
        stale=age > (spec.stale_ms if spec else STALE_MS),
    )


def _event(event: Event) -> models.Event:
    fault = FAULTS.get(event.fault or "")
    return models.Event(
        part=event.part,
        ts=event.ts,
        rx=event.rx,
        id=event.id,
        table=event.table,
        code=event.code,
        fault=event.fault,
        name=models.Name(zh=fault.zh, en=fault.en) if fault else None,
        raised=event.raised,
    )


def _site(site_id: str, row: registry.Site | None, tiles: Sequence[Tile], of_its_own: Mapping[str, int]) -> models.Site:
    counts = Counter(of_its_own)
    for tile in tiles:
        counts.update(tile.severities)
    return models.Site(
        id=site_id,
        name=models.Name(zh=row.zh, en=row.en) if row else models.Name(zh=site_id, en=site_id),
        street=models.Name(zh=row.street_zh, en=row.street_en) if row else models.Name(zh="", en=""),
        latitude=row.latitude if row else None,
        longitude=row.longitude if row else None,
        registered=row is not None,
        kinds=[_site_kind(kind, tiles) for kind in KINDS if any(one.device.kind == kind for one in tiles)],
        open_incidents=dict(sorted(counts.items())),
    )


def _site_kind(kind: str, tiles: Iterable[Tile]) -> models.SiteKind:
    mine = [one.device for one in tiles if one.device.kind == kind]
    return models.SiteKind(
        kind=kind,
        devices=len(mine),
        online=sum(one.state == "online" for one in mine),
        with_fault=sum(one.open_incidents > 0 for one in mine),
    )
