"""`/healthz` (the process answers) and `/readyz` (it can do its work), for supervisors and load balancers."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from api import models
from api.deps import Svc
from api.services import Services
from core.errors import StoreUnavailable

router = APIRouter(tags=["operation"])


@router.get("/healthz", summary="The process answers")
def healthz() -> models.Health:
    """Asks nothing else: a restart would not bring a database back."""
    return models.Health(status="ok")


@router.get(
    "/readyz",
    summary="Everything that the service needs answers",
    responses={503: {"model": models.Health, "description": "Something is missing; `reasons` says what."}},
)
def readyz(request: Request, response: Response, services: Svc) -> models.Health:
    """503 with reasons when the broker is not connected, a database does not answer or the worker waits."""
    reasons = _reasons(services, live_connected=request.app.state.live.connected)
    if not reasons:
        return models.Health(status="ok")
    response.status_code = 503
    return models.Health(status="not_ready", reasons=reasons)


def _reasons(services: Services, *, live_connected: bool) -> list[str]:
    """A process without a worker needs the broker for live pages only, so its own connection counts there."""
    worker = services.stats()
    reasons = []
    if not (worker.connected if worker else live_connected):
        reasons.append("the broker is not connected")
    if worker and worker.blocked_by:
        reasons.append(f"the worker waits: {worker.blocked_by}")
    if worker and worker.store_away:
        reasons.append(f"the series store is away, messages wait in the spool: {worker.store_away}")
    if worker and worker.alerts_lost:
        reasons.append(f"{worker.alerts_lost} alerts could not be written since the start: see the log and report it")
    rules = services.rules()
    if rules.refused:
        reasons.append(f"the rule files have faults, older rules are in force: {rules.refused}")
    if rules.troubles:
        reasons.append(f"rules could not be evaluated: {', '.join(sorted(rules.troubles))}; see /api/v1/rules")
    checks: tuple[Callable[[], object], ...] = (
        services.tickets.newest_change,
        lambda: services.series.events("-", start=0, end=1, limit=1),
    )
    for check in checks:
        try:
            check()
        except StoreUnavailable as error:
            reasons.append(str(error))
    return reasons
