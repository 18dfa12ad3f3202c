"""The register: what people write into it, and devices that nobody wrote there."""

from __future__ import annotations

import pytest

from core.errors import NotFound, SettingsError
from storage.register_file import checked
from storage.registry import Registry
from tests.storage.conftest import NEIGHBOURHOOD

LIFT = NEIGHBOURHOOD["devices"][0]


@pytest.fixture
def registry(records) -> Registry:
    return Registry(records)


def test_a_stranger_is_kept_and_adopted_later_with_its_first_day(registry):
    registry.heard([("far-away.lift-9", "elevator"), ("far-away.lift-9", "elevator")], now=100)
    registry.heard([("far-away.lift-9", "charger")], now=200)
    stranger = registry.device("far-away.lift-9")
    assert (stranger.site_id, stranger.kind, stranger.registered, stranger.first_seen) == (
        "far-away", "elevator", False, 100,
    )  # fmt: skip
    entry = {"site": "far-away", "id": "lift-9", "kind": "elevator", "zh": "九", "en": "Nine", "statics": {"floors": 6}}
    registry.register(checked({"devices": [entry]}), now=300)
    adopted = registry.device("far-away.lift-9")
    assert (adopted.registered, adopted.first_seen, adopted.statics) == (True, 100, {"floors": 6})
    registry.heard([("far-away.lift-9", "elevator")], now=400)
    assert registry.device("far-away.lift-9") == adopted


def test_the_register_has_the_last_word_on_the_kind(registry):
    """Whoever speaks first under a foreign name must not decide what a device is."""
    registry.heard([("here.lift", "charger")], now=100)
    registry.register(checked(NEIGHBOURHOOD), now=300)
    assert registry.device("here.lift").kind == "elevator"


def test_registering_again_updates_and_adds_nothing(registry):
    assert registry.register(checked(NEIGHBOURHOOD), now=9) == {
        "sites": 1, "buildings": 0, "contractors": 1, "devices": 2,
    }  # fmt: skip
    renamed = {"devices": [{**LIFT, "en": "Renamed", "contractor": None}]}
    registry.register(checked(renamed), now=10)
    assert [(one.id, one.en, one.contractor_id, one.first_seen) for one in registry.devices()] == [
        ("here.lift", "Renamed", None, 1),
        ("here.pile", "Pile", None, 1),
    ]


@pytest.mark.parametrize(
    "entries",
    [
        {"devices": [{**LIFT, "contractor": "nobody"}]},
        {"devices": [{**LIFT, "building": "b9"}]},
        {"buildings": [{"site": "nowhere", "id": "b1", "zh": "一", "en": "One"}]},
    ],
)
def test_names_that_lead_nowhere_are_refused_as_a_whole(registry, entries):
    before = registry.devices(), registry.sites()
    new = {"sites": [{"id": "new", "zh": "新", "en": "New"}], **entries}
    with pytest.raises(SettingsError, match="that is not there"):
        registry.register(checked(new), now=10)
    assert (registry.devices(), registry.sites()) == before


@pytest.mark.parametrize(
    ("entries", "told"),
    [
        ([], "file: "),
        ("text", "file: "),
        ({"lifts": []}, "lifts: Extra inputs"),
        ({"devices": [{**LIFT, "id": "Lift.1"}]}, "devices.0.id"),
        ({"devices": [{**LIFT, "kind": "rocket"}]}, "unknown kind 'rocket'; known: elevator, charger"),
        ({"devices": [{**LIFT, "colour": "red"}]}, "devices.0.colour"),
        ({"devices": [{**LIFT, "statics": {"floors": [1]}}]}, "devices.0.statics.floors"),
        ({"sites": [{"id": "a", "zh": "", "en": "A", "latitude": 91}]}, "sites.0.latitude"),
        ({"sites": [{"id": "a\n", "zh": "甲", "en": "A"}]}, "sites.0.id"),
    ],
)
def test_faulty_entries_are_told_in_one_line(entries, told):
    if entries == []:
        assert checked(entries).devices == ()  # an empty file says nothing, which is no fault
        return
    with pytest.raises(SettingsError) as caught:
        checked(entries)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_faults_of_a_file_at_once():
    with pytest.raises(SettingsError) as caught:
        checked({"sites": [{"id": "A"}], "devices": [{"id": "x"}]})
    for place in ("sites.0.id", "sites.0.zh", "sites.0.en", "devices.0.site", "devices.0.kind"):
        assert place in str(caught.value)


def test_a_device_that_nobody_knows(registry):
    with pytest.raises(NotFound, match=r"there is no device 'a\.b'"):
        registry.device("a.b")


def test_the_time_zone_of_a_site(registry):
    """Shanghai's where nobody says otherwise."""
    far = {"id": "far", "zh": "远", "en": "Far", "zone": "America/Argentina/Ushuaia"}
    registry.register(checked({"sites": [far]}), now=10)
    assert {one.id: one.zone for one in registry.sites()} == {
        "far": "America/Argentina/Ushuaia",
        "here": "Asia/Shanghai",
    }


@pytest.mark.parametrize("zone", ["", "Mars/Base", "Asia", "../etc/passwd", "/etc/localtime", "UTC+8", "x" * 65, "\0"])
def test_a_time_zone_that_nobody_has(zone):
    with pytest.raises(SettingsError, match=r"sites\.0\.zone") as caught:
        checked({"sites": [{"id": "far", "zh": "远", "en": "Far", "zone": zone}]})
    assert "\n" not in str(caught.value)


def test_the_row_of_a_whole_site_is_no_device(registry):
    before = registry.devices()
    registry.heard([("here.*", "site"), ("here.*", "site")], now=5)
    registry.heard([("here.*", "site")], now=6)
    whole = registry.device("here.*")
    assert (whole.site_id, whole.kind, whole.zh, whole.en, whole.first_seen) == (
        "here", "site", "整个小区", "whole site", 5,
    )  # fmt: skip
    assert registry.devices() == registry.devices(site_id="here") == before
    assert registry.devices(kind="site") == []
    assert [one.id for one in registry.devices(kind="site", whole_sites=True)] == ["here.*"]


def test_pages_of_devices(registry):
    registry.heard([(f"there.d{number:03}", "charger") for number in range(25)], now=1)
    seen: list[str] = []
    after = None
    while page := registry.devices(site_id="there", kind="charger", after_id=after, limit=10):
        seen += [device.id for device in page]
        after = page[-1].id
    assert seen == [f"there.d{number:03}" for number in range(25)]
    assert registry.devices(site_id="there", kind="elevator") == []
