"""The production driver against a real server: the contract of all drivers, and what only a server can do.

`TEST_INFLUX_URL` (with `TEST_INFLUX_TOKEN`, `TEST_INFLUX_ORG`) names a server of another version to be held to the same
contract; `deploy/compose.yaml` brings one up.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from core.errors import StoreUnavailable
from core.reading import Batch, Reading, Value
from core.settings import Influx
from storage.influx import InfluxSeries
from storage.influx_server import InfluxServer, LinesRefused
from storage.series import HOUR_MS, MINUTE_MS, Bucket, Horizon, SeriesStore
from tests import servers, wire
from tests.conftest import require
from tests.proxy import proxy
from tests.servers import wait_until
from tests.storage.rollup_contract import NOON, RollUpContract
from tests.storage.series_contract import (
    Reopen,
    SeriesContract,
    T,
    assert_buckets,
    event,
    only_value,
    reading,
    window,
    write,
)

_databases = count(1)


def other_server() -> Influx | None:
    """The server that the environment names."""
    url = os.environ.get("TEST_INFLUX_URL")
    if not url:
        return None
    token, org = os.environ.get("TEST_INFLUX_TOKEN", ""), os.environ.get("TEST_INFLUX_ORG", "tizhuang")
    return Influx(url=url, token=SecretStr(token), org=org)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Influx:
    """The server under test: the one that was named, else Debian's."""
    named = other_server()
    if named is not None:
        return named
    influx: servers.Influx = request.getfixturevalue("influx")
    return Influx(url=influx.url)


def database_of(server: Influx) -> Influx:
    """A database of its own on the server."""
    return server.model_copy(update={"bucket": f"test-{os.getpid()}-{next(_databases)}"})


def opened(settings: Influx) -> InfluxSeries:
    # The contract plays in a fixed week of 2026: nothing is to be dropped for its age.
    return InfluxSeries(settings, raw_days=36_500, minute_days=36_500, hour_days=36_500)


class TestContract(SeriesContract, RollUpContract):
    """One database for the whole contract, as one server keeps all devices."""

    keeps_late = False
    current: SeriesStore | None = None

    @pytest.fixture(scope="class")
    @classmethod
    def reopen(cls, server: Influx) -> Iterator[Reopen]:
        settings = database_of(server)

        def reopen() -> SeriesStore:
            if cls.current is not None:
                cls.current.close()
            store = cls.current = opened(settings)
            return store

        reopen()
        yield reopen
        if cls.current is not None:
            cls.current.close()
        cls.current = None

    @pytest.fixture
    def store(self, reopen: Reopen) -> SeriesStore:
        assert self.current is not None
        return self.current


# --- what only a server can do; always against Debian's ---------------------------------------------------------------


@pytest.fixture
def own(influx: servers.Influx) -> Influx:
    """Settings for a database of its own on Debian's InfluxDB."""
    return database_of(Influx(url=influx.url))


def ask(influx: Influx, statement: str, database: str = "") -> list[dict[str, Any]]:
    """The rows of one InfluxQL statement, past our own code."""
    answer = httpx.post(f"{influx.url}/query", params={"q": statement, "db": database, "epoch": "ms"}).json()
    (result,) = answer["results"]
    assert "error" not in result, result
    return [
        one.get("tags", {}) | dict(zip(one["columns"], row, strict=True))
        for one in result.get("series", ())
        for row in one.get("values", ())
    ]


def put(influx: Influx, line: str) -> None:
    """Another program writes into our database."""
    httpx.post(f"{influx.url}/write?db={influx.bucket}&precision=ms", content=line).raise_for_status()


def test_databases_are_made_with_their_retention(own: Influx):
    with closing(InfluxSeries(own, raw_days=30, minute_days=365, hour_days=3650)):
        pass
    kept = {
        name: ask(own, f'SHOW RETENTION POLICIES ON "{own.bucket}{name}"')[0]["duration"] for name in ("", "_1m", "_1h")
    }
    assert kept == {"": "720h0m0s", "_1m": "8760h0m0s", "_1h": "87600h0m0s"}


def test_the_schema_is_the_one_in_the_docs(own: Influx):
    with closing(opened(own)) as store:
        write(
            store, reading("site-a.lift-1", T, {"floor": 3, "moving": True, "speed_mps": 0.5, "door": "open", "x": 2})
        )
        write(store, reading("site-a.pile-1", T, {"temp_c": 30.0}, kind="charger", part="7", seq=4))
    (lift,) = ask(own, 'SELECT * FROM "elevator"', own.bucket)
    assert lift == {
        "time": T, "site": "site-a", "device": "lift-1", "part": "-",
        "floor": 3, "moving": True, "speed_mps": 0.5, "door": "open", "x_x": 2, "rx": T + 50,
    }  # fmt: skip
    (port,) = ask(own, 'SELECT * FROM "charger"', own.bucket)
    assert port == {
        "time": T, "site": "site-a", "device": "pile-1", "part": "7", "temp_c": 30, "rx": T + 50, "seq": 4,
    }  # fmt: skip


def test_a_line_that_the_server_refuses_is_named_with_its_reason_and_the_rest_is_stored(own: Influx):
    """A field that another program, or another firmware's gateway, wrote as something else."""
    with closing(opened(own)) as store:
        put(own, f'elevator,device=old,part=-,site=s speed_mps="fast" {T}')
        good = [reading(f"s.lift-{number}", T, {"floor": 3}) for number in range(20)]
        bad = reading("s.odd", T, {"speed_mps": 0.5, "floor": 3})
        refused = store.write(Batch((*good[:7], bad, *good[7:], event("s.lift-1", T, "e-1"))))
        assert [one.item for one in refused] == [bad]
        assert "field type conflict" in refused[0].reason
        assert all(only_value(store, one.device_id, "floor") == 3 for one in good)
        assert window(store, "s.odd", "floor") == []
        assert len(store.events("s.lift-1", start=T, end=T + 1, limit=5)) == 1


def test_a_sample_older_than_raw_data_is_kept_is_refused_and_is_a_sign_of_life(own: Influx):
    with closing(InfluxSeries(own, raw_days=30, minute_days=365, hour_days=3650)) as store:
        now = time.time_ns() // 1_000_000
        old = reading("s.lift", now - 31 * 86_400_000, {"floor": 3}, rx=now)
        fresh = reading("s.lift", now - 29 * 86_400_000, {"floor": 4}, rx=now)
        (refused,) = store.write(Batch((old, fresh)))
        assert refused.item is old
        assert "series.raw_days = 30" in refused.reason
        assert store.last_seen() == {"s.lift": now}


def test_an_hour_at_the_edge_of_the_retention_does_not_stop_the_roll_ups_of_others(own: Influx):
    """The server may have dropped its mark, and rows of another program may be of another type."""
    now = time.time_ns() // 1_000_000
    fresh, edge = (ts // HOUR_MS * HOUR_MS for ts in (now - 5 * HOUR_MS, now - 10 * HOUR_MS))
    with closing(InfluxSeries(own, raw_days=1, minute_days=2, hour_days=3)) as store:
        write(store, *(reading("s.lift", hour + 5, {"speed_mps": 0.5, "floor": 2}, rx=now) for hour in (edge, fresh)))
        for name in ("", "_1m"):  # as if the server's day were over
            ask(own, f'ALTER RETENTION POLICY "autogen" ON "{own.bucket}{name}" DURATION 7h SHARD DURATION 1h')
        put(
            own.model_copy(update={"bucket": f"{own.bucket}_1h"}),
            f'elevator,device=x,part=-,site=s speed_mps.n="odd" {now}',
        )
        for hour in store.unrolled():
            store.roll_up(hour)
        assert store.unrolled() == []
        assert ask(own, 'SELECT "floor.n" FROM "elevator"', f"{own.bucket}_1m") != []


def test_a_database_that_was_dropped_under_us_is_made_again(own: Influx):
    with closing(opened(own)) as store:
        write(store, reading("s.lift", T, {"floor": 3}))
        ask(own, f'DROP DATABASE "{own.bucket}"')
        write(store, reading("s.lift", T + 1, {"floor": 4}))
        assert [one.last for one in window(store, "s.lift", "floor")] == [4]
        ask(own, f'DROP DATABASE "{own.bucket}_1h"')
        assert store.newest_events() == []


ids = st.text(wire.CHARACTERS, min_size=1, max_size=8).filter(lambda id: id != "-")
"""A part "-" would be the device itself; no id and no part of the wire contract is one."""


@given(ids, ids, ids | st.just(""), st.text(wire.CHARACTERS, max_size=6))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ids_parts_names_and_texts_of_any_kind_come_back(own: Influx, site: str, device: str, part: str, text: str):
    """The wire contract lets few characters through; the store must not rely on it."""
    device_id = f"{site.replace('.', '')}.{device}"
    with closing(opened(own)) as store:
        one = reading(device_id, T, {"floor_label": text, f"n{text}": 1.5, f"t{text}": text}, part=part)
        write(store, one, event(device_id, T, f"e{text}", code=text, table=text))
        for name, value in one.fields.items():
            assert only_value(store, device_id, name, part=part) == value
        assert {found.id for found in store.events(device_id, start=T, end=T + 1, limit=500)} >= {f"e{text}"}
    with closing(opened(own)) as store:
        held = store.last_values([device_id])[device_id, part].values
        assert {name: held[name] for name in one.fields} == {name: (value, T) for name, value in one.fields.items()}


def test_a_server_that_is_away_when_we_start_is_taken_up_when_it_comes(tmp_path: Path):
    require("influxd")
    port = servers.free_port()
    settings = Influx(url=f"http://127.0.0.1:{port}")
    with servers.influxd(tmp_path, port=port), closing(opened(settings)) as store:
        write(store, reading("s.lift", T, {"floor": 3, "door": "open"}))
    with closing(opened(settings)) as store:
        for question in (
            lambda: store.write(Batch((reading("s.lift", T + 1, {"floor": 4}),))),
            lambda: window(store, "s.lift", "floor"),
            store.newest_events,
            store.unrolled,
        ):
            with pytest.raises(StoreUnavailable, match="does not answer"):
                question()
        assert store.last_values() == {}
        store.heard(Batch((reading("s.lift", T + 2, {"floor": 5}),)))
        assert store.last_values()["s.lift", ""].values == {"floor": (5, T + 2)}
        with servers.influxd(tmp_path, port=port):
            write(store, reading("s.lift", T + 1, {"floor": 4}))
            assert store.last_values()["s.lift", ""].values == {"floor": (5, T + 2), "door": ("open", T)}
            assert [one.last for one in window(store, "s.lift", "floor")] == [3, 4]


def test_another_program_on_the_port_is_not_taken_for_influxdb(mosquitto: servers.Mosquitto):
    with closing(opened(Influx(url=f"http://127.0.0.1:{mosquitto.port}"))) as store, pytest.raises(StoreUnavailable):
        store.newest_events()


def test_user_and_password(tmp_path: Path):
    require("influxd")
    with servers.influxd(tmp_path, auth=True) as server:
        admin = {"u": "boss", "p": "s:e/c@r%t"}
        create = "CREATE USER boss WITH PASSWORD 's:e/c@r%t' WITH ALL PRIVILEGES"
        httpx.post(f"{server.url}/query", params={"q": create}).raise_for_status()
        for who, fault in (("", "unable to parse authentication credentials"), ("boss:wrong@", "authorization failed")):
            stranger = Influx(url=server.url.replace("//", f"//{who}"))
            with closing(opened(stranger)) as store, pytest.raises(StoreUnavailable, match=fault):
                store.newest_events()
        known = Influx(url=server.url.replace("//", "//boss:s%3Ae%2Fc%40r%25t@"))
        with closing(opened(known)) as store:
            write(store, reading("s.lift", T, {"floor": 3}))
        for statement in (
            "CREATE USER clerk WITH PASSWORD 'x'",
            *(f'GRANT ALL ON "tizhuang{name}" TO clerk' for name in ("", "_1m", "_1h")),
        ):
            httpx.post(f"{server.url}/query", params={"q": statement} | admin).raise_for_status()
        clerk = Influx(url=server.url.replace("//", "//clerk:x@"))
        with closing(opened(clerk)) as store:  # may write and read, and make nothing
            write(store, reading("s.lift", T + 1, {"floor": 4}))
            assert [one.last for one in window(store, "s.lift", "floor")] == [3, 4]


def test_a_far_server_is_sent_packed_bodies(own: Influx):
    """0.0.0.0 is this machine under a name that does not look like it."""
    far = own.model_copy(update={"url": own.url.replace("127.0.0.1", "0.0.0.0")})
    with closing(opened(far)) as store:
        write(store, *(reading("s.lift", T + number, {"floor": 3}) for number in range(200)))
        assert len(window(store, "s.lift", "floor")) == 200


def test_a_write_does_not_wait_for_the_last_values(own: Influx):
    """Over a line that lets little through, reading them takes long; what comes meanwhile is joined with them."""
    devices = [f"s.lift-{number}" for number in range(300)]
    fields: dict[str, Value] = {"floor": 3, "door": "open", "speed_mps": 0.5, "occupied": False, "x": 1, "online": True}
    with closing(opened(own)) as store:
        write(store, *(reading(device, T, fields) for device in devices))
    port = int(own.url.rpartition(":")[2])
    with proxy(port) as line:
        line.trickle = 300
        with closing(opened(own.model_copy(update={"url": f"http://127.0.0.1:{line.port}"}))) as store:
            write(
                store,
                reading(devices[0], T + 10, {"floor": 4}),
                reading(devices[1], T - 10, {"floor": 1, "load_kg": 9.5}, rx=T + 900),
                reading("s.new", T, {"floor": 7}),
                event(devices[2], T + 1, "e-1"),
            )
            assert window(store, devices[0], "floor")[-1].last == 4
            assert not store._loading.done, "the write waited for them"
            line.trickle = None
            values = store.last_values()
            assert len(values) == 301
            for asked in (store, opened(own)):
                with closing(asked):
                    values = asked.last_values()
                    assert values[devices[0], ""].values["floor"] == (4, T + 10)
                    assert values[devices[0], ""].values["door"] == ("open", T)
                    assert values[devices[1], ""].values["floor"] == (3, T)
                    assert values[devices[1], ""].values["load_kg"] == (9.5, T - 10)
                    assert values[devices[1], ""].rx == T + 900
                    assert values["s.new", ""].values == {"floor": (7, T)}
                    assert [one.id for one in asked.newest_events()] == ["e-1"]
                    assert asked.last_seen()[devices[2]] == T + 51


def test_a_server_that_goes_while_last_values_are_read_is_asked_again(own: Influx):
    with closing(opened(own)) as store:
        write(store, reading("s.lift", T, {"floor": 3}))
        assert store.last_values()["s.lift", ""].values == {"floor": (3, T)}
    port = int(own.url.rpartition(":")[2])
    with proxy(port) as line:
        line.trickle = 20
        with closing(opened(own.model_copy(update={"url": f"http://127.0.0.1:{line.port}"}))) as store:
            line.closed = True
            line.cut()
            assert store.last_values() == {}
            store.heard(Batch((reading("s.lift", T + 1, {"door": "open"}),)))
            line.trickle, line.closed = None, False

            def known() -> bool:
                return store.last_values()["s.lift", ""].values == {"floor": (3, T), "door": ("open", T + 1)}

            wait_until("asked again", known)


# --- last values outlive raw data -------------------------------------------------------------------------------------


def forget_raw_data(own: Influx) -> None:
    """As the server does by itself, a day at a time, when its retention is over."""
    ask(own, f'DROP DATABASE "{own.bucket}"')


def test_last_values_outlive_raw_data(own: Influx):
    keep = {"raw_days": 30, "minute_days": 365, "hour_days": 3_650}
    day = 24 * HOUR_MS
    now = time.time_ns() // 1_000_000
    old, older, fresh = now - 16 * day, now - 20 * day, now - 2 * day

    def put_in(store: SeriesStore) -> None:
        write(
            store,
            reading("s.silent", older, {"floor": 2, "door": "open", "odd": "yes"}),
            reading("s.silent", old, {"floor": 3, "speed_mps": 0.5}),
            reading("s.silent", older, {"online": True, "firmware": "1.2"}),
            reading("s.pile", old, {"temp_c": 30.0, "state": "idle"}, kind="charger", part="7"),
            reading("s.busy", old, {"firmware": "7"}),
            reading("s.busy", old, {"door": "closed"}),
            reading("s.busy", fresh, {"floor": 5}),
            event("s.silent", old, "e-1", rx=old + 70),
        )

    with closing(InfluxSeries(own, **keep)) as store:
        put_in(store)
        values, seen = store.last_values(), store.last_seen()
        store.expire(Horizon(raw=now - 30 * day))
    forget_raw_data(own)
    with closing(InfluxSeries(own, **keep)) as store:
        after = store.last_values()
        assert after["s.silent", ""] == values["s.silent", ""]
        assert after["s.pile", "7"] == values["s.pile", "7"]
        assert {"firmware": ("7", old), "door": ("closed", old)} == after["s.busy", ""].values
        assert store.last_seen() == {device: rx for device, rx in seen.items() if device != "s.busy"}
        assert seen["s.silent"] == old + 70
        # Newer ones count, and older ones that come late do not.
        write(store, reading("s.silent", now - 2, {"floor": 8}), reading("s.silent", older - 1, {"door": "closed"}))
        assert store.last_values()["s.silent", ""].values["floor"] == (8, now - 2)
        assert store.last_values()["s.silent", ""].values["door"] == ("open", older)
    with closing(InfluxSeries(own, **keep)) as store:
        assert store.last_values()["s.silent", ""].values["floor"] == (8, now - 2)
        assert store.last_values()["s.silent", ""].values["door"] == ("open", older)


def test_last_values_are_kept_once_and_again_when_they_change(own: Influx):
    day = 24 * HOUR_MS
    now = time.time_ns() // 1_000_000
    long = own.model_copy(update={"bucket": f"{own.bucket}_1h"})

    def rows() -> int:
        return len(ask(long, 'SELECT part_json FROM "last_part"', long.bucket))

    def opened_for_a_month() -> InfluxSeries:
        return InfluxSeries(own, raw_days=30, minute_days=365, hour_days=3_650)

    with closing(opened_for_a_month()) as store:
        write(store, reading("s.a", now - 20 * day, {"floor": 1}), reading("s.b", now - 9 * day, {"floor": 1}))
        store.expire(Horizon(raw=now - 30 * day))
        assert rows() == 1, "b is young enough"
        store.expire(Horizon(raw=now - 30 * day + HOUR_MS))
        assert rows() == 1
    with closing(opened_for_a_month()) as store:
        store.expire(Horizon(raw=now - 30 * day + 2 * HOUR_MS))
        assert rows() == 1, "known from the life before"
        write(store, reading("s.a", now - 19 * day, {"door": "open"}))
        store.expire(Horizon(raw=now - 31 * day))  # the time to keep was made longer
        assert rows() == 2
    forget_raw_data(own)
    with closing(opened_for_a_month()) as store:
        assert store.last_values()["s.a", ""].values == {"floor": (1, now - 20 * day), "door": ("open", now - 19 * day)}
        ask(own, f'DROP DATABASE "{long.bucket}"')
        write(store, event("s.a", now, "e-1"))  # finds out that it is gone
        store.expire(Horizon(raw=now - 30 * day))
        assert rows() == 1


# --- what a write is answered with ------------------------------------------------------------------------------------


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server of version 2 that knows nothing and answers every write like this; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.tell(200, b'{"results": [], "buckets": [], "orgs": []}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.tell(status if "/write" in self.path else 201, b"" if status == 204 else b"{}")

        def tell(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("X-Influxdb-Version", "v2.7.4")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.mark.parametrize("status", [200, 201, 202, 203, 206, 304, 500, 503])
def test_over_the_new_address_only_204_means_stored(status: int):
    with answering(status) as url, closing(InfluxServer(Influx(url=url, token=SecretStr("t")))) as server:
        assert server.version().major == 2
        with pytest.raises(StoreUnavailable, match=str(status)):
            server.write("tizhuang", ["elevator,device=d,part=-,site=s floor=3i 1"], "ms")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_over_the_new_address_lines_that_are_wrong_are_refused(status: int):
    with (
        answering(status) as url,
        closing(InfluxServer(Influx(url=url, token=SecretStr("t")))) as server,
        pytest.raises(LinesRefused),
    ):
        server.write("tizhuang", ["elevator,device=d,part=-,site=s floor=3i 1"], "ms")


@pytest.mark.parametrize("precision", ["ms", "ns"])
def test_over_the_new_address_204_means_stored(precision: str):
    with answering(204) as url, closing(InfluxServer(Influx(url=url, token=SecretStr("t")))) as server:
        server.write("tizhuang", ["elevator,device=d,part=-,site=s floor=3i 1"], precision)


def test_heard_events_are_forgotten_once_they_are_written(own: Influx):
    with closing(opened(own)) as store:
        one = event("s.lift", T, "e-1")
        store.heard(Batch((one, event("s.lift", T, "e-2"))))
        write(store, one)
        assert list(store._heard._held.values()) == [[event("s.lift", T, "e-2")]]
        write(store, event("s.lift", T, "e-2"))
        assert not store._heard._held


ROLLER: Final = """
import sys
from core.settings import Influx
from storage.influx import InfluxSeries
store = InfluxSeries(Influx(url=sys.argv[1], bucket=sys.argv[2]), raw_days=36500, minute_days=36500, hour_days=36500)
print("open", flush=True)
for hour in store.unrolled():
    store.roll_up(hour)
"""


def test_a_roll_up_that_was_killed_half_way_gives_the_same_when_it_is_done_again(own: Influx):
    """Killed ever later, until it comes to its end; some rows of an hour are there then, and some are not."""
    devices = [f"s.pile-{number}" for number in range(30)]

    def sample(device: str, ts: int) -> Reading:
        fields: dict[str, Value] = {"temp_c": ts % 977 / 7, "state": "charging", "x": "odd" if ts % 5 == 0 else ts % 11}
        return reading(device, ts, fields, kind="charger", part="1")

    def answers(store: SeriesStore) -> list[list[Bucket]]:
        return [
            store.window("charger", device, "1", field, start=NOON, end=NOON + 3 * HOUR_MS, step=step)
            for device in devices[::7]
            for field in ("temp_c", "state", "x")
            for step in (MINUTE_MS, HOUR_MS)
        ]

    with closing(opened(own)) as store:
        for minute in range(0, 180, 2):
            write(store, *(sample(device, NOON + minute * MINUTE_MS + 7) for device in devices))
        expected = answers(store)
    left: list[int] = []
    while not left or left[-1]:
        patience_s = 0.01 * 2.5 ** len(left)
        command = [sys.executable, "-c", ROLLER, own.url, own.bucket]
        with subprocess.Popen(command, cwd=servers.ROOT, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            child.stdout.readline()
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=patience_s)
            child.kill()
        with closing(opened(own)) as store:
            for found, wanted in zip(answers(store), expected, strict=True):
                assert_buckets(found, wanted)
            left.append(len(store.unrolled()))
    assert left[0] == 3, "killed in the first hour"
    assert sorted(left, reverse=True) == left
    rows = ask(own, 'SELECT count("temp_c.n") FROM "charger"', f"{own.bucket}_1h")
    assert rows[0]["count"] == 3 * len(devices), "and not one row more"
