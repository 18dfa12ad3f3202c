"""Runs a backtest on the stored history: in this process, or in two that each take some of the devices.

A worker process opens the history and reads the rules itself: rules are compiled functions, which cannot be sent.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from alerts.backtest import Chosen, Known, Opening, Play, affected, cuts, fields_of, kinds_of
from alerts.backtest_report import BacktestResult, report
from alerts.rulebook import RuleBook, load_rules
from alerts.rules import SITE
from core.errors import RuleError
from core.settings import Settings
from storage.drivers import open_history

WORTH_TWO: Final = 200_000
"""Readings from which a second process pays: it takes most of a second to start."""

MOST_PROCESSES: Final = 8
SEARCH_AFTER: Final = 50_000
"""Objects made before Python looks for dead cycles among them. A reading has none."""

ASK_S: Final = 0.2


class Asked(NamedTuple):
    """What is to be played. Times: Unix ms."""

    rules: Path
    """Folder of today's rules."""
    other: Path | None
    """A file with rules that replace those of the same id, or are added."""
    start: int
    end: int
    lead_ms: int
    """History before `start` that is played so that values, windows and incidents stand as they did."""
    every: bool
    """With `other`: also the rules that it cannot change."""


class _Job(NamedTuple):
    settings: Settings
    asked: Asked
    device_ids: list[str] | None
    devices: Mapping[str, Known]
    number: int


Progress = Callable[[float], None]
"""Told the share that is done, 0 to 1."""


def backtest(
    settings: Settings,
    asked: Asked,
    devices: Mapping[str, Known],
    *,
    chosen: Callable[[str], bool] = lambda _: True,
    processes: int | None = None,
    progress: Progress = lambda _: None,
) -> BacktestResult:
    """Plays the stored history. `devices`: of the register; `chosen` says by id which ones are played.

    `processes`: None is as many as pay. Raises RuleError, StoreUnavailable, DataFolderError.
    """
    with books_of(asked) as books, open_history(settings) as history:
        kinds = kinds_of(books)
        spoken = [one for one in history.spoken(asked.start - asked.lead_ms, asked.end) if one.kind in kinds]
    devices = {device_id: one for device_id, one in devices.items() if one.kind in kinds}
    said = {one.device_id: one.items for one in spoken if chosen(one.device_id)}
    known = {device_id: one for device_id, one in devices.items() if chosen(device_id)}
    said |= {device_id: 0 for device_id in known if device_id not in said}
    whole_sites = any(rule.kind == SITE for book in books for rule in book)
    shares = list(cuts(said, _processes(processes, sum(said.values())), whole_sites=whole_sites))
    jobs = [
        _Job(settings, asked, ids, {one: known[one] for one in ids if one in known}, number)
        for number, ids in enumerate(shares)
    ]
    everybody = len(said) == len({one.device_id for one in spoken} | devices.keys())
    if len(jobs) <= 1:
        ids = None if everybody else list(said)
        played = [_play(_Job(settings, asked, ids, known, 0), lambda _, share: progress(share))]
    else:
        played = _in_processes(jobs, progress)
    openings = [
        sorted((one for _, some in played for one in some[number]), key=lambda one: (one.at, one.key, one.rule_id))
        for number in range(len(books))
    ]
    items = sum(count for count, _ in played)
    return report(books, openings, start_ms=asked.start, end_ms=asked.end, items=items, devices=len(said))


@contextmanager
def books_of(asked: Asked) -> Iterator[list[RuleBook]]:
    """Today's rules, and after them those with the other file, cut to what that may change. Raises RuleError."""
    today = load_rules(asked.rules)
    if asked.other is None:
        yield [today]
        return
    with tempfile.TemporaryDirectory(prefix="tizhuang-rules-") as folder:
        _write_replaced(asked.rules, asked.other, Path(folder))
        other = load_rules(Path(folder))
    rule_ids = {rule.id for book in (today, other) for rule in book} if asked.every else affected(today, other)
    yield [Chosen(today, rule_ids), Chosen(other, rule_ids)]


def _write_replaced(rules: Path, other: Path, folder: Path) -> None:
    """The rule files with the other one among them, and without the rules that it brings anew."""
    try:
        text = other.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise RuleError(f"{other}: cannot be read: {error}") from None
    replaced = set(_ids_in(text))
    for path in sorted(rules.glob("*.yaml")):
        if path.resolve() != other.resolve():
            kept = without(path.read_text(encoding="utf-8-sig"), replaced)
            (folder / f"today-{path.name}").write_text(kept, encoding="utf-8")
    (folder / f"{other.stem}.yaml").write_text(text, encoding="utf-8")


def without(text: str, rule_ids: Collection[str]) -> str:
    """The text of a rule file without some of its rules: their lines are cut out, all others stay as they are."""
    items = _items(text)
    gone = [item for item in items if _id_of(item) in rule_ids]
    rows = text.splitlines(keepends=True)
    for item in reversed(gone):
        end = item.end_mark.line + 1 if item.flow_style else item.end_mark.line
        del rows[item.start_mark.line : end]
    if gone and len(gone) == len(items):
        rows = [f"{row.rstrip()} []\n" if row.startswith("rules:") else row for row in rows]
    return "".join(rows)


def _ids_in(text: str) -> list[str]:
    return [_id_of(item) for item in _items(text)]


def _items(text: str) -> list[yaml.MappingNode]:
    """The rules of a file, with their places. None where it cannot be read: `load_rules` says what is wrong."""
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return []
    if not isinstance(root, yaml.MappingNode):
        return []
    lists = [value for key, value in root.value if key.value == "rules" and isinstance(value, yaml.SequenceNode)]
    if any(one.flow_style and one.value for one in lists):
        raise RuleError("rules of a list in [brackets] cannot be replaced one by one; write each on lines of its own")
    return [item for one in lists for item in one.value if isinstance(item, yaml.MappingNode)]


def _id_of(item: yaml.MappingNode) -> str:
    return next((str(value.value) for key, value in item.value if key.value == "id"), "")


def _processes(asked: int | None, items: int) -> int:
    if asked is not None:
        return max(1, min(asked, MOST_PROCESSES))
    return 1 if items < WORTH_TWO else min(os.cpu_count() or 1, 2)


def _play(job: _Job, tell: Callable[[int, float], None]) -> tuple[int, list[list[Opening]]]:
    """(how many items, the incidents of each book)."""
    asked = job.asked
    begin = asked.start - asked.lead_ms
    with books_of(asked) as books, open_history(job.settings) as history:
        play = Play(books, job.devices, start=begin, end=asked.end)
        items = history.history(
            begin, asked.end, device_ids=job.device_ids, kinds=kinds_of(books), fields=fields_of(books)
        )
        told = begin

        def progress(now: int) -> None:
            nonlocal told
            if now - told > (asked.end - begin) / 200:
                told = now
                tell(job.number, (now - begin) / (asked.end - begin))

        play.feed(items, progress)
        return play.items, play.finish()


_tell_parent: Callable[[tuple[int, float]], None] = print


def _begin_process(queue: Any) -> None:
    global _tell_parent  # noqa: PLW0603 - how a worker process is given something at its start
    _tell_parent = queue.put
    gc.set_threshold(SEARCH_AFTER, 20, 20)


def _play_there(job: _Job) -> tuple[int, list[list[Opening]]]:
    return _play(job, lambda number, share: _tell_parent((number, share)))


def _in_processes(jobs: list[_Job], progress: Progress) -> list[tuple[int, list[list[Opening]]]]:
    context = multiprocessing.get_context("spawn")  # a copy of our threads and locks would be none that works
    queue, done = context.Queue(), dict.fromkeys(range(len(jobs)), 0.0)
    with ProcessPoolExecutor(len(jobs), context, _begin_process, (queue,)) as pool:
        futures: list[Future[tuple[int, list[list[Opening]]]]] = [pool.submit(_play_there, job) for job in jobs]
        while wait(futures, ASK_S).not_done:
            while not queue.empty():
                number, share = queue.get()
                done[number] = share
            progress(sum(done.values()) / len(jobs))
        return [future.result() for future in futures]
