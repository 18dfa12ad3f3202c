"""`/devices/{id}`: one lift or pile: live values, a drawing, a chart, its tickets and events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api import device_views, html, models
from api.deps import Svc
from api.devices import DeviceId

router = APIRouter()

RANGES: Final = {"15m": 15 * 60_000, "1h": 3_600_000, "6h": 6 * 3_600_000, "24h": 24 * 3_600_000, "7d": 7 * 86_400_000}
_FIRST_CHOICE: Final = ("speed_mps", "power_w", "temp_c", "floor", "voltage_v")


@router.get("/devices/{device_id}")
def device(request: Request, services: Svc, device_id: DeviceId) -> HTMLResponse:
    """Everything known of one device."""
    frame = html.frame(services)
    tile = device_views.tile(services, device_id)
    return html.page(
        request,
        "device.html",
        **frame,
        tile=tile,
        device=device_views.detail(services, tile),
        drawable=_drawable(tile.parts),
        ranges=RANGES,
    )


def _drawable(parts: Mapping[str, models.Part]) -> list[tuple[str, str]]:
    """(part, field) of everything that is a number, the most telling first."""
    found = [
        (part, field)
        for part, known in parts.items()
        for field, held in known.values.items()
        if isinstance(held.value, int | float) and not isinstance(held.value, bool)
    ]
    order = {field: index for index, field in enumerate(_FIRST_CHOICE)}
    return sorted(found, key=lambda one: order.get(one[1], len(order)))
