"""Rule files: YAML, checked as a whole against the contract, compiled once. All faults are reported together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from alerts.expression import Condition, compile_condition
from core.clock import duration_ms
from core.errors import ExpressionError, RuleError
from core.faults import FAULTS, Severity
from core.incident import Finding, Words
from core.kinds import KINDS, device_fields, part_fields

DEADLINE_MS = 15 * 60_000
"""Data that reaches us later than this after the fact opens its incident marked late, and pages nobody."""


class Rule(NamedTuple):
    """One rule, ready to run. Exactly one of `when` (alone), `events` and `silence_ms` makes it fire."""

    id: str
    kind: str
    part: Literal["device", "port"]
    finding: Finding
    when: Condition | None
    events: frozenset[str]
    silence_ms: int | None
    for_ms: int
    clear: Condition | None
    deadline_ms: int
    mute_in: frozenset[str]
    watched: frozenset[str]
    """Fields whose new values can change what the rule says."""
    watched_faults: frozenset[str]
    """Faults whose coming and going can change it, by `active(...)`."""


_T = TypeVar("_T")
_Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Title(_Strict):
    zh: str = Field(min_length=1, max_length=200)
    en: str = Field(min_length=1, max_length=200)


class _Advice(_Strict):
    zh: str = Field(min_length=1, max_length=1000)
    en: str = Field(min_length=1, max_length=1000)


class _Rule(_Strict):
    """The shape of one entry of a rule file; what the values mean is checked by `_compile`."""

    id: _Id
    part: Literal["device", "port"] = "device"
    group: _Id
    severity: Severity
    title: _Title
    what_to_do: _Advice | None = None
    when: str | None = None
    event: list[str] = []
    silence: str | None = None
    for_: str = Field(default="0s", alias="for")
    clear: str | None = None
    close: Literal["person", "telemetry"] = "person"
    needs_clear: bool = False
    deadline: str | None = None
    mute_in: list[str] = []

    @model_validator(mode="after")
    def _one_trigger(self) -> _Rule:
        if self.silence and (self.when or self.event or self.clear or self.for_ != "0s"):
            raise ValueError("a silence rule has no 'when', 'event', 'clear' or 'for'")
        if not (self.when or self.event or self.silence):
            raise ValueError("give one of 'when', 'event' or 'silence'")
        if self.event and (self.clear or self.for_ != "0s"):
            raise ValueError("an event rule has no 'clear' or 'for': the device says when the fault is over")
        if self.needs_clear and self.close == "telemetry":
            raise ValueError("what a person must state to be over cannot be closed by telemetry")
        return self


class _File(_Strict):
    kind: str
    rules: list[_Rule]


def load_rules(folder: Path) -> list[Rule]:
    """All rules of all `*.yaml` files in a folder, in order of file name. Raises RuleError naming every fault."""
    files = sorted(folder.glob("*.yaml"))
    if not files:
        raise RuleError(f"no rule files (*.yaml) in {folder}")
    rules: list[Rule] = []
    problems: list[str] = []
    for path in files:
        try:
            rules += parse_rules(path.read_text(encoding="utf-8"), path.name)
        except UnicodeDecodeError as error:
            problems.append(f"{path.name}: not UTF-8: {error.reason} at byte {error.start}")
        except (RuleError, OSError) as error:
            problems.append(str(error))
    uses = Counter(rule.id for rule in rules)
    problems += [f"rule id '{rule_id}' is used {times} times" for rule_id, times in uses.items() if times > 1]
    problems += _unlike_closing(rules)
    if problems:
        raise RuleError("\n".join(problems))
    return rules


def _unlike_closing(rules: Sequence[Rule]) -> list[str]:
    """Rules of a group share an incident: what one of them leaves to a person, another must not close by telemetry."""
    ways: dict[tuple[str, str], set[str]] = {}
    for rule in rules:
        ways.setdefault((rule.kind, rule.finding.group), set()).add(rule.finding.close)
    return [
        f"group '{group}' of {kind}: some rules close by telemetry and some by a person; they share one incident"
        for (kind, group), found in ways.items()
        if len(found) > 1
    ]


def parse_rules(text: str, name: str) -> list[Rule]:
    """The rules in one file's text. Raises RuleError; every line of it names file, rule and field."""
    try:
        file = _File.model_validate(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise RuleError(f"{name}: not YAML: {error}".replace("\n", " ")) from None
    except ValidationError as error:
        told = (f"{name}: {'.'.join(map(str, d['loc'])) or 'file'}: {d['msg']}" for d in error.errors())
        raise RuleError("\n".join(told)) from None
    if file.kind not in KINDS:
        raise RuleError(f"{name}: kind: unknown kind '{file.kind}'; known: {', '.join(KINDS)}")
    rules: list[Rule] = []
    problems: list[str] = []
    for raw in file.rules:
        found: list[str] = []
        rule = _compile(raw, file.kind, found)
        rules.append(rule)
        problems += [f"{name}: {raw.id}: {problem}" for problem in found]
    if problems:
        raise RuleError("\n".join(problems))
    return rules


def _compile(raw: _Rule, kind: str, problems: list[str]) -> Rule:
    """The rule, for use if nothing was added to `problems`."""

    def checked(work: Callable[[], _T], instead: _T) -> _T:
        try:
            return work()
        except (ExpressionError, ValueError) as error:
            problems.append(str(error))
            return instead

    unknown = [fault for fault in raw.event if fault not in FAULTS or FAULTS[fault].kind != kind]
    if unknown:
        problems.append(f"event: no such fault of a {kind}: {', '.join(unknown)}")
    when = checked(lambda: _condition(raw.when, raw.part, kind, "when"), None)
    clear = checked(lambda: _condition(raw.clear, raw.part, kind, "clear"), None)
    conditions = [condition for condition in (when, clear) if condition]
    return Rule(
        id=raw.id,
        kind=kind,
        part=raw.part,
        finding=Finding(
            rule_id=raw.id,
            group=raw.group,
            severity=raw.severity,
            title=Words(raw.title.zh, raw.title.en),
            what_to_do=Words(raw.what_to_do.zh, raw.what_to_do.en) if raw.what_to_do else Words("", ""),
            close=raw.close,
            needs_clear=raw.needs_clear,
        ),
        when=when,
        events=frozenset(raw.event),
        silence_ms=checked(lambda: _duration(raw.silence, "silence"), None),
        for_ms=checked(lambda: _duration(raw.for_, "for"), None) or 0,
        clear=clear,
        deadline_ms=checked(lambda: _duration(raw.deadline, "deadline"), None) or DEADLINE_MS,
        mute_in=checked(lambda: _modes(raw.mute_in, kind), frozenset()),
        watched=frozenset({"service_mode"} if raw.mute_in else ()).union(*(one.fields for one in conditions)),
        watched_faults=frozenset().union(*(condition.faults for condition in conditions)),
    )


def _duration(text: str | None, key: str) -> int | None:
    try:
        return None if text is None else duration_ms(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _condition(text: str | None, part: str, kind: str, key: str) -> Condition | None:
    """A rule of a port sees the port's fields, and those of the pile that no port has (`mains`, never `ambient_c`)."""
    if text is None:
        return None
    fields = device_fields(kind) | (part_fields(kind) if part == "port" else {})
    try:
        return compile_condition(text, fields, frozenset(name for name, fault in FAULTS.items() if fault.kind == kind))
    except ExpressionError as error:
        raise ExpressionError(f"{key}: {error.reason}", error.column) from None


def _modes(modes: Sequence[str], kind: str) -> frozenset[str]:
    spec: Any = device_fields(kind).get("service_mode")
    wrong = [mode for mode in modes if spec is None or mode not in spec.choices]
    if wrong:
        raise ValueError(f"mute_in: a {kind} has no service mode {', '.join(wrong)}")
    return frozenset(modes)
