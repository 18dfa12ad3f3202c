"""What could not be understood is kept with the reason; repeats share a row; receipts remember first times."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.reading import Receipt, Rejected
from storage.quarantine import HEAD_BYTES, Quarantine
from storage.receipts import KEPT_MS, Receipts

HOSTILE = "'); DROP TABLE quarantine; -- <script>alert(1)</script> \x00\x1b[31m \u202e 困 😀 % _ \\ \" "


@pytest.fixture
def quarantine(records) -> Quarantine:
    return Quarantine(records)


def test_repeats_share_a_row_and_are_counted(quarantine):
    for rx in (1, 2, 3):
        quarantine.keep([Rejected("t", b"x", f"reason {rx}", rx)])
    quarantine.keep([Rejected("t", b"y", "r", 4), Rejected("u", b"x", "r", 5), Rejected("t", b"x", "r", 6)])
    rows = quarantine.find()
    assert [(row.topic, row.payload_head, row.times) for row in rows] == [
        ("u", b"x", 1),
        ("t", b"y", 1),
        ("t", b"x", 4),
    ]
    assert (rows[-1].first_rx, rows[-1].last_rx, rows[-1].reason) == (1, 6, "r")
    assert quarantine.totals() == (3, 6)


def test_of_a_huge_payload_the_head_is_kept_and_the_length_told(quarantine):
    quarantine.keep([Rejected("t", b"a" * 70_000, "too big", 1), Rejected("t", b"a" * 69_999, "too big", 2)])
    assert [(len(row.payload_head), row.payload_bytes) for row in quarantine.find()] == [
        (HEAD_BYTES, 69_999),
        (HEAD_BYTES, 70_000),
    ]


def test_hostile_text_is_kept_as_it_is(quarantine):
    payload = bytes(range(256)) + HOSTILE.encode()
    quarantine.keep([Rejected(HOSTILE, payload, HOSTILE, 1)])
    (row,) = quarantine.find()
    assert (row.topic, row.payload_head, row.reason) == (HOSTILE, payload, HOSTILE)


def test_endless_text_is_cut(quarantine):
    quarantine.keep([Rejected("t" * 70_000, b"", "r" * 70_000, 1)])
    (row,) = quarantine.find()
    assert (len(row.topic), len(row.reason), row.payload_bytes) == (1_000, 2_000, 0)


def test_pages(quarantine):
    quarantine.keep([Rejected("t", str(number).encode(), "r", number) for number in range(25)])
    seen: list[int] = []
    before = None
    while page := quarantine.find(limit=10, before_id=before):
        seen += [row.first_rx for row in page]
        before = page[-1].id
    assert seen == list(range(24, -1, -1))


messages = st.lists(st.tuples(st.sampled_from("tu"), st.binary(max_size=2)), max_size=20)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages)
def test_every_message_is_counted_once(quarantine: Quarantine, told: list[tuple[str, bytes]]):
    rows, total = quarantine.totals()
    known = {(row.topic, row.payload_head) for row in quarantine.find(limit=10_000)}
    quarantine.keep([Rejected(topic, payload, "r", 1) for topic, payload in told])
    assert quarantine.totals() == (rows + len(set(told) - known), total + len(told))


# --- receipts ---------------------------------------------------------------------------------------------------------


def test_a_repeat_gets_the_time_at_which_it_came_first(records):
    receipts = Receipts(records)
    assert receipts.settle([Receipt("a", 100, True), Receipt("b", 100, True), Receipt("a", 200, True)]) == [
        100,
        100,
        100,
    ]
    assert Receipts(records).settle([Receipt("a", 300, True)]) == [100]


def test_the_same_bytes_that_are_no_repeat_are_news(records):
    receipts = Receipts(records)
    assert receipts.settle([Receipt("a", 100, False), Receipt("a", 200, False)]) == [100, 200]
    assert receipts.settle([Receipt("a", 300, True)]) == [200], "what comes again is the last of them"


def test_receipts_are_forgotten_after_a_week(records):
    receipts = Receipts(records)
    receipts.settle([Receipt("old", 100, True), Receipt("new", 101, True)])
    receipts.forget(now=101 + KEPT_MS)
    assert receipts.settle([Receipt("old", 900, True), Receipt("new", 900, True)]) == [900, 101]
