"""`/devices/{id}`: one lift or pile: live values, a drawing, a chart, its tickets and events."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api import device_views, html
from api.deps import Svc
from api.device_views import Tile
from api.devices import DeviceId

router = APIRouter()

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
RANGES: Final = {
    "15m": _HOUR_MS // 4,
    "1h": _HOUR_MS,
    "6h": 6 * _HOUR_MS,
    "24h": _DAY_MS,
    "7d": 7 * _DAY_MS,
    "30d": 30 * _DAY_MS,
    "1y": 365 * _DAY_MS,
}
_FIRST_CHOICE: Final = ("speed_mps", "temp_c", "power_w", "floor", "voltage_v")


@router.get("/devices/{device_id}")
def device(request: Request, services: Svc, device_id: DeviceId) -> HTMLResponse:
    """Everything known of one device."""
    frame = html.frame(services)
    tile = device_views.tile(services, device_id)
    detail = device_views.detail(services, tile)
    return html.page(
        request,
        "device.html",
        **frame,
        tile=tile,
        device=detail,
        drawable=_drawable(tile, {ticket.part for ticket in detail.tickets}),
        alarms={ticket.part: ticket.severity for ticket in reversed(detail.tickets) if ticket.part},
        ranges=RANGES,
    )


def _drawable(tile: Tile, in_trouble: Set[str]) -> list[tuple[str, str]]:
    """(part, field) of everything that is a number: parts with an open ticket first, then what tells the most."""
    found = [
        (part, field)
        for part, known in tile.parts.items()
        for field, held in known.values.items()
        if isinstance(held.value, int | float) and not isinstance(held.value, bool)
    ]
    order = {field: index for index, field in enumerate(_FIRST_CHOICE)}

    def rank(one: tuple[str, str]) -> tuple[bool, bool, int]:
        part, field = one
        return (part not in in_trouble, tile.fresh("state", part) != "charging", order.get(field, len(order)))

    return sorted(found, key=rank)
