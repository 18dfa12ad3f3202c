"""A start with messages still in a real spool, and a real DuckDB that is behind them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.payload import decode
from core.reading import Batch, Rejected
from ingest.recall import recall
from ingest.spool import Spool, Spooled
from ingest.storekeeper import Storekeeper
from storage.duckdb import DuckDbSeries

NOW = 1_790_000_000_000
BIG = 1_000_000


def said(channel: str, ms: int, device: str = "lift", **fields: Any) -> Spooled:
    """What a lift says `ms` after noon, or something that is no message at all."""
    body = fields.pop("body", None) or json.dumps({"ts": NOW + ms, **fields}).encode()
    return Spooled(f"tizhuang/v1/here/elevator/{device}/{channel}", body, NOW + ms + 40, False)


def alarm(ms: int, id: str, state: str = "raised") -> Spooled:
    return said("event", ms, id=id, table="gbt24476", code="90", state=state)


def stored(series: DuckDbSeries, *messages: Spooled) -> None:
    for one in messages:
        message = decode(one.topic, one.payload, one.rx)
        series.write(Batch((*message.readings, *message.events)))


def spooled(folder: Path, *records: Sequence[Spooled]) -> Spool:
    """The spool of the next process, each record in a segment of its own."""
    with closing(Spool(folder, BIG, segment_bytes=1)) as spool:
        for record in records:
            spool.append(record)
    return Spool(folder, BIG, segment_bytes=1)


def known(series: DuckDbSeries) -> tuple[Any, ...]:
    """All that a rule engine takes up at a start, but for the order."""
    return series.last_values(), sorted(series.newest_events()), series.last_seen()


class Parked(list[Rejected]):
    """Quarantine."""

    def keep(self, rejected: Sequence[Rejected]) -> None:
        self.extend(rejected)


def drained(spool: Spool, series: DuckDbSeries) -> Parked:
    parked = Parked()
    keeper = Storekeeper(series, spool, parked, len, idle_s=0)
    while spool.messages:
        keeper.work()
    return parked


def test_what_is_in_the_spool_is_what_devices_said_last(tmp_path: Path):
    with closing(DuckDbSeries(tmp_path / "series.duckdb")) as series:
        stored(series, said("telemetry", 0, floor=1, occupied=True, door="open"), alarm(1, "e-1"))
    spool = spooled(
        tmp_path / "spool",
        [said("telemetry", 10, floor=2, occupied=False), alarm(11, "e-1", "cleared")],
        [said("telemetry", 5, floor=9), said("status", 12, online=True), alarm(20, "e-2")],
    )
    with closing(DuckDbSeries(tmp_path / "series.duckdb")) as series, closing(spool):
        assert series.last_values()["here.lift", ""].values["occupied"] == (True, NOW), "the store is behind"
        assert [one.id for one in series.newest_events()] == ["e-1"]
        assert recall(spool, series.heard) == 5
        values = series.last_values()["here.lift", ""].values
        assert values == {
            "floor": (2, NOW + 10), "occupied": (False, NOW + 10), "door": ("open", NOW), "online": (True, NOW + 12),
        }  # fmt: skip
        assert [(one.id, one.raised) for one in series.newest_events()] == [("e-2", True)]
        assert series.last_seen() == {"here.lift": NOW + 60}
        assert spool.messages == 5
        before = known(series)
        assert drained(spool, series) == []
        assert known(series) == before


def test_what_cannot_be_read_or_understood_holds_nothing_up(tmp_path: Path):
    spool = spooled(
        tmp_path / "spool",
        [said("telemetry", 1, floor=1)],
        [said("telemetry", 2, floor=2)],
        [
            said("telemetry", 3, body=b"{"),
            said("telemetry", 3, floor=3, device="LIFT"),
            said("telemetry", 4, door="open"),
        ],
    )
    second = sorted((tmp_path / "spool").glob("*.spool"))[1]
    second.write_bytes(second.read_bytes()[:-1] + b"?")
    with closing(DuckDbSeries(tmp_path / "series.duckdb")) as series, closing(spool):
        assert recall(spool, series.heard) == 4
        values = series.last_values()["here.lift", ""].values
        assert values == {"floor": (1, NOW + 1), "door": ("open", NOW + 4)}
        assert [one.rx for one in drained(spool, series)] == [NOW + 43, NOW + 43]
        assert spool.damaged == 1


def test_an_empty_spool(tmp_path: Path):
    with closing(Spool(tmp_path, BIG)) as spool:
        assert recall(spool, lambda batch: pytest.fail(f"heard of {batch}")) == 0


messages = st.one_of(
    st.builds(alarm, st.integers(0, 3), st.sampled_from(["e-1", "e-2"]), st.sampled_from(["raised", "cleared"])),
    st.builds(lambda ms, floor: said("telemetry", ms, floor=floor), st.integers(0, 5), st.integers(1, 9)),
    st.builds(
        lambda ms, odd: said("telemetry", ms, odd=odd), st.integers(0, 5), st.integers(1, 9) | st.text(max_size=3)
    ),
    st.builds(lambda ms, online: said("status", ms, online=online), st.integers(0, 5), st.booleans()),
)


@settings(max_examples=25)
@given(st.lists(messages, max_size=4), st.lists(st.lists(messages, min_size=1, max_size=3), max_size=3))
def test_recalled_is_as_good_as_drained(
    tmp_path_factory: pytest.TempPathFactory, before: list[Spooled], waiting: list[list[Spooled]]
):
    folder = tmp_path_factory.mktemp("start")
    with closing(DuckDbSeries(folder / "series.duckdb")) as series:
        stored(series, *before)
        with closing(spooled(folder / "spool", *waiting)) as spool:
            recall(spool, series.heard)
            recalled = known(series)
            drained(spool, series)
    assert known_after(folder) == recalled


def known_after(folder: Path) -> tuple[Any, ...]:
    with closing(DuckDbSeries(folder / "series.duckdb")) as series:
        return known(series)
