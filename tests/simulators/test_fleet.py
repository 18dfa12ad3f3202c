import itertools
import json
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import SettingsError
from core.payload import decode
from core.topics import parse as parse_topic
from simulators import presets
from simulators.fleet import Fleet
from simulators.plan import parse

START_MS = 1_766_289_600_000
FAULTS = ("entrapment@5s+10s", "overheat@3s+20s", "smoke@2s", "code:43@4s+5s", "offline@6s+5s", "relay-welded@1s")

gaps_ms = st.lists(st.sampled_from([100, 101, 130, 500, 1_000, 2_000, 61_000]), max_size=120)


def drive(fleet, gaps):
    """Every message, with the time of its tick."""
    now_ms, out = START_MS, []
    for gap in (0, *gaps):
        now_ms += gap
        out += [(now_ms, message) for message in fleet.tick(now_ms)]
    return out


def demo(**options):
    faults = [parse(text) for text in options.pop("faults", ())]
    return Fleet(presets.get(options.pop("preset", "demo")), **{"seed": 1, "faults": faults, **options})


@given(st.integers(0, 2**32), st.sampled_from([0.5, 1, 7.5, 60]), gaps_ms)
@settings(max_examples=15, deadline=None)
def test_same_seed_same_bytes_and_all_of_it_is_valid(seed, speed, gaps):
    told = drive(demo(seed=seed, speed=speed, faults=FAULTS), gaps)
    assert told == drive(demo(seed=seed, speed=speed, faults=FAULTS), gaps)
    seqs: dict[str, int] = defaultdict(int)
    telemetry_ms: dict[str, int] = {}
    counters: dict[tuple[str, str], float] = {}
    for now_ms, (topic, payload, retain) in told:
        message = decode(topic, payload, now_ms)
        assert not message.unknown_fields
        assert message.clock_ok
        channel = parse_topic(topic).channel
        assert retain == (channel == "status")
        said = json.loads(payload)
        assert said["seq"] == seqs[message.device_id] + 1
        seqs[message.device_id] = said["seq"]
        if channel == "telemetry":
            assert said["ts"] == now_ms
            assert now_ms - telemetry_ms.get(message.device_id, 0) >= 500
            telemetry_ms[message.device_id] = now_ms
            grown = [(name, said[name]) for name in ("trips", "door_cycles", "run_hours") if name in said]
            grown += [(port["order"], port["energy_kwh"]) for port in said.get("ports", ()) if "order" in port]
            for name, value in grown:
                assert value >= counters.get((message.device_id, name), 0)
                counters[message.device_id, name] = value


def test_another_seed_gives_other_bytes():
    assert drive(demo(seed=1), [1_000]) != drive(demo(seed=2), [1_000])


def test_devices_do_not_influence_one_another():
    gaps = [100] * 300
    alone = [m for _, m in drive(demo(kinds=["elevator"]), gaps) if "lift-05" in m.topic]
    among = [m for _, m in drive(demo(faults=("entrapment@2s:lift-04", "smoke@1s:pile-01")), gaps)]
    assert alone == [m for m in among if "lift-05" in m.topic]
    assert alone


def test_everybody_is_online_first_and_says_goodbye():
    fleet = demo()
    assert fleet.farewell(START_MS) == []
    first = fleet.tick(START_MS)
    assert [json.loads(m.payload)["online"] for m in first[:16]] == [True] * 16
    assert all(m.retain and "firmware" in json.loads(m.payload) for m in first[:16])
    assert len({m.topic for m in first[16:]}) == 16
    last = fleet.farewell(START_MS + 100)
    assert [json.loads(m.payload)["online"] for m in last] == [False] * 16
    assert all(m.retain for m in last)


def test_lifts_report_every_second_while_moving_and_every_half_minute_at_rest():
    told = drive(demo(preset="shenhui", kinds=["elevator"]), [100] * 36_000)
    by_topic = defaultdict(list)
    for now_ms, message in told:
        if message.topic.endswith("telemetry"):
            by_topic[message.topic].append((now_ms, json.loads(message.payload)))
    for reports in by_topic.values():
        for (was_ms, was), (now_ms, now) in itertools.pairwise(reports):
            assert now_ms - was_ms <= (1_100 if was["moving"] else 30_100)
            at_rest = not was["moving"] and not now["moving"] and was["door"] == now["door"] == "closed"
            assert not at_rest or now_ms - was_ms >= 30_000 or was_ms == START_MS


def test_a_charging_port_reports_every_quarter_minute_and_an_idle_one_every_minute():
    told = [m for _, m in drive(demo(kinds=["charger"]), [100] * 6_000)]
    whole = [m for m in told if "voltage_v" in json.loads(m.payload)]
    ports = [port for m in told for port in json.loads(m.payload).get("ports", ())]
    charging = sum(port["state"] in ("charging", "floating") for port in ports)
    idle = sum(port["state"] == "idle" for port in ports)
    assert 4 * 10 <= len(whole) <= 4 * 11
    assert charging > 3 * idle * 0.8 > 0


def test_speed_gives_reports_more_often_and_never_too_often():
    slow, fast = (len(drive(demo(speed=speed), [100] * 300)) for speed in (1, 60))
    assert slow * 2 < fast <= 16 * (2 * 30 + 2)


def test_a_demo_lift_makes_several_trips_a_minute():
    trips = defaultdict(list)
    for _, message in drive(demo(kinds=["elevator"]), [100] * 6_000):
        said = json.loads(message.payload)
        if "trips" in said:
            trips[message.topic].append(said["trips"])
    assert all(counts[-1] - counts[0] >= 15 for counts in trips.values())


def test_a_clock_that_steps_back_stops_nobody():
    fleet = demo()
    drive(fleet, [100] * 50)
    back_ms = START_MS - 3_600_000
    assert [m for second in range(60) for m in fleet.tick(back_ms + second * 1_000)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kinds": ["boat"]}, "unknown kind 'boat'; known: elevator, charger"),
        ({"speed": 0}, "must be a number above 0"),
    ],
)
def test_says_what_cannot_be(options, told):
    with pytest.raises(SettingsError, match=told):
        demo(**options)
