"""A small part of `make detection`: what is P0 or P1 is told in time, by sensors that lie over networks that lose."""

from __future__ import annotations

import pytest

from core.faults import Severity
from simulators.faults import FAULTS
from tests.detection.judge import Verdict
from tests.detection.scenes import Scene, ordinary, play, silent_sites, urgent_faults
from tests.detection.table import by_group, severities

URGENT = list(urgent_faults(seed=7))


@pytest.mark.parametrize("scene", URGENT, ids=lambda scene: str(scene.faults[0].name))
def test_what_is_urgent_is_told_in_time(scene: Scene):
    (hit,) = play(scene).hits
    assert hit.in_time, hit
    assert severities()[hit.group] <= Severity.P1


def test_a_site_that_falls_silent_is_one_incident():
    for scene in silent_sites(2, seed=7):
        verdict = play(scene)
        assert verdict.right == {"site-silent": 1}
        assert verdict.wrong == []
        assert all(hit.in_time for hit in verdict.hits)
        assert len(verdict.hits) == scene.devices


def test_an_ordinary_day_is_quiet():
    life = Verdict()
    for scene in ordinary(1, seed=7, together=1):
        life.add(play(scene))
    assert life.wrong == []
    assert life.device_ms == {"elevator": 86_400_000, "charger": 86_400_000}
    assert life.messages > 2_000


def test_every_fault_says_who_should_tell_of_it():
    groups = severities()
    assert {fault.group for fault in FAULTS.values()} <= groups.keys()
    assert all(fault.told_s > 0 for fault in FAULTS.values())
    assert all(other in groups for fault in FAULTS.values() for other in fault.also)


def test_the_table_has_a_line_for_each_group():
    lines = by_group(Verdict(), Verdict()).splitlines()
    assert len(lines) == len(severities()) + 2
    assert all(line.count("|") == lines[0].count("|") for line in lines)
