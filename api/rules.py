"""`/api/v1/rules`: the rules in force, with their parameters, and what keeps one of them from being judged."""

from __future__ import annotations

from fastapi import APIRouter

from alerts.rules import Rule
from api import models
from api.deps import Svc

router = APIRouter(tags=["rules"])


@router.get("/rules", summary="Rules in force, and whether each can be judged")
def rules(services: Svc) -> models.RulesInForce:
    """Steps of a severity ladder are rules of their own: `port-hot.p1`."""
    state = services.rules()
    return models.RulesInForce(
        digest=state.book.digest,
        refused=state.refused,
        items=[_shown(rule, state.troubles.get(rule.id, "")) for rule in state.book.rules],
    )


def _shown(rule: Rule, trouble: str) -> models.RuleInForce:
    finding = rule.finding
    return models.RuleInForce(
        id=rule.id,
        version=rule.version,
        kind=rule.kind,
        part=rule.part,
        group=finding.group,
        severity=finding.severity,
        title=models.Name(zh=finding.title.zh, en=finding.title.en),
        what_to_do=models.Name(zh=finding.what_to_do.zh, en=finding.what_to_do.en),
        when=rule.when.text if rule.when else None,
        events=sorted(rule.events),
        for_ms=rule.for_ms,
        silence_ms=rule.silence_ms,
        clear=rule.clear.text if rule.clear else None,
        inhibited_by=sorted(rule.inhibited_by),
        trouble=trouble,
    )
