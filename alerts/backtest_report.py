"""The result of a backtest as data, for the command line, for JSON and for pages. Times: device time, Unix ms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from alerts.backtest import Opening, Pair, compared
from alerts.rulebook import RuleBook

EXAMPLES: Final = 5


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True)


class Example(_Model):
    """One incident."""

    device_id: str
    part: str = Field(description='port as text; "" is the device itself')
    at_ms: int
    duration_s: float | None = Field(description="null: it stood at the end of the time")
    shift_s: float | None = Field(
        default=None, description="how much later than with today's rules; less than 0: earlier"
    )


class RuleOutcome(_Model):
    """What one rule would have opened."""

    rule_id: str
    severity: str
    title_zh: str
    title_en: str
    opened: int = Field(description="incidents that it opened")
    joined: int = Field(description="incidents of its group, opened by another rule, in which it fired too")
    standing: int = Field(description="of those it opened: still open at the end of the time")
    devices: int
    median_s: float | None = Field(description="of those that ended")
    longest_s: float | None
    examples: list[Example]


class RuleDifference(_Model):
    """How a rule's incidents differ from those of today's rules. An incident that another rule opened counts for it."""

    rule_id: str
    new: int
    gone: int
    same: int = Field(description="opened at the same instant")
    earlier: int
    later: int
    median_shift_s: float | None = Field(description="of the earlier and later ones; less than 0: earlier")
    examples: list[Example] = Field(description="new ones first, then those that are gone, then the shifted ones")


class BacktestResult(_Model):
    """What would have opened from `start_ms` (inclusive) to `end_ms` (exclusive)."""

    start_ms: int
    end_ms: int
    items: int = Field(description="readings and events that were judged, the lead-in included")
    devices: int
    rule_ids: list[str] = Field(
        description="rules that were judged; those that cannot differ from today's are left out"
    )
    rules: list[RuleOutcome]
    differences: list[RuleDifference] | None = Field(description="null: there was nothing to compare with")


def report(
    books: Sequence[RuleBook],
    openings: Sequence[Sequence[Opening]],
    *,
    start_ms: int,
    end_ms: int,
    items: int,
    devices: int,
) -> BacktestResult:
    """The last book is the one that is told of; the first, where there are two, is that of today."""
    told = [[one for one in some if one.at >= start_ms] for some in openings]
    book = books[-1]
    return BacktestResult(
        start_ms=start_ms,
        end_ms=end_ms,
        items=items,
        devices=devices,
        rule_ids=[rule.id for rule in book],
        rules=[_outcome(book, rule_id, told[-1]) for rule_id in _ids(book, told[-1])],
        differences=_differences(openings, start_ms) if len(books) > 1 else None,
    )


def _ids(book: RuleBook, openings: Sequence[Opening]) -> list[str]:
    """Rules in the order of the files."""
    return list(dict.fromkeys([*(rule.id for rule in book), *(one.rule_id for one in openings)]))


def _outcome(book: RuleBook, rule_id: str, openings: Sequence[Opening]) -> RuleOutcome:
    finding = next(rule.finding for rule in book if rule.id == rule_id)
    mine = [one for one in openings if one.rule_id == rule_id]
    lasted = [(one.ended - one.at) / 1_000 for one in mine if one.ended is not None]
    return RuleOutcome(
        rule_id=rule_id,
        severity=str(finding.severity),
        title_zh=finding.title.zh,
        title_en=finding.title.en,
        opened=len(mine),
        joined=sum(rule_id in one.joined for one in openings),
        standing=len(mine) - len(lasted),
        devices=len({one.device_id for one in mine}),
        median_s=median(lasted) if lasted else None,
        longest_s=max(lasted, default=None),
        examples=[_example(one) for one in mine[:EXAMPLES]],
    )


def _differences(openings: Sequence[Sequence[Opening]], start_ms: int) -> list[RuleDifference]:
    """By rule. Pairs are found with the lead-in, so that what stood at the start is no difference."""
    by_rule: dict[str, list[Pair]] = {}
    for pair in compared(openings[0], openings[-1]):
        shown = pair.other or pair.today
        assert shown is not None
        if max(one.at for one in pair if one is not None) >= start_ms:
            by_rule.setdefault(shown.rule_id, []).append(pair)
    return [_difference(rule_id, pairs) for rule_id, pairs in sorted(by_rule.items())]


def _difference(rule_id: str, pairs: Sequence[Pair]) -> RuleDifference:
    new = [_example(pair.other) for pair in pairs if pair.today is None and pair.other is not None]
    gone = [_example(pair.today) for pair in pairs if pair.other is None and pair.today is not None]
    both = [(pair.today, pair.other) for pair in pairs if pair.today is not None and pair.other is not None]
    shifted = [_example(other, (other.at - today.at) / 1_000) for today, other in both if today.at != other.at]
    shifts = [one.shift_s for one in shifted if one.shift_s is not None]
    return RuleDifference(
        rule_id=rule_id,
        new=len(new),
        gone=len(gone),
        same=len(both) - len(shifted),
        earlier=sum(shift < 0 for shift in shifts),
        later=sum(shift > 0 for shift in shifts),
        median_shift_s=median(shifts) if shifts else None,
        examples=[*new[:EXAMPLES], *gone[:EXAMPLES], *shifted[:EXAMPLES]],
    )


def _example(one: Opening, shift_s: float | None = None) -> Example:
    duration_s = None if one.ended is None else (one.ended - one.at) / 1_000
    return Example(device_id=one.device_id, part=one.part, at_ms=one.at, duration_s=duration_s, shift_s=shift_s)


# --- as text ---------------------------------------------------------------------------------------------------------


def lines(result: BacktestResult, when: Callable[[int], str]) -> Iterable[str]:
    """The result as lines of text. `when` writes a device time for people."""
    fired = [one for one in result.rules if one.opened or one.joined]
    span = f"from {when(result.start_ms)} to {when(result.end_ms)}"
    yield f"{result.items} readings and events of {result.devices} devices, {len(result.rule_ids)} rules, {span}"
    rows = [("rule", "severity", "opened", "joined", "open still", "devices", "median", "longest")]
    rows += [
        (
            one.rule_id,
            one.severity,
            str(one.opened),
            str(one.joined),
            str(one.standing),
            str(one.devices),
            _time(one.median_s),
            _time(one.longest_s),
        )
        for one in fired
    ]
    if fired:
        yield ""
        yield from _table(rows)
        yield ""
        yield "first of each:"
        yield from (f"  {rule.rule_id}: {_told(one, when)}" for rule in fired for one in rule.examples[:2])
    if quiet := len(result.rules) - len(fired):
        yield f"{quiet} rules would have opened nothing"
    if result.differences is not None:
        yield ""
        yield from _difference_lines(result.differences, when)


def _difference_lines(differences: Sequence[RuleDifference], when: Callable[[int], str]) -> Iterable[str]:
    if all(one.new == one.gone == one.earlier == one.later == 0 for one in differences):
        yield f"compared with today's rules: all the same ({sum(one.same for one in differences)} incidents)"
        return
    yield "compared with today's rules:"
    rows = [("rule", "new", "gone", "same", "earlier", "later", "median shift")]
    rows += [
        (
            one.rule_id,
            str(one.new),
            str(one.gone),
            str(one.same),
            str(one.earlier),
            str(one.later),
            _time(one.median_shift_s),
        )
        for one in differences
    ]
    yield from _table(rows)
    for one in differences:
        kinds = ["new"] * min(one.new, EXAMPLES) + ["gone"] * min(one.gone, EXAMPLES)
        for number, example in enumerate(one.examples):
            yield f"  {kinds[number] if number < len(kinds) else 'shifted'}: {one.rule_id}: {_told(example, when)}"


def _told(one: Example, when: Callable[[int], str]) -> str:
    part = f" port {one.part}" if one.part else ""
    lasted = "open still" if one.duration_s is None else _time(one.duration_s)
    shift = "" if one.shift_s is None else f", {_time(abs(one.shift_s))} {'earlier' if one.shift_s < 0 else 'later'}"
    return f"{one.device_id}{part} at {when(one.at_ms)}, {lasted}{shift}"


def _time(seconds: float | None) -> str:
    """`45s`, `3m20s`, `2h05m`, `3d4h`; `-` for none."""
    if seconds is None:
        return "-"
    sign, whole = "-" if seconds < 0 else "", round(abs(seconds))
    if whole < 60:
        return f"{sign}{abs(seconds):.3g}s"
    if whole < 3_600:
        return f"{sign}{whole // 60}m{whole % 60:02}s"
    if whole < 86_400:
        return f"{sign}{whole // 3_600}h{whole % 3_600 // 60:02}m"
    return f"{sign}{whole // 86_400}d{whole % 86_400 // 3_600}h"


def _table(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
