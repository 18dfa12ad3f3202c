"""The default rules against time lines in `tests/cases/rules`; every rule fires, nearly fires and ends somewhere."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from alerts.rules import load_rules
from tests.alerts.timeline import play, told
from tests.servers import ROOT

RULES = load_rules(ROOT / "deploy" / "rules")
FILES = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "tests/cases/rules").glob("*.yaml"))}
CASES: dict[str, dict[str, Any]] = {
    f"{name}: {case['about']}": {"kind": file["kind"], **case} for name, file in FILES.items() for case in file["cases"]
}
RESTARTED = {name: case for name, case in CASES.items() if case.get("restarts", True)}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_time_line(case: dict[str, Any]):
    lines = told(play(case, RULES))
    assert lines == case["expect"]
    quiet = set(case.get("quiet", ()))
    assert quiet <= {rule.id for rule in RULES}, "a case must name rules that exist"
    assert not {line.split()[2].partition("/")[0] for line in lines} & quiet


@pytest.mark.parametrize("case", RESTARTED.values(), ids=RESTARTED)
def test_a_kill_after_every_step_changes_nothing(case: dict[str, Any]):
    """But for silence, which counts from the moment at which we hear again: such cases say `restarts: false`."""
    undisturbed = case | {"steps": [step for step in case["steps"] if not step.get("restart")]}
    assert told(play(undisturbed, RULES, restart_everywhere=True)) == told(play(case, RULES))


def test_every_rule_fires_nearly_fires_and_ends_somewhere():
    raised: set[str] = set()
    cleared: set[str] = set()
    quiet: set[str] = set()
    for case in CASES.values():
        quiet |= set(case.get("quiet", ()))
        for line in case["expect"]:
            _, effect, rule, *_ = line.split()
            (raised if effect == "raise" else cleared).add(rule.partition("/")[0])
    every = {rule.id for rule in RULES}
    assert raised == every
    assert cleared == every
    assert quiet == every
