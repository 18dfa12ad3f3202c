"""`/`: every site with its lifts and piles at a glance, what is urgent, and where the messages went."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from api import device_views, html, stats, ticket_views
from api.deps import Svc
from api.device_views import Tile

router = APIRouter()

TILES: Final = 120
"""Shown of one site beside others; the page of one site shows more."""
TILES_OF_ONE: Final = 600
NEWEST: Final = 6


@router.get("/")
def overview(request: Request, services: Svc, site: Annotated[str | None, Query(max_length=64)] = None) -> HTMLResponse:
    """About ten queries, however many devices there are."""
    frame = html.frame(services)
    tiles = device_views.tiles(services, site=site)
    sites = [one for one in device_views.sites(services, tiles) if site in {None, one.id}]
    by_site: dict[str, list[Tile]] = {one.id: [] for one in sites}
    for tile in tiles:
        by_site[tile.device.site].append(tile)
    most = TILES if site is None else TILES_OF_ONE
    tickets = ticket_views.find(services, state="open", site=site, device=None, limit=NEWEST, before_id=None)
    return html.page(
        request,
        "overview.html",
        **frame,
        sites=sites,
        only=site,
        tiles={site_id: _most_urgent(mine, most) for site_id, mine in by_site.items()},
        tickets=tickets.items[:NEWEST],
        stats=stats.collect(services),
    )


def _most_urgent(tiles: list[Tile], most: int) -> list[Tile]:
    """In order of id; where there are too many, those in trouble are kept."""
    if len(tiles) <= most:
        return tiles
    kept = sorted(tiles, key=lambda tile: (tile.device.severity or "~", tile.device.state == "online"))[:most]
    return sorted(kept, key=lambda tile: tile.device.id)
