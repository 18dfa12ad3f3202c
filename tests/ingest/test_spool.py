"""The spool on a real disk: what was appended comes out, in order, whatever happened in between."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import SpoolFull
from ingest.spool import Draft, Spool, Spooled
from tests.servers import ROOT

MEGABYTE = 1_000_000


def message(number: int, size: int = 20) -> Spooled:
    return Spooled(
        f"tizhuang/v1/s/elevator/d/{number}", bytes([number % 256]) * size, 1_790_000_000_000 + number, False
    )


def opened(folder: Path, limit: int = MEGABYTE, segment_bytes: int = 400) -> Spool:
    """With small segments, so that a test meets many of them."""
    return Spool(folder, limit, segment_bytes=segment_bytes)


def everything(spool: Spool, at_most: int = 7) -> list[Spooled]:
    """All that is in it, in order; it is empty afterwards."""
    found: list[Spooled] = []
    while (draft := spool.oldest(at_most)) is not None:
        found += draft.messages
        spool.done(draft)
    return found


def fill(spool: Spool) -> list[Spooled]:
    """As many messages as it takes."""
    kept: list[Spooled] = []
    while True:
        try:
            spool.append([message(len(kept))])
        except SpoolFull:
            return kept
        kept.append(message(len(kept)))


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.spool"))


steps = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 5), st.sampled_from([0, 1, 50, 900])),
        st.tuples(st.just("drain"), st.integers(1, 12)),
        st.just(("reopen",)),
    ),
    max_size=25,
)


@settings(max_examples=80)
@given(steps)
def test_first_in_first_out_over_any_number_of_lives(tmp_path_factory: pytest.TempPathFactory, story: list[Any]):
    folder = tmp_path_factory.mktemp("spool")
    spool, expected, sent = opened(folder), [], 0
    for word, *facts in story:
        if word == "append":
            count, size = facts
            batch = [message(sent + number, size) for number in range(count)]
            sent += count
            spool.append(batch)
            expected += batch
        elif word == "drain":
            draft = spool.oldest(*facts)
            assert (draft is None) == (not expected)
            if draft is not None:
                assert draft.messages == expected[: len(draft.messages)]
                spool.done(draft)
                expected = expected[len(draft.messages) :]
        else:
            spool.close()
            spool = opened(folder)
            assert spool.carried == len(expected)
        assert spool.messages == len(expected)
        oldest_rx = spool.oldest_rx  # to the record: its newest message
        assert (oldest_rx is None) == (not expected)
        assert oldest_rx is None or expected[0].rx <= oldest_rx <= expected[-1].rx
        assert spool.bytes == sum(path.stat().st_size for path in files(folder))
    assert everything(spool) == expected
    assert files(folder) == []
    spool.close()


def test_all_a_message_can_hold(tmp_path: Path):
    odd = [
        Spooled("", b"", 0, True),
        Spooled("梯桩/\N{SLIGHTLY SMILING FACE}", b"\x00\xff" * 40_000, 2**62, False),
        Spooled("not UTF-8: \udcff", b"TZsp" * 100, -1, False),
    ]
    with closing(opened(tmp_path)) as spool:
        spool.append(odd)
    with closing(opened(tmp_path)) as spool:
        assert everything(spool) == odd


@pytest.mark.parametrize("lost", [1, 2, 15, 19, 20, 21, 40])
def test_a_torn_last_record_is_skipped_and_all_before_it_survives(tmp_path: Path, lost: int):
    batches = [[message(10 * batch + number, 200) for number in range(3)] for batch in range(4)]
    with closing(opened(tmp_path, segment_bytes=MEGABYTE)) as spool:
        for batch in batches:
            spool.append(batch)
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-lost])
    with closing(opened(tmp_path, segment_bytes=MEGABYTE)) as spool:
        assert (spool.damaged, spool.messages) == (1, 9)
        spool.append(batches[3])
        assert everything(spool) == [one for batch in batches for one in batch]


def test_every_single_damaged_byte_costs_one_record_at_most(tmp_path: Path):
    batches = [[message(batch)] for batch in range(3)]
    with closing(opened(tmp_path, segment_bytes=MEGABYTE)) as spool:
        for batch in batches:
            spool.append(batch)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        spool = opened(tmp_path, segment_bytes=MEGABYTE)
        draft = spool.oldest(100)
        spool.close()
        assert draft is not None
        assert spool.damaged >= 1, "a damage that nobody is told of"
        hit = at * 3 // len(whole)
        assert draft.messages == [one for number, batch in enumerate(batches) if number != hit for one in batch]
        path.write_bytes(whole)


def test_a_full_spool_refuses_and_is_as_it_was(tmp_path: Path):
    with closing(opened(tmp_path, limit=2_000)) as spool:
        kept = fill(spool)
        assert 10 < len(kept) == spool.messages
        with pytest.raises(SpoolFull, match=r"spool\.limit_mb"):
            spool.append([message(1_000)])
        assert spool.bytes <= 2_000
        draft = spool.oldest(10)
        assert draft is not None
        spool.done(draft)
        spool.append([message(5_000)])
        assert everything(spool) == [*kept[len(draft.messages) :], message(5_000)]


@contextmanager
def disk_full_after(size: int) -> Iterator[None]:
    """No file of this process grows beyond so many bytes: a write takes what fits and fails then, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [0, 1, 19, 20, 30])
def test_a_full_disk_refuses_and_leaves_no_half_record(tmp_path: Path, room: int):
    with closing(opened(tmp_path, segment_bytes=MEGABYTE)) as spool:
        spool.append([message(1)])
        with disk_full_after(spool.bytes + room), pytest.raises(SpoolFull, match="cannot write"):
            spool.append([message(2, size=10_000), message(3)])
        assert spool.messages == 1
        spool.append([message(4)])
    with closing(opened(tmp_path)) as spool:
        assert spool.damaged == 0
        assert everything(spool) == [message(1), message(4)]


def test_what_append_returned_for_survives_kill_9(tmp_path: Path):
    program = (
        "import sys, pathlib\n"
        "from ingest.spool import Spool, Spooled\n"
        "spool = Spool(pathlib.Path(sys.argv[1]), 10**9, segment_bytes=5000)\n"
        "for number in range(10**9):\n"
        "    spool.append([Spooled(str(number), b'x' * (number % 97), number, False)])\n"
        "    print(number, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    told = -1
    while told < 400:
        told = int(child.stdout.readline())
    child.kill()
    told = int((child.stdout.read().split() or [b"%d" % told])[-1])
    child.wait()
    with closing(opened(tmp_path)) as spool:
        found = everything(spool, at_most=100)
    assert [int(one.topic) for one in found][: told + 1] == list(range(told + 1))
    assert len(found) <= told + 2


def test_without_its_position_it_is_drained_twice_and_nothing_is_missing(tmp_path: Path):
    with closing(opened(tmp_path, segment_bytes=MEGABYTE)) as spool:
        for number in range(6):
            spool.append([message(number)])
        draft = spool.oldest(2)
        assert draft is not None
        spool.done(Draft(draft.messages, draft.records))
    with closing(opened(tmp_path)) as spool:
        assert spool.carried == 4
    (tmp_path / "position").write_text("nonsense")
    with closing(opened(tmp_path)) as spool:
        assert everything(spool) == [message(number) for number in range(6)]


def test_a_disk_that_cannot_be_read_just_now_costs_nothing(tmp_path: Path):
    with closing(opened(tmp_path, segment_bytes=MEGABYTE)) as spool:
        spool.append([message(1)])
        (path,) = files(tmp_path)
        path.rename(tmp_path / "aside")
        with pytest.raises(OSError, match="No such file"):
            spool.oldest(10)
        (tmp_path / "aside").rename(path)
        assert everything(spool) == [message(1)]
        assert spool.damaged == 0


def test_a_record_that_rots_while_we_run_is_told_of_and_its_segment_stays_for_somebody_to_look_at(tmp_path: Path):
    with closing(opened(tmp_path, segment_bytes=MEGABYTE)) as spool:
        spool.append([message(1)])
        (path,) = files(tmp_path)
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert everything(spool) == []
        assert spool.damaged == 1
        assert [one.suffix for one in tmp_path.iterdir() if one.stem == path.stem] == [".damaged"]


def test_segments_below_the_position_are_drained_even_if_they_are_still_there(tmp_path: Path):
    """Killed between the position and the removal of a segment: what is in it may have been overtaken since."""
    with closing(opened(tmp_path, segment_bytes=1)) as spool:
        spool.append([message(1)])
        (first,) = files(tmp_path)
        copy = first.read_bytes()
        spool.append([message(2)])
        spool.append([message(3)])
        draft = spool.oldest(2)
        assert draft is not None
        spool.done(draft)
    first.write_bytes(copy)
    with closing(opened(tmp_path)) as spool:
        assert everything(spool) == [message(3)]


@given(st.lists(st.lists(st.integers(0, 900), min_size=1, max_size=4), max_size=8), st.integers(0, 3))
@settings(max_examples=40)
def test_looking_at_each_message_takes_nothing_out(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[list[int]], drained: int
):
    folder = tmp_path_factory.mktemp("spool")
    with closing(opened(folder)) as spool:
        for batch in sizes:
            spool.append([message(size, size) for size in batch])
        for _ in range(drained):
            if (draft := spool.oldest(1)) is not None:
                spool.done(draft)
        left = [message(size, size) for batch in sizes[drained:] for size in batch]
        assert [one for record in spool.each() for one in record] == left
    with closing(opened(folder)) as spool:
        assert [one for record in spool.each() for one in record] == left
        assert everything(spool) == left


def test_a_record_that_cannot_be_read_is_passed_over_and_told_of_once_when_it_is_drained(tmp_path: Path):
    with closing(opened(tmp_path, segment_bytes=1)) as spool:
        for number in range(3):
            spool.append([message(number)])
        rotten, gone, _ = files(tmp_path)
        rotten.write_bytes(rotten.read_bytes()[:-1] + b"?")
        gone.rename(tmp_path / "aside")
        assert [one for record in spool.each() for one in record] == [message(2)]
        assert spool.damaged == 0
        (tmp_path / "aside").rename(gone)
        assert everything(spool) == [message(1), message(2)]
        assert spool.damaged == 1


def test_the_newest_receipt_is_the_newest_of_all(tmp_path: Path):
    with closing(opened(tmp_path)) as spool:
        for number in (5, 900, 7):
            spool.append([message(number), message(number - 1)])
    with closing(opened(tmp_path)) as spool:
        assert spool.newest_rx == message(900).rx
