"""The default rules against the cases beside them, played in every way; every rule fires, stays quiet and ends."""

from __future__ import annotations

import pytest

from alerts.casefile import load_cases
from alerts.player import Case, Way, difference, line_of
from alerts.rulebook import load_rules
from tests.alerts.timeline import in_every_way
from tests.servers import ROOT

FOLDER = ROOT / "deploy" / "rules"
RULES = load_rules(FOLDER)
CASES = {
    f"{path.stem}: {case.about}": case
    for path in sorted((FOLDER / "tests").glob("*.yaml"))
    for case in load_cases(path).cases
}


@pytest.mark.parametrize(("case", "way"), in_every_way(CASES))
def test_it_comes_out_as_written(case: Case, way: Way):
    """A kill after every step and large batches change nothing, but for silence, which counts from the moment at which
    we hear again: such cases say `restarts: false`."""
    assert difference(case, way) == ""


def test_every_rule_fires_stays_quiet_and_ends_somewhere():
    lines = [line_of(line) for case in CASES.values() for line in case.expect]
    every = {rule.id for rule in RULES}
    assert {line.rule_id for line in lines if line.effect == "raise"} == every
    assert {line.rule_id for line in lines if line.effect != "raise"} == every
    assert {rule_id for case in CASES.values() for rule_id in case.quiet} == every
