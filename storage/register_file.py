"""Entries of the register as people write them: YAML with sites, buildings, contractors and devices.

sites:       [{id: fenghe, zh: 风荷苑, en: Fenghe Court, zone: Asia/Shanghai}]
buildings:   [{site: fenghe, id: b1, zh: 1 号楼, en: Building 1}]
contractors: [{id: east-lifts, zh: ..., en: ...}]
devices:     [{site: fenghe, id: lift-01, kind: elevator, zh: ..., en: ..., building: b1, contractor: east-lifts,
               statics: {floors: 6, rated_speed_mps: 0.6}}]
"""

from __future__ import annotations

from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from core.errors import SettingsError
from core.kinds import KINDS
from core.topics import ID_PATTERN

_Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"unknown kind '{kind}'; known: {', '.join(KINDS)}")
    return kind


def _known_zone(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (ValueError, OSError, ZoneInfoNotFoundError):  # OSError: a folder of the zone data, such as `Asia`
        raise ValueError(f"unknown time zone '{zone}'; write an IANA name, like Asia/Shanghai") from None
    return zone


_Kind = Annotated[str, AfterValidator(_known_kind)]
_Zone = Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_known_zone)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    id: _Id
    zh: _Name
    en: _Name


class SiteEntry(_Entry):
    """A neighbourhood. Coordinates: WGS84 degrees. `zone`: IANA name of the time zone that its people live in."""

    street_zh: str = ""
    street_en: str = ""
    latitude: float | None = Field(default=None, ge=-90, le=90)
    longitude: float | None = Field(default=None, ge=-180, le=180)
    zone: _Zone = "Asia/Shanghai"


class BuildingEntry(_Entry):
    """A building; `id` is unique within its site."""

    site: _Id


class ContractorEntry(_Entry):
    """A maintenance company."""


class DeviceEntry(_Entry):
    """A device; `id` is unique within its site. `statics`: fixed facts that rules may use as `device.NAME`."""

    site: _Id
    kind: _Kind
    building: _Id | None = None
    contractor: _Id | None = None
    statics: dict[str, bool | int | float | str] = {}


class RegisterFile(BaseModel):
    """A whole file; every list may be missing."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sites: tuple[SiteEntry, ...] = ()
    buildings: tuple[BuildingEntry, ...] = ()
    contractors: tuple[ContractorEntry, ...] = ()
    devices: tuple[DeviceEntry, ...] = ()

    def rows(self, *, now: int) -> dict[str, list[dict[str, Any]]]:
        """Rows for the tables of the register; `now` (Unix ms) becomes the time a new device was first seen."""
        return {
            "sites": [entry.model_dump() for entry in self.sites],
            "buildings": [
                {"id": f"{entry.site}.{entry.id}", "site_id": entry.site, "zh": entry.zh, "en": entry.en}
                for entry in self.buildings
            ],
            "contractors": [entry.model_dump() for entry in self.contractors],
            "devices": [
                {
                    "id": f"{entry.site}.{entry.id}",
                    "site_id": entry.site,
                    "kind": entry.kind,
                    "zh": entry.zh,
                    "en": entry.en,
                    "building_id": f"{entry.site}.{entry.building}" if entry.building else None,
                    "contractor_id": entry.contractor,
                    "statics": dict(entry.statics),
                    "first_seen": now,
                }
                for entry in self.devices
            ],
        }


def checked(entries: object) -> RegisterFile:
    """The entries if they are in order. Raises SettingsError naming every faulty one."""
    try:
        return RegisterFile.model_validate(entries or {})
    except ValidationError as error:
        told = (f"{'.'.join(map(str, d['loc'])) or 'file'}: {d['msg']}" for d in error.errors())
        raise SettingsError("register: " + "; ".join(told)) from None
