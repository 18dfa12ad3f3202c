"""Docs tell the truth: generated ones are current, links lead somewhere, commands and folders exist."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from core import schema
from storage.register_file import checked

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
ROOMS = ("core", "simulators", "ingest", "storage", "alerts", "api")


def test_generated_documents_are_current() -> None:
    stale = [
        name
        for name, text in schema.documents().items()
        if not (ROOT / name).exists() or (ROOT / name).read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run `make schema`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert broken == []


def test_the_drawing_shows_every_folder_and_no_other() -> None:
    drawing = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert drawing is not None
    assert set(re.findall(r"\b([a-z]+)/", drawing[1])) == set(ROOMS)


def test_architecture_names_each_room_with_its_true_imports() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for room in ROOMS:
        row = re.search(rf"^\| `{room}/` \|.*\|(.*)\|$", text, re.MULTILINE)
        assert row is not None, room
        told = set(re.findall(r"`([a-z]+)`", row[1]))
        found = {
            name
            for path in (ROOT / room).rglob("*.py")
            if "node_modules" not in path.parts
            for name in _imports(path)
            if name in ROOMS and name != room
        }
        assert found <= told, room


def test_commands_in_the_docs_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    source = (ROOT / "tizhuang.py").read_text(encoding="utf-8")
    commands = set(re.findall(r"@app\.command\(\)\ndef (\w+)\(", source)) | set(
        re.findall(r'@app\.command\("(\w+)"\)', source) + re.findall(r'add_typer\(\w+, name="(\w+)"', source)
    )
    assert {"demo", "serve", "simulate", "schema", "migrate"} <= commands
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = "\n".join(re.findall(r"`([^`\n]+)`", text) + re.findall(r"```sh\n(.*?)```", text, re.DOTALL))
        assert set(re.findall(r"\bmake ([a-z]+)\b", code)) <= targets, page
        assert set(re.findall(r"(?m)(?:^|[ /])tizhuang ([a-z]+)\b", code)) <= commands, page


def test_the_register_file_in_the_docs_is_one() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    counts = {name: len(rows) for name, rows in checked(yaml.safe_load(example)).rows(now=0).items()}
    assert counts == {"sites": 1, "buildings": 1, "contractors": 1, "devices": 1}


def test_every_route_stands_in_the_api_page() -> None:
    from api.app import create_app  # noqa: F401, PLC0415 - importing it is part of the check

    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    routes = {
        path
        for source in (ROOT / "api").glob("*.py")
        for path in re.findall(r'"(/(?:api/v1/[a-z_{}/]+|healthz|readyz|metrics))"', source.read_text(encoding="utf-8"))
    }
    assert routes
    missing = [route for route in routes if re.sub(r"\{\w+_id\}", "{id}", route) not in text]
    assert missing == []


def test_nothing_names_a_registry_or_a_machine() -> None:
    """Lock files and pages must work in a closed network and on anybody's machine."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    registries = re.compile(r"pypi\.org|pythonhosted|registry\.npmjs|npmmirror|/opt/wheels|find-links /|/root/|/home/")
    own = Path(__file__).relative_to(ROOT)
    found = []
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if Path(name) == own or path.suffix in {".png", ".ico"} or not path.exists():
            continue
        if registries.search(path.read_text(encoding="utf-8", errors="replace")):
            found.append(name)
    assert found == []


def test_dependencies_in_use_are_declared_and_declared_ones_are_in_use() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=\[]", line)[0].lower() for line in project["dependencies"]}
    imported = {
        name
        for room in ROOMS
        for path in (ROOT / room).rglob("*.py")
        if "node_modules" not in path.parts
        for name in _imports(path)
    } | set(_imports(ROOT / "tizhuang.py"))
    module_of = {
        "paho-mqtt": "paho",
        "influxdb-client": "influxdb_client",
        "typing-extensions": "typing_extensions",
        "pydantic-settings": "pydantic_settings",
        "prometheus-client": "prometheus_client",
        "pyyaml": "yaml",
        "annotated-types": "annotated_types",
        "python-multipart": "python_multipart",
    }
    imported.add("psycopg")  # SQLAlchemy's driver for PostgreSQL, found by its name
    unused = {name for name in declared if module_of.get(name, name) not in imported}
    assert unused == set()


def _imports(path: Path) -> set[str]:
    """Top-level names of what a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names
