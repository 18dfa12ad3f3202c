"""Neighbourhoods as data (DOMAIN section 1): sites, buildings, contractors, devices.

Counts of stairs, floors, piles and sockets are DOMAIN's. Ours, because DOMAIN does not say: how stairs spread over
buildings, models, speeds and loads (within the ranges of DOMAIN section 2), the contractors' names, the lifts of
`liangcheng`, the small pile shelters, and the names of four sites of `nanxi`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from core.errors import SettingsError
from simulators.daytime import Pace
from simulators.device import Device


class Site(NamedTuple):
    """A neighbourhood. Coordinates are WGS84 degrees, absent where the place is not known to a kilometre."""

    id: str
    zh: str
    en: str
    street_zh: str | None = None
    lat: float | None = None
    lon: float | None = None


class Building(NamedTuple):
    """`id` is unique within its site; `stairs` are the ids of its stairs (门栋)."""

    site: str
    id: str
    zh: str
    en: str
    stairs: tuple[str, ...]


class Contractor(NamedTuple):
    """A maintenance company (维保单位)."""

    id: str
    zh: str
    en: str


class Preset(NamedTuple):
    """Everything that a fleet and the records need to know about a neighbourhood."""

    name: str
    zh: str
    en: str
    sites: tuple[Site, ...]
    buildings: tuple[Building, ...]
    contractors: tuple[Contractor, ...]
    devices: tuple[Device, ...]
    pace: Pace = Pace()

    def entries(self) -> dict[str, list[dict[str, object]]]:
        """The neighbourhood as a register file holds it: plain lists of sites, buildings, contractors and devices."""
        return {
            "sites": [
                {
                    "id": site.id,
                    "zh": site.zh,
                    "en": site.en,
                    "street_zh": site.street_zh or "",
                    "latitude": site.lat,
                    "longitude": site.lon,
                }
                for site in self.sites
            ],
            "buildings": [{"site": one.site, "id": one.id, "zh": one.zh, "en": one.en} for one in self.buildings],
            "contractors": [one._asdict() for one in self.contractors],
            "devices": [
                {
                    "site": device.site,
                    "id": device.id,
                    "kind": device.kind,
                    "zh": device.zh,
                    "en": device.en,
                    "building": device.building,
                    "contractor": device.contractor,
                    "statics": dict(device.statics),
                }
                for device in self.devices
            ],
        }


EAST_LIFTS: Final = Contractor("east-lifts", "东区电梯维保公司", "East District Lift Maintenance")
NORTH_LIFTS: Final = Contractor("north-lifts", "北区电梯维保公司", "North District Lift Maintenance")
RIVER_LIFTS: Final = Contractor("river-lifts", "江畔电梯服务公司", "Riverside Lift Service")
CITY_PILES: Final = Contractor("city-piles", "城区充电设施运维公司", "City Charging Maintenance")

DEMO_PACE: Final = Pace(calls_per_day=20_000, sessions_per_day=5, by_hour=False)
"""Several trips a minute and lift, day and night: a page that is alive, not a neighbourhood that is real."""


class Model(NamedTuple):
    """A retrofitted lift as sold: rated speed in m/s, rated load in kg."""

    name: str
    speed_mps: float
    load_kg: int


MODELS: Final = (Model("R-450", 0.6, 450), Model("R-630", 1.0, 630), Model("R-320", 0.4, 320))


def get(name: str) -> Preset:
    """The preset of that name. SettingsError lists what there is."""
    if name not in PRESETS:
        raise SettingsError(f"there is no preset '{name}'; there are {', '.join(PRESETS)}")
    return PRESETS[name]()


def _lift(number: int, building: Building, stair: str, floors: int, contractor: Contractor, model: Model) -> Device:
    return Device(
        site=building.site,
        kind="elevator",
        id=f"lift-{number:02d}",
        zh=f"{building.zh}{stair}门电梯",
        en=f"{building.en}, stair {stair}, lift",
        building=building.id,
        stair=stair,
        contractor=contractor.id,
        statics={
            "model": model.name,
            "floors": floors,
            "rated_speed_mps": model.speed_mps,
            "rated_load_kg": model.load_kg,
        },
    )


def _piles(site: str, zh: str, en: str, numbers: Iterable[int]) -> tuple[Device, ...]:
    return tuple(
        Device(
            site=site,
            kind="charger",
            id=f"pile-{number:02d}",
            zh=f"{zh}{number}号充电桩",
            en=f"{en}, pile {number}",
            building=None,
            stair=None,
            contractor=CITY_PILES.id,
            statics={"model": "P10", "ports": 10},
        )
        for number in numbers
    )


def _buildings(site: str, count: int, stairs: int) -> tuple[Building, ...]:
    """Buildings no. 1 to `count`; stairs are numbered within each."""
    ids = tuple(str(stair) for stair in range(1, stairs + 1))
    return tuple(
        Building(site, f"no-{number}", f"{number}号楼", f"Building {number}", ids) for number in range(1, count + 1)
    )


def _shenhui() -> Preset:
    """4 buildings, 96 households; the first lift at no. 2, three more followed."""
    site = Site("shenhui", "申晖小区", "Shenhui")
    buildings = _buildings(site.id, 4, 2)
    in_order_of_building = (buildings[1], buildings[0], buildings[2], buildings[3])
    lifts = tuple(
        _lift(number, building, "1", 6, EAST_LIFTS, MODELS[number % 2])
        for number, building in enumerate(in_order_of_building, 1)
    )
    piles = _piles(site.id, "车棚", "Bike shelter", (1, 2))
    return Preset("shenhui", site.zh, site.en, (site,), buildings, (EAST_LIFTS, CITY_PILES), lifts + piles)


def _fenghe() -> Preset:
    """80 stairs of 6 floors with a lift each; one contractor for all lifts."""
    site = Site("fenghe", "风荷苑", "Fenghe Court")
    buildings = _buildings(site.id, 20, 4)
    stairs = [(building, stair) for building in buildings for stair in building.stairs]
    lifts = tuple(
        _lift(number, building, stair, 6, EAST_LIFTS, MODELS[number % 2])
        for number, (building, stair) in enumerate(stairs, 1)
    )
    piles = _piles(site.id, "车棚", "Bike shelter", range(1, 7))
    return Preset("fenghe", site.zh, site.en, (site,), buildings, (EAST_LIFTS, CITY_PILES), lifts + piles)


def _nanxi() -> Preset:
    """41 piles in 5 neighbourhoods, 13 of them in the underground garage of Maoming Apartments."""
    street = "南京西路街道"
    places = (
        (Site("maoming", "茂名公寓", "Maoming Apartments", street, 31.229, 121.459), "地下车库", "Garage", 13),
        (Site("nanxi-a", "南西一小区", "Nanxi One", street), "车棚", "Bike shelter", 8),
        (Site("nanxi-b", "南西二小区", "Nanxi Two", street), "车棚", "Bike shelter", 8),
        (Site("nanxi-c", "南西三小区", "Nanxi Three", street), "车棚", "Bike shelter", 6),
        (Site("nanxi-d", "南西四小区", "Nanxi Four", street), "车棚", "Bike shelter", 6),
    )
    piles: tuple[Device, ...] = ()
    for site, zh, en, count in places:
        piles += _piles(site.id, zh, en, range(len(piles) + 1, len(piles) + count + 1))
    sites = tuple(site for site, *_ in places)
    return Preset("nanxi", street, "Nanjing West Road", sites, (), (CITY_PILES,), piles)


def _liangcheng() -> Preset:
    """Lifts of several vendors and contractors in one neighbourhood."""
    site = Site("liangcheng", "凉二居民区", "Liang'er", "凉城新村街道")
    buildings = _buildings(site.id, 6, 2)
    stairs = [(building, stair) for building in buildings for stair in building.stairs]
    contractors = (EAST_LIFTS, NORTH_LIFTS, RIVER_LIFTS)
    lifts = tuple(
        _lift(number, building, stair, 5 + number % 3, contractors[number % 3], MODELS[number % 3])
        for number, (building, stair) in enumerate(stairs, 1)
    )
    return Preset("liangcheng", site.zh, site.en, (site,), buildings, contractors, lifts)


def _demo() -> Preset:
    """Fenghe cut to what looks good on a laptop: 12 lifts, 4 piles, busy at any hour."""
    whole = _fenghe()
    buildings = whole.buildings[:3]
    kept = {building.id for building in buildings}
    lifts = tuple(device for device in whole.devices if device.building in kept)
    piles = tuple(device for device in whole.devices if device.kind == "charger")[:4]
    return whole._replace(name="demo", buildings=buildings, devices=lifts + piles, pace=DEMO_PACE)


PRESETS: Final[dict[str, Callable[[], Preset]]] = {
    "demo": _demo,
    "shenhui": _shenhui,
    "fenghe": _fenghe,
    "nanxi": _nanxi,
    "liangcheng": _liangcheng,
}
"""Made on demand: importing builds nothing."""
