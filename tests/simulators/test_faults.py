import json
from itertools import pairwise

import pytest

from core.errors import SettingsError
from core.faults import FAULTS as CATALOGUE
from core.faults import meaning
from simulators import presets
from simulators.faults import FAULTS, find
from simulators.fleet import Fleet
from simulators.plan import parse

START_MS = 1_766_289_600_000
BUSY = presets.get("shenhui")._replace(pace=presets.DEMO_PACE)


def life(text, *, seconds=60, every_ms=100, seed=1, speed=1.0):
    """Second -> what the device with the fault said: (channel, payload)."""
    fleet = Fleet(BUSY, seed=seed, speed=speed, faults=[parse(text)])
    device = fleet.plan[0].device
    told = []
    for now_ms in range(START_MS, START_MS + seconds * 1_000 + 1, every_ms):
        for message in fleet.tick(now_ms):
            _, _, site, _, id_, channel = message.topic.split("/")
            if (site, id_) == (device.site, device.id):
                told.append(((now_ms - START_MS) / 1_000, channel, json.loads(message.payload)))
    return told, fleet.plan[0]


def snapshots(told, begin_s, end_s):
    return [said for at_s, channel, said in told if channel == "telemetry" and begin_s <= at_s < end_s]


def events(told):
    return [
        ((said["ts"] - START_MS) / 1_000, said["table"], said["code"], said["state"])
        for _, channel, said in told
        if channel == "event"
    ]


@pytest.mark.parametrize("seed", range(3))
def test_entrapment_between_floors(seed):
    told, _ = life("entrapment@5s+30s", seed=seed)
    during = snapshots(told, 5.5, 35)
    assert len(during) >= 5
    for said in during:
        assert (said["occupied"], said["moving"], said["door_zone"], said["door"]) == (True, False, False, "closed")
        assert abs(said["levelling_mm"]) > 150
    assert events(told) == [
        (7, "gbt24476", "4", "raised"),
        (13, "gbt24476", "90", "raised"),
        (35, "gbt24476", "4", "cleared"),
        (35, "gbt24476", "90", "cleared"),
    ]
    after = snapshots(told, 35, 60)
    assert any(said["door"] == "open" and said["door_zone"] and said["occupied"] for said in after)
    assert any(not said["occupied"] for said in after)


def test_entrapment_at_level():
    told, _ = life("entrapment-level@5s+30s")
    assert all(said["moving"] and said["occupied"] for said in snapshots(told, 5, 8))
    for said in snapshots(told, 20, 35):
        assert (said["occupied"], said["moving"], said["door_zone"], said["door"]) == (True, False, True, "closed")
    assert any(said["door"] == "open" for said in snapshots(told, 35, 60))


def test_stopped_empty():
    told, _ = life("stopped@5s")
    during = snapshots(told, 5.5, 60)
    assert during
    for said in during:
        assert (said["occupied"], said["moving"], said["door_zone"], said["direction"]) == (False, False, False, "none")


def test_overtravel():
    told, planned = life("overtravel@5s")
    for said in snapshots(told, 5.5, 60):
        assert said["floor"] == planned.device.statics["floors"]
        assert (said["direction"], said["door_zone"], said["moving"]) == ("up", False, False)


def test_code_is_raised_and_cleared_and_shows_in_the_mode():
    told, _ = life("code:43@5s+10s")
    assert events(told) == [(5, "gbt24476", "43", "raised"), (15, "gbt24476", "43", "cleared")]
    assert {said["service_mode"] for said in snapshots(told, 5.5, 15)} == {"inspection"}
    assert {said["service_mode"] for said in snapshots(told, 15.5, 60)} == {"normal"}


def test_silence_and_offline():
    told, _ = life("silence@5s+30s")
    assert not [at_s for at_s, _, _ in told if 5 <= at_s < 35]
    assert snapshots(told, 35, 36)
    told, _ = life("offline@5s+30s")
    assert [(at_s, said["online"]) for at_s, channel, said in told if channel == "status"] == [
        (0, True),
        (5, False),
        (35, True),
    ]
    assert not snapshots(told, 5, 35)
    assert snapshots(told, 35, 36)


@pytest.mark.parametrize("speed", [1.0, 60.0])
def test_overheat(speed):
    told, planned = life("overheat@5s+60s", seconds=90, speed=speed)
    port = [p for said in snapshots(told, 25.5, 65) for p in said["ports"] if p["port"] == planned.port]
    assert len(port) >= 7
    assert all(p["temp_c"] >= 85 and p["state"] == "charging" and p["power_w"] > 100 for p in port)
    others = [p["temp_c"] for said in snapshots(told, 0, 90) for p in said["ports"] if p["port"] != planned.port]
    assert max(others) < 60


def test_relay_welded():
    told, planned = life("relay-welded@5s:pile-02/7")
    port = [p for said in snapshots(told, 5.5, 60) for p in said["ports"] if p["port"] == 7]
    assert planned.port == 7
    assert port
    assert all(p["state"] == "fault" and p["power_w"] > 100 for p in port)
    raised = [said for _, channel, said in told if channel == "event"]
    assert [(said["code"], said["table"], said["port"]) for said in raised] == [("port-9", "dny", 7)]


def test_smoke():
    told, _ = life("smoke@5s+20s")
    assert events(told) == [(5, "dny", "alarm-4", "raised"), (25, "dny", "alarm-4", "cleared")]


def test_whoever_is_trapped_was_on_the_way():
    for name in ("entrapment", "entrapment-unheard"):
        told, _ = life(f"{name}@5s+30s")
        first, second = snapshots(told, 5, 20)[:2]
        assert (first["moving"], second["moving"]) == (True, False)
        assert (first["occupied"], second["occupied"]) == (True, True)


def test_overspeed_on_the_way_up():
    told, planned = life("overspeed@5s+60s", seconds=60)
    speeds = [said["speed_mps"] for said in snapshots(told, 5, 60)]
    assert max(speeds) > 1.2 * planned.device.statics["rated_speed_mps"]


def test_the_door_is_open_on_the_way_up_and_closed_at_rest():
    told, _ = life("door-open-moving@5s+40s")
    moving = [said for said in snapshots(told, 5, 45) if said["moving"]]
    assert moving
    assert {said["door"] for said in moving} == {"open"}
    assert any(not said["door_zone"] for said in moving)


def test_a_door_that_reverses_opens_three_times_in_fifteen_seconds_and_is_well_again():
    told, _ = life("repeated-door@5s+20s")
    doors = [said["door"] for said in snapshots(told, 5, 20)]
    opened = sum(now == "opening" != before for before, now in pairwise(doors))
    assert opened >= 3
    assert all(not said["moving"] for said in snapshots(told, 5, 25))
    assert any(said["moving"] for said in snapshots(told, 26, 60))


def test_trips_collapse():
    usual, _ = life("weak-signal@0s:lift-01", seconds=600, every_ms=1_000)
    few, _ = life("trips-collapse@0s:lift-01", seconds=600, every_ms=1_000)

    def trips(told):
        said = snapshots(told, 0, 600)
        return said[-1]["trips"] - said[0]["trips"]

    assert trips(few) < 0.7 * trips(usual)  # even one call in ten is much where people call all the time


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("power-while-idle", "state", "idle"),
        ("power-after-full", "state", "full"),
        ("overload", "power_w", 2_500.0),
        ("port-fault", "state", "fault"),
    ],
)
def test_a_faulty_port(name, field, value):
    told, planned = life(f"{name}@5s+40s")
    port = [p for said in snapshots(told, 5.5, 44) for p in said["ports"] if p["port"] == planned.port]
    assert port
    assert {p[field] for p in port} == {value}


@pytest.mark.parametrize(
    ("name", "cue"),
    [
        ("code:bacnet-lift/10", ("bacnet-lift", "10")),
        ("code:gbt24476-91/93", ("gbt24476-91", "93")),
        ("code:ebike_in_car", ("names-elevator", "ebike_in_car")),
        ("code:leakage", ("names-charger", "leakage")),
        ("code:dny/stop-17", ("dny", "stop-17")),
    ],
)
def test_codes_of_every_table(name, cue):
    told, _ = life(f"{name}@5s+10s")
    assert events(told) == [(5, *cue, "raised"), (15, *cue, "cleared")]


@pytest.mark.parametrize("text", ["code:99@1s", "code:nothing/1@1s", "code:bacnet-lift/17@1s"])
def test_a_code_that_no_table_has(text):
    with pytest.raises(SettingsError, match=r"there is no table|has no code"):
        parse(text)


@pytest.mark.parametrize("name", [*FAULTS, "code:5"])
@pytest.mark.parametrize("every_ms", [100, 7_300, 60_000])
def test_every_event_is_sent_exactly_once_with_its_own_time_however_rough_the_ticks(name, every_ms):
    rough, _ = life(f"{name}@5s+30s", seconds=120, every_ms=every_ms)
    smooth, _ = life(f"{name}@5s+30s", seconds=120)
    assert events(rough) == events(smooth)
    ids = [said["id"] for _, channel, said in rough if channel == "event"]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", FAULTS)
def test_the_truth_is_in_the_catalogue_and_the_codes_in_their_tables(name):
    fault = find(name)
    assert fault.truth is None or CATALOGUE[fault.truth].kind in fault.kinds
    assert all(meaning(cue.table, cue.code, fault.kinds[0]) for cue in fault.cues)


def test_a_second_run_sends_new_events():
    def first_id(zero_ms):
        fleet = Fleet(presets.get("demo"), seed=1, faults=[parse("smoke@0s")])
        return [json.loads(m.payload)["id"] for m in fleet.tick(zero_ms) if m.topic.endswith("event")]

    assert first_id(START_MS) != first_id(START_MS + 60_000)
