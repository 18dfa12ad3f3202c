"""The app: every router in one place. Importing builds nothing; the lifespan opens what is live and closes it again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from api import (
    alarm_quality,
    device_pages,
    devices,
    errors,
    health,
    html,
    incidents,
    live,
    metrics,
    overview_page,
    quarantine,
    quarantine_page,
    rules,
    series,
    silences,
    sites,
    stats,
    ticket_pages,
    tickets,
)
from api.guard import Guard
from api.services import Services

STATIC: Final = Path(__file__).parent / "static"

JSON: Final = (sites, devices, series, incidents, tickets, silences, alarm_quality, quarantine, rules, stats, live)
PAGES: Final = (overview_page, device_pages, ticket_pages, quarantine_page)
"""A new page is one module with a `router`, one template, one line here."""


def create_app(services: Services) -> FastAPI:
    """The API and the pages over services that the caller opened and will close.

    Whoever runs it calls `app.state.stop_streams()` (from any thread) when the server begins to stop: uvicorn waits
    for open responses before it ends the lifespan, and event streams end only when they are told. `api.server.Server`
    does so.
    """
    app = FastAPI(
        title="Tizhuang 梯桩",
        version="1",
        summary="Retrofitted lifts and e-bike charging piles: live values, incidents and maintenance tickets",
        description=(
            "All times are Unix milliseconds (UTC). Fields ending in `_device_ms` and every `ts` are by the device's "
            "own clock. Units stand in field names (`_w`, `_c`, `_s`, `_mps`) and beside values. "
            "Every error has the shape `ErrorAnswer`."
        ),
        lifespan=_lifespan,
        docs_url=None,  # both pages would load scripts from a CDN
        redoc_url=None,
    )
    hub = live.Live(services)
    app.state.services = services
    app.state.live = hub
    app.state.stop_streams = hub.stop_streams
    app.state.metrics = metrics.registry(services)
    app.state.templates = html.environment()
    app.add_middleware(Guard, http=services.settings.http)
    errors.install(app)
    for noun in JSON:
        app.include_router(noun.router, prefix="/api/v1", responses=errors.ANSWERS)
    for noun in (health, metrics):
        app.include_router(noun.router)
    for page in PAGES:
        app.include_router(page.router, include_in_schema=False)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    hub: live.Live = app.state.live
    hub.open()
    try:
        yield
    finally:
        await hub.close()
