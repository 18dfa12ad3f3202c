import pytest

from core.errors import SettingsError
from core.topics import Address, parse
from simulators import presets


@pytest.mark.parametrize(
    ("name", "lifts", "piles", "sites"),
    [
        ("demo", 12, 4, 1),
        ("shenhui", 4, 2, 1),
        ("fenghe", 80, 6, 1),
        ("nanxi", 0, 41, 5),
        ("liangcheng", 12, 0, 1),
    ],
)
def test_sizes_are_those_of_the_places(name, lifts, piles, sites):
    preset = presets.get(name)
    assert preset.name == name
    assert sum(device.kind == "elevator" for device in preset.devices) == lifts
    assert sum(device.kind == "charger" for device in preset.devices) == piles
    assert len(preset.sites) == sites


@pytest.mark.parametrize("name", presets.PRESETS)
def test_everything_named_exists_and_fits_the_wire(name):
    preset = presets.get(name)
    sites = {site.id for site in preset.sites}
    stairs = {(b.site, b.id, stair) for b in preset.buildings for stair in b.stairs}
    contractors = {contractor.id for contractor in preset.contractors}
    for device in preset.devices:
        address = Address(device.site, device.kind, device.id, "status")
        assert parse(address.topic()) == address
        assert address.device_id == device.device_id
        assert device.site in sites
        assert device.contractor in contractors
        assert device.zh
        assert device.en
        if device.kind == "elevator":
            assert (device.site, device.building, device.stair) in stairs
            assert 4 <= int(device.statics["floors"]) <= 7
            assert 0.4 <= float(device.statics["rated_speed_mps"]) <= 1.0
            assert 320 <= float(device.statics["rated_load_kg"]) <= 630
    assert len({device.device_id for device in preset.devices}) == len(preset.devices)
    assert contractors == {device.contractor for device in preset.devices}


def test_facts_of_single_places():
    assert presets.get("shenhui").devices[0].building == "no-2"
    assert sum(device.site == "maoming" for device in presets.get("nanxi").devices) == 13
    assert {d.contractor for d in presets.get("fenghe").devices if d.kind == "elevator"} == {"east-lifts"}
    assert len({device.contractor for device in presets.get("liangcheng").devices}) == 3
    assert {d.device_id for d in presets.get("demo").devices} <= {d.device_id for d in presets.get("fenghe").devices}


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(SettingsError, match="there is no preset 'x'; there are demo, shenhui"):
        presets.get("x")
