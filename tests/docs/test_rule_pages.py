"""Every point of docs/rules.md has cases or tests. docs/rule-tests.md explains every key, and its example runs."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from alerts.casefile import CASE_KEYS, FILE_KEYS, parse_cases
from alerts.casesteps import STEP_KEYS
from alerts.player import WAYS, difference
from alerts.rulebook import RuleBook

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "rule-tests.md").read_text(encoding="utf-8")


def test_every_point_of_the_rules_page_is_held():
    page = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
    points = {int(number) for number in re.findall(r"^([0-9]+)\. \*\*", page, re.MULTILINE)}
    assert points == set(range(1, len(points) + 1))
    files = [yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / "tests/cases/semantics").glob("*.yaml")]
    assert {file["point"] for file in files if "point" in file} == points


def test_every_key_is_explained():
    told = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"`[^`\n]+`|```yaml.*?```", PAGE, re.DOTALL))))
    assert {*FILE_KEYS, *CASE_KEYS, *STEP_KEYS, *WAYS} - {"about"} <= told | {"plain"}


def test_the_example_comes_out_as_it_says():
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    file = parse_cases(example, "rule-tests.md", _no_folder)
    assert len(file.cases) == 2
    for case in file.cases:
        assert [difference(case, way) for way in WAYS] == ["", "", ""]


def _no_folder(folder: str) -> RuleBook:
    raise AssertionError(f"the example brings its rules, and asked for '{folder}'")
