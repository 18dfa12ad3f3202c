"""Parameters of rules: what can be declared and overridden, and that the most specific value wins."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.params import Parameter
from alerts.rulebook import RuleBook, load_rules, parse_rules
from core.errors import RuleError
from core.incident import Words

HEAD = "id: hot, part: port, group: heat, severity: P1, title: {zh: 热, en: hot}"
RULE = f"{HEAD}, when: temp_c >= limit and power_w > 3, for: hold"
PARAMS = "params: {hold: {value: 60s, zh: 时间, en: hold, min: 20s, max: 90s}, limit: 80}"


def file_of(rule: str, *overrides: str) -> str:
    lines = ["kind: charger", "rules:", f"  - {{{rule}}}", "overrides:" if overrides else ""]
    return "\n".join([*lines, *(f"  - {{{one}}}" for one in overrides)]) + "\n"


def told(text: str) -> list[str]:
    """What is wrong with a file; § stands before the place that the only message must name."""
    with pytest.raises(RuleError) as caught:
        parse_rules(text.replace("§", ""), "my.yaml")
    lines = str(caught.value).split("\n")
    if "§" in text:
        before = text[: text.index("§")].split("\n")
        assert lines[0].startswith(f"my.yaml:{len(before)}:{len(before[-1]) + 1}: ")
        assert len(lines) == 1
    return lines


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ("{hold: §60, limit: 80}", "hot.for: 'hold' is a number; a duration like 90s is expected here"),
        ("{hold: §[60s], limit: 80}", "hot.params.hold: expected a number, a duration, a short text, true or false"),
        ("{hold: {value: 60s, min: §90s}, limit: 80}", "hot.params.hold: 60s is less than the minimum of 'hold', 90s"),
        ("{hold: {value: 60s, max: 30s}, limit: 80}", "60s is more than the maximum of 'hold', 30s"),
        (
            "{hold: {value: 60s, max: §30}, limit: 80}",
            "hot.params.hold.max: 'hold' is a duration like 60s, this is a number",
        ),
        ("{hold: 60s, limit: {value: x, min: a}}", "hot.params.limit.min: a text cannot be a bound"),
        ("{hold: 60s, limit: {§valeu: 3}}", "unknown key 'valeu'; did you mean 'value'?"),
        ("{hold: 60s, limit: 80, §temp_c: 3}", "'temp_c' is a field of a charger; give the parameter another name"),
        ("{hold: 60s, limit: 80, §mains: 3}", "'mains' is a field of a charger"),
        ("{hold: 60s, limit: 80, §Spare: 3}", "'Spare' is no name of a parameter"),
        ("{hold: 60s, limit: 80, §and: 3}", "'and' is no name of a parameter"),
        ("{hold: 60s, limit: 80, §spare: 3}", "the rule does not use its parameter 'spare'"),
        ("{hold: 60s, limit: §.nan}", "expected a number, a duration"),
        ("{hold: 60s, limit: §1.0e+300}", "expected a number, a duration"),
        ("{hold: §400d, limit: 80}", "'400d' is too long: at most 366d"),
        ("§60s", "hot.params: expected a mapping, like {hold: 60s}; this is a text"),
    ],
)
def test_a_faulty_parameter(params: str, message: str):
    text = file_of(f"{RULE}, params: {params}")
    if (
        message.startswith(("hot.for", "60s is", "hot.params.hold: 60s", "unknown key", "hot.params: "))
        or "like 60s" in message
    ):
        text = text.replace("§", "")  # told at the place where it matters, or together with what follows from it
    assert any(message in line for line in told(text))


def test_a_parameter_of_another_type_is_told_in_the_condition():
    (message,) = told(file_of(f"{RULE}, params: {{hold: 60s, limit: warm}}"))
    assert message.startswith("my.yaml:3:")
    assert "hot.when: " in message


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "rule: §hto, site: fenghe, params: {hold: 30s}",
            "overrides.rule: there is no rule 'hto'; did you mean 'hot'?",
        ),
        ("rule: hot, site: fenghe, params: {§hodl: 30s}", "rule 'hot' has no parameter 'hodl'; did you mean 'hold'?"),
        ("rule: hot, site: fenghe, params: {§hold: 10s}", "10s is less than the minimum of 'hold', 20s"),
        ("rule: hot, site: fenghe, params: {§hold: 91s}", "91s is more than the maximum of 'hold', 90s"),
        ("rule: hot, site: fenghe, params: {§hold: 30}", "'hold' is a duration like 60s, this is a number"),
        ("rule: hot, site: fenghe, params: {§limit: hot}", "'limit' is a number like 80, this is a text"),
        ("rule: hot, site: fenghe, params: §{}", "overrides.params: expected a mapping, like {hold: 60s}"),
        ("rule: hot, site: fenghe, params: {hold: §[1]}", "overrides.params.hold: expected a number, a duration"),
        ("rule: hot, site: fenghe", "overrides: 'params' is missing"),
        ("site: fenghe, params: {hold: 30s}", "overrides: 'rule' is missing"),
        ("rule: hot, params: {hold: 30s}", "give exactly one of site, model and device, like site: fenghe; here are 0"),
        ("rule: hot, site: fenghe, model: X, params: {hold: 30s}", "give exactly one of site, model and device"),
        ("rule: hot, site: §Feng He, params: {hold: 30s}", "overrides.site: 'Feng He' is no id"),
        ("rule: hot, device: §lift-1, params: {hold: 30s}", "'lift-1' is no device: expected SITE.DEVICE"),
        ("rule: hot, device: §fenghe.a.b, params: {hold: 30s}", "'fenghe.a.b' is no device"),
        (
            "rule: hot, model: §7, params: {hold: 30s}",
            "overrides.model: expected a text, like KONE 3000; this is a number",
        ),
        ("rule: hot, §stie: fenghe, site: a, params: {hold: 30s}", "unknown key 'stie'; did you mean 'site'?"),
    ],
)
def test_a_faulty_override(override: str, message: str):
    assert any(message in line for line in told(file_of(f"{RULE}, {PARAMS}", override)))


def test_one_level_says_a_thing_once():
    twice = ["rule: hot, site: fenghe, params: {hold: 30s}", "rule: hot, site: fenghe, params: {limit: 70, §hold: 40s}"]
    (message,) = told(file_of(f"{RULE}, {PARAMS}", *twice))
    assert message.endswith("overrides.params.hold: already given for site fenghe at my.yaml:5")


def test_overridden_values_must_suit_the_condition():
    rule = f"{HEAD}, when: 'avg(temp_c, span) > 80', for: hold, params: {{span: 5m, hold: 1m}}"
    overrides = ["rule: hot, site: fenghe, params: {hold: 2m}", "rule: hot, model: X, params: {span: 90d}"]
    (line,) = told(file_of(rule, *overrides))
    assert line.startswith("my.yaml:6:12: overrides.params: with these values: hot.when: ")


def test_values_that_suit_alone_must_suit_together():
    """Found when files are read, and not when the first such lift of that site speaks."""
    rule = f"{HEAD}, when: 'mains and between(start, end)', params: {{start: '22:00', end: '06:00'}}"
    site, model = "rule: hot, site: fenghe, params: {start: '05:00'}", "rule: hot, model: X, params: {end: '05:00'}"
    for alone in (site, model):
        assert len(parse_rules(file_of(rule, alone), "my.yaml")) == 1
    (line,) = told(file_of(rule, site, model))
    assert line.startswith("my.yaml:6:12: overrides.params: with these values: hot.when: ")


def test_a_whole_site_is_overridden_by_site_only():
    site = (
        "kind: site\nrules:\n  - {id: dark, group: dark, severity: P2, title: {zh: 断, en: dark}, silence: hold,"
        " share: 50%%, params: {hold: 10m}}\noverrides:\n  - {rule: dark, %s, params: {hold: 20m}}\n"
    )
    for level in ("model: X", "device: fenghe.a"):
        assert "'dark' is about a whole site: only 'site' can override it" in told(site % level)[0]
    book = parse_rules(site % "site: fenghe", "site.yaml")
    silences = [
        book.rules_for("site", device_id=f"{site}.*", model=None)[0].silence_ms for site in ("fenghe", "xinyuan")
    ]
    assert silences == [1_200_000, 600_000]


def test_overrides_stand_in_a_file_of_their_own(tmp_path: Any):
    (tmp_path / "charger.yaml").write_text(file_of(f"{RULE}, {PARAMS}"))
    (tmp_path / "overrides.yaml").write_text("overrides:\n  - {rule: hot, site: fenghe, params: {hold: 30s}}\n")
    book = load_rules(tmp_path)
    assert book.rules_for("charger", device_id="fenghe.a", model=None)[0].for_ms == 30_000
    assert book.files == ("charger.yaml", "overrides.yaml")
    (tmp_path / "overrides.yaml").rename(tmp_path / "others.yaml")
    with pytest.raises(RuleError, match=r"others\.yaml:1:1: 'kind' is missing"):
        load_rules(tmp_path)


def test_parameters_count_in_conditions_durations_and_steps_of_a_ladder():
    rule = (
        "id: hot, part: port, group: heat, title: {zh: 热, en: hot}, when: temp_c >= limit,"
        " severity: [P2, {severity: P1, when: temp_c >= limit + 10, for: wait}], deadline: late, mute_in: [],"
        " keep_firing_for: wait, reopen_within: wait, flap: {changes: 4, within: wait},"
        " params: {limit: 80, wait: 5s, late: 1h}"
    )
    book = parse_rules(file_of(rule, "rule: hot, device: fenghe.a, params: {wait: 7s}"), "my.yaml")
    for device, wait_ms in (("fenghe.a", 7_000), ("fenghe.b", 5_000)):
        base, step = book.rules_for("charger", device_id=device, model=None)
        assert (base.keep_ms, base.finding.reopen_ms, step.for_ms, step.keep_ms) == (wait_ms,) * 4
        assert base.flap is not None
        assert (base.flap.within_ms, base.deadline_ms) == (wait_ms, 3_600_000)
    assert book.parameters("hot.p1", device_id="fenghe.a", model=None)[1].origin == "device fenghe.a"


def test_what_people_see_of_a_parameter():
    book = parse_rules(file_of(f"{RULE}, {PARAMS}", "rule: hot, model: KONE 3000, params: {hold: 0.5m}"), "my.yaml")
    assert book.parameters("hot", device_id="fenghe.a", model="KONE 3000") == [
        Parameter("hold", "0.5m", "model KONE 3000", "20s", "90s", Words("时间", "hold")),
        Parameter("limit", 80, "rule", None, None, Words("", "")),
    ]


# --- the most specific wins ------------------------------------------------------------------------------------------

SITES, MODELS, IDS = ("a", "b"), ("X", "Y"), ("a.1", "a.2", "b.1")
LEVELS = [*(("site", s) for s in SITES), *(("model", m) for m in MODELS), *(("device", d) for d in IDS)]
values = st.fixed_dictionaries({}, optional={"hold": st.integers(20, 90), "limit": st.integers(0, 99)}).filter(bool)


@given(st.dictionaries(st.sampled_from(LEVELS), values), st.randoms(use_true_random=False))
def test_device_over_model_over_site_over_rule(overrides: dict[tuple[str, str], dict[str, int]], order: Any):
    shuffled = list(overrides.items())
    order.shuffle(shuffled)
    lines = []
    for (level, target), given_values in shuffled:
        amounts = ", ".join(f"{k}: {v}s" if k == "hold" else f"{k}: {v}" for k, v in given_values.items())
        lines.append(f"rule: hot, {level}: {target}, params: {{{amounts}}}")
    book = parse_rules(file_of(f"{RULE}, {PARAMS}", *lines), "my.yaml")
    tuples: dict[tuple[int, int], Any] = {}
    for device in (*IDS, "c.1"):
        for model in (*MODELS, "Z", None):
            expected = {"hold": 60, "limit": 80}
            for key in (("site", device[0]), ("model", model), ("device", device)):
                expected |= overrides.get(key, {})  # type: ignore[arg-type] # a model may be None
            rules = book.rules_for("charger", device_id=device, model=model)
            hold, limit = book.parameters("hot", device_id=device, model=model)
            assert (hold.value, limit.value) == (f"{expected['hold']}s", expected["limit"])
            assert rules[0].for_ms == expected["hold"] * 1000
            assert rules[0].when is not None
            same = tuples.setdefault((expected["hold"], expected["limit"]), rules)
            assert same is rules, "devices with equal parameters share their rules"
    assert len({id(rules) for rules in tuples.values()}) == len(tuples)
    assert len({rules[0].version for rules in tuples.values()}) == len(tuples)
    assert_defaults(book)


def assert_defaults(book: RuleBook) -> None:
    """The book itself lists rules with their own values."""
    (rule,) = book.rules
    assert rule.for_ms == 60_000
