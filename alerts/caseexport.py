"""What happened around an incident as a test case: pure, from stored readings to the text of a file.

The case brings the rules of the incident's group, and of the groups that hold them back, as they stand in the rule
files today. Its outcome is what they make of it today; where the rule said something else then, the case says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from alerts.casefile import DEFAULT_DEVICE, parse_cases
from alerts.casesteps import TABLE_OF
from alerts.player import DELAY_MS, play, told, written
from alerts.rulefile import Flaw, Place, read_yaml
from core.errors import RuleError
from core.fields import FieldSpec
from core.kinds import device_fields, part_fields
from core.reading import Event, Reading, Value
from storage.incidents import Incident

LONGEST_MS: Final = 3_600_000
"""An incident that took longer is told from its beginning only."""

MOST_MESSAGES: Final = 5_000
TICK_MS: Final = 5_000
"""Where nothing comes for longer, the clock on the wall is looked at before the next message, as it is live."""


class Story(NamedTuple):
    """Which incident, and from when to when (device time, Unix ms; `end` exclusive)."""

    incident: Incident
    start: int
    end: int

    @classmethod
    def around(cls, incident: Incident, margin_ms: int) -> Story:
        """From before the rule began to be true until after it ended."""
        opened, cleared = incident.opened_device_ms, incident.cleared_device_ms
        since = min(int(incident.evidence.get("since", opened)), opened)
        last = cleared if cleared is not None and opened <= cleared <= opened + LONGEST_MS else opened
        return cls(incident, since - margin_ms, last + margin_ms + 1)

    @property
    def of_site(self) -> bool:
        """Whether it is about a whole site."""
        return self.incident.device_id.endswith(".*")


def as_case(
    story: Story,
    devices: Mapping[str, tuple[str, Mapping[str, Value]]],
    zone: str | None,
    said: Sequence[Reading | Event],
    folder: Path,
    *,
    anonymous: bool = False,
) -> str:
    """The text of a file with one case. `devices`: kind and fixed facts by id; `folder`: of the rule files.

    Raises RuleError: the rules are gone, or there is too much to tell.
    """
    if len(said) > MOST_MESSAGES:
        raise RuleError(
            f"{len(said):,} messages are too many for a case (at most {MOST_MESSAGES:,}); ask for fewer --minutes"
        )
    if not said:
        raise RuleError("nothing is stored any more of what was said around this incident")
    names = _names(devices, anonymous=anonymous)
    if anonymous:
        devices = {one: (kind, _plain_facts(statics)) for one, (kind, statics) in devices.items()}
        said = _without_event_ids(said)
    first = next(iter(devices))
    incident = story.incident
    case: dict[str, Any] = {
        "about": f"incident {incident.id}: {incident.title_en}",
        "kind": devices[first][0],
        "device": names[first],
        "start": datetime.fromtimestamp(story.start / 1000, UTC).isoformat(timespec="milliseconds"),
    }
    if zone:
        case["zone"] = zone
    if devices[first][1]:
        case["statics"] = dict(devices[first][1])
    others = {names[one]: _facts(devices[one]) for one in devices if one != first}
    if others:
        case["devices"] = others
    case["steps"] = list(_steps(story, devices, names, said, anonymous=anonymous))
    case["expect"] = []
    rules = _rules_of(folder, incident, names)
    text = _text(story, rules, case)
    (made,) = parse_cases(text, "exported.yaml", lambda _: _none()).cases
    case["expect"] = [str(line) for line in told(play(made), made)]
    return _text(story, rules, case)


def _none() -> Any:
    raise AssertionError("an exported case brings its rules")


def _names(devices: Mapping[str, object], *, anonymous: bool) -> dict[str, str]:
    """What each device is called in the case."""
    if not anonymous:
        return {one: one for one in devices}
    return {one: DEFAULT_DEVICE if index == 0 else f"here.device-{index + 1}" for index, one in enumerate(devices)}


def _plain_facts(statics: Mapping[str, Value]) -> dict[str, Value]:
    """Numbers, yes and no, and the model; any other text could lead back to a place."""
    return {name: value for name, value in statics.items() if name == "model" or not isinstance(value, str)}


def _without_event_ids(said: Sequence[Reading | Event]) -> list[Reading | Event]:
    """The same with event ids that say nothing; equal ones stay equal."""
    numbers: dict[str, str] = {}
    for one in said:
        if isinstance(one, Event):
            numbers.setdefault(one.id, f"e{len(numbers)}")
    return [one._replace(id=numbers[one.id]) if isinstance(one, Event) else one for one in said]


def _facts(device: tuple[str, Mapping[str, Value]]) -> dict[str, Any]:
    kind, statics = device
    return {"kind": kind} | ({"statics": dict(statics)} if statics else {})


# --- what was said ---------------------------------------------------------------------------------------------------


def _steps(
    story: Story,
    devices: Mapping[str, tuple[str, Mapping[str, Value]]],
    names: Mapping[str, str],
    said: Sequence[Reading | Event],
    *,
    anonymous: bool,
) -> Iterator[dict[str, Any]]:
    first, wall = next(iter(devices)), story.start
    for message in _messages(said):
        head = message[0]
        if head.rx - wall > TICK_MS:
            yield {"wall": written(head.rx - story.start)}
        wall = max(wall, head.rx)
        step: dict[str, Any] = {"at": written(max(head.ts - story.start, 0))}
        if head.rx != head.ts + DELAY_MS:
            step["rx"] = written(max(head.rx - story.start, 0))
        if head.device_id != first:
            step["device"] = names[head.device_id]
        if head.seq is not None:
            step["seq"] = head.seq
        if not head.clock_ok:
            step["clock_ok"] = False
        if head.retained:
            step["retained"] = True
        yield step | _content(message, anonymous=anonymous)
    yield {"wall": written(max(wall, story.end) - story.start)}


def _messages(said: Sequence[Reading | Event]) -> list[list[Reading | Event]]:
    """In the order in which they reached us; readings of one snapshot together."""
    found: list[list[Reading | Event]] = []
    for item in sorted(said, key=lambda one: (one.rx, one.ts, one.device_id, isinstance(one, Event))):
        last = found[-1] if found else []
        if last and isinstance(item, Reading) and _one_snapshot(last, item):
            last.append(item)
        else:
            found.append([item])
    return found


def _one_snapshot(message: Sequence[Reading | Event], item: Reading) -> bool:
    head = message[0]
    same = (head.device_id, head.ts, head.rx, head.seq) == (item.device_id, item.ts, item.rx, item.seq)
    return same and isinstance(head, Reading) and item.part not in {one.part for one in message}


def _content(message: Sequence[Reading | Event], *, anonymous: bool) -> dict[str, Any]:
    head = message[0]
    if isinstance(head, Event):
        code = head.code if head.table == TABLE_OF[head.kind] else f"{head.table}/{head.code}"
        found: dict[str, Any] = {"event": f"{code} {'raised' if head.raised else 'cleared'}", "id": head.id}
        return found | ({"port": int(head.part)} if head.part else {})
    step: dict[str, Any] = {}
    ports: dict[str, Any] = {}
    for one in message:
        if isinstance(one, Reading):
            specs = part_fields(one.kind) if one.part else device_fields(one.kind)
            fields = {name: value for name, value in one.fields.items() if _is_told(name, specs, anonymous=anonymous)}
            if one.part:
                ports[one.part] = fields
            else:
                step["send"] = fields
    if ports:
        step["ports"] = ports
    return step


def _is_told(name: str, specs: Mapping[str, FieldSpec], *, anonymous: bool) -> bool:
    """Fields of the contract; of free text none that could lead back to a person or a place."""
    return name in specs and not (anonymous and specs[name].type is str and not specs[name].choices)


# --- the rules -------------------------------------------------------------------------------------------------------


def _rules_of(folder: Path, incident: Incident, names: Mapping[str, str]) -> dict[str, list[Any]]:
    """The rules of the incident's group, and of all groups that hold them back; by kind, as their files say them."""
    every: list[tuple[str, dict[str, Any]]] = []
    overrides: list[dict[str, Any]] = []
    for path in sorted(folder.glob("*.yaml")):
        flaws: list[Flaw] = []
        node = read_yaml(path.read_text(encoding="utf-8-sig"), Place(path.name, flaws))
        data = node.plain() if node is not None and not flaws else {}
        every += [(data.get("kind", ""), rule) for rule in data.get("rules") or ()]
        overrides += data.get("overrides") or ()
    wanted = {incident.fault_group}
    while True:
        named = {name for _, rule in every if rule["group"] in wanted for name in _listed(rule.get("inhibited_by"))}
        more = named | {rule["group"] for _, rule in every if rule["id"] in named} | wanted
        if more == wanted:
            break
        wanted = more
    found: dict[str, list[Any]] = {}
    for kind, rule in every:
        if rule["group"] in wanted:
            found.setdefault(kind, []).append(rule)
    ids = {rule["id"] for rules in found.values() for rule in rules}
    if not any(rule["group"] == incident.fault_group for rules in found.values() for rule in rules):
        raise RuleError(f"the rules of the group '{incident.fault_group}' are no longer in {folder}")
    kept = [_fitting(one, names) for one in overrides if one.get("rule") in ids]
    if any(kept):
        found["overrides"] = [one for one in kept if one]
    return found


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())


def _fitting(override: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any] | None:
    """An override that can be about devices of the case, under their names there."""
    sites = {known.partition(".")[0]: name.partition(".")[0] for known, name in names.items()}
    own = dict(override)
    for level, known in (("device", names), ("site", sites)):
        if level in own:
            if own[level] not in known:
                return None
            own[level] = known[own[level]]
    return own


def _text(story: Story, rules: Mapping[str, Any], case: Mapping[str, Any]) -> str:
    incident = story.incident
    fired = written(incident.opened_device_ms - story.start)
    head = [
        f"# Incident {incident.id}, rule {incident.rule_id} of version {incident.rule_version or 'unknown'}.",
        f"# It fired at {fired}; 'expect' is what the rules of today make of it.",
    ]
    if "when" in incident.evidence:
        head.append(f"# Then its condition was: {' '.join(str(incident.evidence['when']).split())}")
    return "\n".join(head) + "\n" + _yaml({"rules": dict(rules), "cases": [dict(case)]})


class _Flow(dict[str, Any]):
    """A mapping that is written on one line."""


class _Dumper(yaml.SafeDumper):
    """Steps stand on one line each."""


_Dumper.add_representer(
    _Flow, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)
)


def _yaml(data: dict[str, Any]) -> str:
    for case in data["cases"]:
        case["steps"] = [_Flow(step) for step in case["steps"]]
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
