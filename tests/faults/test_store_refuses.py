"""InfluxDB answers, and says no: too many requests, out of order, or a lost answer to a write that was done."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests import servers
from tests.faults.balance import close_the_balance
from tests.faults.conftest import LONG
from tests.faults.gateway import Answer, gateway
from tests.faults.scene import Pausable, Scene

REFUSALS = 12 if LONG else 3
RETRY_S = 2 if LONG else 1


@pytest.mark.parametrize(
    "answer",
    [Answer(429, RETRY_S), Answer(503, RETRY_S), Answer(500), Answer(504, after_writing=True)],
    ids=["429", "503", "500", "answer-lost"],
)
def test_refused_for_a_while(scene: Scene, broker: Pausable, influxd: Pausable, answer: Answer) -> None:
    with gateway(influxd.server.port) as between:
        scene = replace(scene, influx_url=between.url, store_url=influxd.server.url)
        with scene.serving() as service, scene.load() as load:
            service.wait("some are stored", "stored", 100)
            between.answer = answer
            servers.wait_until("refused", lambda: len(between.refused) >= REFUSALS, timeout_s=120)
            counts = service.stats()
            assert str(answer.status) in counts["store_away"]
            assert counts["spooled"] > 0
            assert not counts["blocked_by"]
            between.answer = None
            servers.wait_until("the spool is empty", lambda: not service.stat("spooled"), timeout_s=60)
            load.finish()
            close_the_balance(scene, service, broker.server, load)
    gaps = [later - earlier for earlier, later in pairwise(between.refused)]
    if answer.retry_after_s:
        assert min(gaps) >= answer.retry_after_s * 0.95, "asked again before the time that the server named"
