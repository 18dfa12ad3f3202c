"""Parameters of rules and their overrides: `hold: 60s` for all, 90s at one site, 45s for one model, 30s for one lift.

The most specific override wins, for each parameter alone: device over model over site over the rule's own value.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import isfinite
from typing import Any, Final, Literal, NamedTuple

from alerts.condition import Param
from alerts.rulefile import Key, Node, Place, Spot, did_you_mean, identifier, is_name, listed, mapping, text, unfit
from core.clock import duration_ms
from core.incident import Words

Level = Literal["site", "model", "device"]
LEVELS: Final[tuple[Level, ...]] = ("site", "model", "device")
"""From the least to the most specific."""

MAX_COMBINATIONS: Final = 20_000
"""Of overrides of one rule that can meet on a device; each different one is compiled when the files are read."""

_RESERVED: Final = {"and", "or", "not", "true", "false", "device"}


class Amount(NamedTuple):
    """A value of a parameter, as people write it and as it counts."""

    written: float | str | bool
    kind: Literal["number", "duration", "text", "true or false"]
    counts: float | str | bool
    """Durations in ms."""

    @property
    def param(self) -> Param:
        """As conditions see it: durations in seconds."""
        if self.kind == "duration":
            return Param(float(self.counts) / 1000, "s")
        return Param(float(self.counts) if self.kind == "number" else self.counts, "")


Values = tuple[Amount, ...]
"""The values of all parameters of a rule, in the order in which it declares them."""


class Declared(NamedTuple):
    """A parameter as its rule declares it."""

    name: str
    default: Amount
    low: Amount | None
    high: Amount | None
    words: Words
    spot: Spot

    def unfit(self, amount: Amount) -> str | None:
        """Why it cannot have this value; None: it can."""
        if amount.kind != self.default.kind:
            return f"'{self.name}' is a {self.default.kind} like {self.default.written}, this is a {amount.kind}"
        if self.low is not None and amount.counts < self.low.counts:  # type: ignore[operator] # of one kind
            return f"{amount.written} is less than the minimum of '{self.name}', {self.low.written}"
        if self.high is not None and amount.counts > self.high.counts:  # type: ignore[operator]
            return f"{amount.written} is more than the maximum of '{self.name}', {self.high.written}"
        return None


class Parameter(NamedTuple):
    """What a parameter of a rule is on one device, for people."""

    name: str
    value: float | str | bool
    origin: str
    """`rule`, `site fenghe`, `model X`, or `device fenghe.lift-1`."""
    min: float | str | None
    max: float | str | None
    title: Words


class Override(NamedTuple):
    """Other values for one rule on some devices."""

    rule_id: str
    level: Level
    target: str
    values: Mapping[str, Amount]
    spots: Mapping[str, Spot]
    place: Place
    spot: Spot


class Names(NamedTuple):
    """What of a device overrides can be written for."""

    site: str | None
    model: str | None
    device: str | None


# --- what files say --------------------------------------------------------------------------------------------------


def read_params(node: Node, place: Place) -> dict[str, Declared] | None:
    """`params:` of a rule."""
    if not isinstance(node.data, dict):
        place.expected(node, "a mapping", "{hold: 60s}")
        return None
    found = {}
    for name, value in node.data.items():
        here = place.at(name)
        if not is_name(name) or name in _RESERVED:
            here.flaw(
                node.keys[name], f"'{name}' is no name of a parameter: lower-case letters, digits and _, like hold"
            )
        elif (declared := _declared(name, value, node.keys[name], here)) is not None:
            found[name] = declared
    return found


def _declared(name: str, node: Node, spot: Spot, place: Place) -> Declared | None:
    got: dict[str, Any]
    if isinstance(node.data, dict):
        got = mapping(node, _DECLARED, place, "{value: 60s, min: 20s, max: 90s}")
    else:
        got = {"value": _amount(node, place)}
    if got.get("value") is None:
        return None
    words = Words(got.get("zh", ""), got.get("en", ""))
    declared = Declared(name, got["value"], None, None, words, spot)
    for bound in ("min", "max"):
        if bound in got and got[bound].kind not in ("number", "duration"):
            place.at(bound).flaw(
                node.data[bound].spot, f"a {got[bound].kind} cannot be a bound; give a number or duration"
            )
        elif bound in got and (wrong := declared.unfit(got[bound])) is not None:
            place.at(bound).flaw(node.data[bound].spot, wrong)
        elif bound in got:
            declared = declared._replace(**{"low" if bound == "min" else "high": got[bound]})
    if (wrong := declared.unfit(declared.default)) is not None:
        place.flaw(node.spot, wrong)
    return declared


def _amount(node: Node, place: Place) -> Amount | None:
    data = node.data
    if isinstance(data, bool):
        return Amount(data, "true or false", data)
    if isinstance(data, int | float) and abs(data) < 1e15 and isfinite(data):
        return Amount(data, "number", float(data))
    if not isinstance(data, str) or not data or len(data) > 200:
        place.expected(node, "a number, a duration, a short text, true or false", "60s")
        return None
    try:
        ms = duration_ms(data)
    except ValueError:
        return Amount(data, "text", data)
    if (wrong := unfit(ms, 0)) is not None:
        place.flaw(node.spot, f"'{data}' is {wrong}")
        return None
    return Amount(data, "duration", float(ms))


def read_overrides(node: Node, place: Place) -> list[Override]:
    """`overrides:` of a file, as far as it can be checked without its rules."""
    return [
        override
        for item in listed(node, place, "a list of overrides", "[{rule: port-hot, site: fenghe, params: {hold: 60s}}]")
        if (override := _override(item, place)) is not None
    ]


def _override(node: Node, place: Place) -> Override | None:
    got = mapping(node, OVERRIDE_KEYS, place, "{rule: port-hot, site: fenghe, params: {hold: 60s}}")
    if not isinstance(node.data, dict):
        return None
    levels = [level for level in LEVELS if level in node.data]
    if len(levels) != 1:
        place.flaw(node.spot, f"give exactly one of site, model and device, like site: fenghe; here are {len(levels)}")
    if len(levels) != 1 or not {"rule", "params", levels[0]} <= got.keys():
        return None
    params = node.data["params"]
    return Override(got["rule"], levels[0], got[levels[0]], got["params"], params.keys, place, node.data["rule"].spot)


def _amounts(node: Node, place: Place) -> dict[str, Amount] | None:
    if not isinstance(node.data, dict) or not node.data:
        place.expected(node, "a mapping", "{hold: 60s}")
        return None
    amounts = {name: _amount(value, place.at(name)) for name, value in node.data.items()}
    return {name: amount for name, amount in amounts.items() if amount is not None}


def _device(node: Node, place: Place) -> str | None:
    site, dot, device = str(node.data).partition(".")
    if (
        isinstance(node.data, str)
        and dot
        and all(identifier(Node(part, node.spot), Place("", [])) for part in (site, device))
    ):
        return node.data
    place.flaw(node.spot, f"'{str(node.data)[:80]}' is no device: expected SITE.DEVICE, like fenghe.lift-1")
    return None


OVERRIDE_KEYS: Final = {
    "rule": Key(identifier, required=True),
    "site": Key(identifier),
    "model": Key(text(200, "KONE 3000")),
    "device": Key(_device),
    "params": Key(_amounts, required=True),
}
_DECLARED: Final = {
    "value": Key(_amount, required=True),
    "zh": Key(text(200, "保持时间")),
    "en": Key(text(200, "hold time")),
    "min": Key(_amount),
    "max": Key(_amount),
}


# --- what holds on a device ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sheet:
    """The parameters of one rule with all overrides that fit, each thing said once on each level."""

    declared: Mapping[str, Declared]
    overrides: tuple[Override, ...]

    @property
    def defaults(self) -> Values:
        """The values without any override."""
        return tuple(one.default for one in self.declared.values())

    def values(self, names: Names) -> Values:
        """The values on a device."""
        return tuple(self._settled(one, names)[0] for one in self.declared.values())

    def told(self, names: Names) -> list[Parameter]:
        """The values on a device, for people, with where each comes from."""
        found = []
        for one in self.declared.values():
            amount, origin = self._settled(one, names)
            low, high = (None if bound is None else bound.written for bound in (one.low, one.high))
            found.append(Parameter(one.name, amount.written, origin, low, high, one.words))
        return found

    def _settled(self, one: Declared, names: Names) -> tuple[Amount, str]:
        for level in reversed(LEVELS):
            target = getattr(names, level)
            amount = self._amounts.get((level, target), {}).get(one.name)
            if amount is not None:
                return amount, f"{level} {target}"
        return one.default, "rule"

    @cached_property
    def _amounts(self) -> dict[tuple[Level, str], dict[str, Amount]]:
        found: dict[tuple[Level, str], dict[str, Amount]] = {}
        for one in self.overrides:
            found.setdefault((one.level, one.target), {}).update(one.values)
        return found

    def combinations(self) -> Iterator[tuple[Names, Override]]:
        """Every set of overrides that can meet on a device, with the most specific one of it."""
        by: dict[Level, dict[str | None, Override | None]] = {level: {None: None} for level in LEVELS}
        for one in self.overrides:
            by[one.level].setdefault(one.target, one)
        for (site, of_site), (model, of_model) in product(by["site"].items(), by["model"].items()):
            if (last := of_model or of_site) is not None:
                yield Names(site, model, None), last
        for (device, of_device), (model, _) in product(by["device"].items(), by["model"].items()):
            if device is not None and of_device is not None:
                yield Names(site_of(device), model, device), of_device

    @property
    def combination_count(self) -> int:
        """How many `combinations` there are, without going through them."""
        sites, models, devices = (len({o.target for o in self.overrides if o.level == level}) for level in LEVELS)
        return (sites + 1 + devices) * (models + 1)


def site_of(device_id: str) -> str:
    """`fenghe` of `fenghe.lift-1`."""
    return device_id.partition(".")[0]


def fitting(declared: Mapping[str, Declared], overrides: Iterable[Override]) -> tuple[Override, ...]:
    """The overrides of one rule that can be used; flaws of the others are noted down at their places."""
    seen: dict[tuple[Level, str, str], Override] = {}
    fit = []
    for override in overrides:
        good = {}
        for name, amount in override.values.items():
            place, spot = override.place.at("params").at(name), override.spots[name]
            known = declared.get(name)
            if known is None:
                hint = did_you_mean(name, declared) if declared else "; it has none"
                place.flaw(spot, f"rule '{override.rule_id}' has no parameter '{name}'{hint}")
            elif (wrong := known.unfit(amount)) is not None:
                place.flaw(spot, wrong)
            elif (first := seen.setdefault((override.level, override.target, name), override)) is not override:
                where = f"{first.place.file}:{first.spots[name].line}"
                place.flaw(spot, f"already given for {override.level} {override.target} at {where}")
            else:
                good[name] = amount
        fit.append(override._replace(values=good))
    return tuple(fit)


def as_params(declared: Mapping[str, Declared], values: Sequence[Amount]) -> dict[str, Amount]:
    """The values by name."""
    return dict(zip(declared, values, strict=True))
