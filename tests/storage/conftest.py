"""A fresh records database for each test, with a few devices in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.records import Records, address, open_records
from storage.register_file import checked
from storage.registry import Registry

NEIGHBOURHOOD = {
    "sites": [{"id": "here", "zh": "这里", "en": "Here"}],
    "contractors": [{"id": "east", "zh": "东方", "en": "East"}],
    "devices": [
        {"site": "here", "id": "lift", "kind": "elevator", "zh": "梯", "en": "Lift", "contractor": "east"},
        {"site": "here", "id": "pile", "kind": "charger", "zh": "桩", "en": "Pile"},
    ],
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return address("", tmp_path)


@pytest.fixture
def records(url: str) -> Iterator[Records]:
    opened = open_records(url)
    Registry(opened).register(checked(NEIGHBOURHOOD), now=1)
    yield opened
    opened.close()
