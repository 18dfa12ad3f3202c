"""The engine against the reference model, for long: 10 000 neighbourhoods with TIZHUANG_FAULTS=long, a few otherwise.

Bounded by the number of examples and steps; the suite's own limit for one test (900 s) stands above that.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.alerts.test_against_reference import Lifts, Neighbourhood, Piles, Windows
from tests.faults.conftest import LONG

EXAMPLES = {Lifts: 6_000, Piles: 2_500, Windows: 1_500}
"""Together 10 000. Piles have ports and more rules, so each of theirs takes longer."""


@pytest.mark.parametrize("machine", EXAMPLES, ids=lambda one: one.__name__)
def test_the_engine_says_what_the_reference_says(machine: type[Neighbourhood]):
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES[machine] if LONG else 3,
            stateful_step_count=20,
            derandomize=not LONG,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
