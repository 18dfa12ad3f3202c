import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingsError
from simulators import faults, presets
from simulators.plan import FaultRequest, assign, parse

DEMO = presets.get("demo").devices


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("entrapment@2m", FaultRequest("entrapment", 120_000)),
        ("entrapment@2m:lift-03", FaultRequest("entrapment", 120_000, device="lift-03")),
        ("overheat@30s:pile-02/4", FaultRequest("overheat", 30_000, device="pile-02", port=4)),
        ("code:5@1m", FaultRequest("code:5", 60_000)),
        ("code:5@1m+5m:lift-03", FaultRequest("code:5", 60_000, 300_000, "lift-03")),
        ("stopped@0s:fenghe.lift-03+5m", FaultRequest("stopped", 0, 300_000, "fenghe.lift-03")),
    ],
)
def test_reads(text, request_):
    assert parse(text) == request_


names = st.sampled_from([*faults.FAULTS, "code:1", "code:90"])
ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,10}", fullmatch=True)


@given(names, st.integers(0, 10**8), st.none() | st.integers(0, 10**8), st.none() | ids | st.just("nanxi-a.pile-01"))
def test_reads_back_what_it_writes(name, start_ms, lasts_ms, device):
    port = 3 if device and faults.find(name).on_port else None
    request = FaultRequest(name, start_ms, lasts_ms, device, port)
    assert parse(str(request)) == request


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("entrapment", "write NAME@START"),
        ("", "write NAME@START"),
        ("entrapment@1m+1m:lift-01+1m", "write NAME@START"),
        ("fire@2m", "unknown fault 'fire'; known: entrapment, entrapment-unheard"),
        ("fire@2m", "code:N"),
        ("code:99@2m", "gbt24476 has no code '99'; it has 1, 2"),
        ("entrapment@soon", "'soon' is not a duration"),
        ("entrapment@1m+long", "'long' is not a duration"),
        ("entrapment@1m:Lift 3", "'Lift 3' is not a device"),
        ("entrapment@1m:lift-03/2", "entrapment does not sit on a port"),
        ("silence@1m:pile-03/2", "silence does not sit on a port"),
    ],
)
def test_says_what_is_wrong(text, told):
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"fault '{text}': ")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("entrapment@1m:lift-99", "there is no device 'lift-99' in this fleet, which has lift-01 to pile-04"),
        ("entrapment@1m:pile-01", "pile-01 is a charging pile; entrapment needs a lift"),
        ("overheat@1m:lift-01", "lift-01 is a lift; overheat needs a charging pile"),
        ("overheat@1m:pile-01/11", "pile-01 has ports 1 to 10, not 11"),
    ],
)
def test_says_what_does_not_fit_the_fleet(text, told):
    with pytest.raises(SettingsError, match="fault") as caught:
        assign([parse(text)], DEMO, seed=1)
    assert told in str(caught.value)


def test_says_when_the_fleet_has_no_such_kind():
    with pytest.raises(SettingsError, match="this fleet has no lift"):
        assign([parse("entrapment@1m")], presets.get("nanxi").devices, seed=1)


@given(st.integers(0, 2**32))
def test_spreads_over_free_devices_and_repeats_for_a_seed(seed):
    requests = [parse("overheat@1m:pile-02/4"), parse("smoke@2m"), parse("overheat@3m"), parse("relay-welded@4m")]
    planned = assign(requests, DEMO, seed)
    assert planned == assign(requests, DEMO, seed)
    assert sorted(p.device.id for p in planned) == ["pile-01", "pile-02", "pile-03", "pile-04"]
    assert all(1 <= p.port <= 10 for p in planned if p.fault.on_port)
    # With every pile taken, a fifth fault still finds one.
    assert assign([*requests, parse("smoke@5m")], DEMO, seed)[4].device.kind == "charger"


def test_an_entrapment_ends_by_itself_and_a_stop_does_not():
    entrapment, stop, short = assign([parse("entrapment@1m"), parse("stopped@1m"), parse("stopped@1m+5m")], DEMO, 1)
    assert (entrapment.start_ms, entrapment.end_ms) == (60_000, 660_000)
    assert stop.end_ms is None
    assert short.end_ms == 360_000
