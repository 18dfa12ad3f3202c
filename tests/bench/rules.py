"""What rules cost: evaluations a second on one core with the default rules, and a message's cost as rules grow.

A condition is *evaluated* when the engine computes it. It is *skipped* when the engine knows without computing that the
message cannot change its verdict: no field of it has a new value, and neither time nor a window matters to it. Both are
answers of the same question, so they are told apart. Times are CPU times of this process.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from alerts.condition import Condition, Scope
from alerts.engine import Engine
from alerts.rulebook import RuleBook, load_rules
from alerts.rules import Rule
from core.reading import Batch, Message
from tests import servers
from tests.bench.figures import Figure
from tests.bench.life import messages
from tests.bench.options import Options

LIFE_S = 1_800
GROWTH = (1, 2, 4, 8)
DEFAULT_RULES = servers.ROOT / "deploy" / "rules"


class Changed(RuleBook):
    """A book whose rules are made into others."""

    def __init__(self, book: RuleBook, change: Callable[[Rule], list[Rule]]) -> None:
        self.__dict__.update(book.__dict__)
        self._whole, self._change = book, change
        self._made: dict[int, tuple[tuple[Rule, ...], tuple[Rule, ...]]] = {}

    def rules_for(self, kind: str, *, device_id: str, model: str | None) -> tuple[Rule, ...]:
        whole = self._whole.rules_for(kind, device_id=device_id, model=model)
        if id(whole) not in self._made:
            self._made[id(whole)] = (whole, tuple(one for rule in whole for one in self._change(rule)))
        return self._made[id(whole)][1]


class Count:
    """Counts evaluations of the conditions of a book."""

    def __init__(self) -> None:
        self.evaluated = 0

    def book(self, book: RuleBook) -> RuleBook:
        return Changed(book, self._counting)

    def _counting(self, rule: Rule) -> list[Rule]:
        return [rule._replace(when=self._watched(rule.when), clear=self._watched(rule.clear))]

    def _watched(self, condition: Condition | None) -> Condition | None:
        if condition is None:
            return None
        evaluate = condition.evaluate

        def counted(scope: Scope) -> bool | None:
            self.evaluated += 1
            return evaluate(scope)

        return condition._replace(evaluate=counted)


def copies(rule: Rule, number: int) -> list[Rule]:
    """So many rules of the same condition, each with an incident of its own."""
    if rule.kind == "site":
        return [rule]
    made = [rule]
    for copy in range(1, number):
        rule_id = f"{rule.id}-{copy}"
        finding = rule.finding._replace(rule_id=rule_id, group=f"{rule.finding.group}-{copy}")
        made.append(rule._replace(id=rule_id, finding=finding))
    return made


def rules(_folder: Path, options: Options) -> list[Figure]:
    book = load_rules(DEFAULT_RULES)
    life = list(messages(LIFE_S))
    count = Count()
    _play(count.book(book), life)
    asked = _asked(book, life)
    spent_s = _best(book, life, options.rounds)
    figures = [
        Figure("rules: messages played", len(life), "messages"),
        Figure("rules: conditions of the default rules", _conditions(book), ""),
        Figure("rules: evaluated", count.evaluated / spent_s, "/s"),
        Figure("rules: skipped, provably", max(0, asked - count.evaluated) / spent_s, "/s"),
        Figure("rules: evaluated and skipped", max(asked, count.evaluated) / spent_s, "/s"),
        Figure("rules: evaluated of each message", count.evaluated / len(life), ""),
    ]
    for factor in GROWTH:
        grown = Changed(book, lambda rule, factor=factor: copies(rule, factor))  # type: ignore[misc]
        options.progress(f"rules x{factor}")
        cost_s = spent_s if factor == 1 else _best(grown, life, options.rounds)
        figures.append(Figure(f"rules x{factor}: CPU a message", cost_s / len(life) * 1e6, "us"))
    return figures


def _conditions(book: RuleBook) -> int:
    return sum(rule.when is not None for rule in book)


def _asked(book: RuleBook, life: list[Message]) -> int:
    """How many conditions would be computed if every one were computed for every reading of its kind of part."""
    by_part = {
        (kind, part): sum(rule.when is not None and (rule.kind, rule.part) == (kind, part) for rule in book)
        for kind in ("elevator", "charger")
        for part in ("device", "port")
    }
    readings = (reading for message in life for reading in message.readings)
    return sum(by_part[one.kind, "port" if one.part else "device"] for one in readings)


def _best(book: RuleBook, life: list[Message], rounds: int) -> float:
    return min(_play(book, life) for _ in range(rounds))


def _play(book: RuleBook, life: list[Message]) -> float:
    """CPU seconds."""
    engine = Engine(book)
    batches = [Batch((*message.readings, *message.events)) for message in life]
    began = time.process_time()
    for batch in batches:
        engine.observe(batch)
    return time.process_time() - began
