"""The command line, and the wiring: every resource is opened here and closed in reverse order.

tizhuang demo       everything in one command: broker, simulators, worker, alerts, API and pages
tizhuang serve      worker, alerts, API and pages against your own broker (mqtt.url)
tizhuang simulate   virtual lifts and piles, which speak only MQTT
tizhuang register   adds places, contractors and devices from a YAML file
tizhuang rules      checks and tests rule files, and tries them on stored history
tizhuang doctor     checks a real broker and real databases, and says what would be lost
tizhuang migrate    brings the records of an older version up to date, keeping a copy
tizhuang schema     writes the documents that are generated from the code

One file on purpose: what belongs to what, in which order it is opened and what ends it, can be read in one place.
"""

from __future__ import annotations

import errno
import gc
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path
from types import FrameType
from typing import Annotated, Final

import structlog
import typer
import yaml
from fastapi import FastAPI

from alerts.cli import rules_app
from alerts.desk import AlertDesk
from alerts.notify import Announcer, Postman
from alerts.rulebook import RuleBook, digest, load_rules
from api.app import create_app
from api.server import Server
from api.services import RulesState, Services
from core import mqtt as core_mqtt
from core import schema as core_schema
from core import settings as core_settings
from core.errors import AddressInUse, SettingsError, StoreUnavailable, TizhuangError
from core.settings import Settings
from ingest.broker import embedded_broker, stop_child
from ingest.recall import recall
from ingest.repeats import UnknownFields
from ingest.spool import Spool
from ingest.storekeeper import Storekeeper
from ingest.subscription import Subscription
from ingest.worker import Worker
from simulators import presets
from simulators.faults import known
from simulators.plan import assign, parse
from simulators.run import simulate as run_simulators
from storage.alarm_quality import AlarmQuality
from storage.drivers import open_series
from storage.folder import copy_aside, held, make
from storage.incidents import Incidents
from storage.outbox import Outbox
from storage.quarantine import Quarantine
from storage.receipts import Receipts
from storage.records import Records, address, migrate, open_records
from storage.register_file import checked
from storage.registry import Registry
from storage.rollup_job import RollUpJob
from storage.silences import Silences
from storage.tickets import Tickets

ROOT = Path(__file__).parent
DEMO_FAULTS = {
    "elevator": ("entrapment@3s", "code:2@40s", "silence@75s", "overtravel@120s", "stopped@180s"),
    "charger": ("relay-welded@8s", "overheat@20s", "smoke@90s"),
}
"""What happens in a demo that was told nothing: a first ticket within 20 seconds, and something new now and then."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tizhuang 梯桩 watches lifts and charging piles, and turns faults into tickets.",
)
app.add_typer(rules_app, name="rules", help="Rule files: check them, test them, try them on stored history.")
_log = structlog.get_logger()


SEARCH_AFTER: Final = 50_000
"""Objects made before Python looks for dead cycles among them. Every message is a few dozen, and none has a cycle."""


TURN_S: Final = 0.001
"""How long a thread may compute while others want to: a fifth of Python's default, so that alarms overtake storing."""


def now_ms() -> int:
    """The wall clock, Unix ms: the one place where it is read."""
    return time.time_ns() // 1_000_000


# --- the service -----------------------------------------------------------------------------------------------------


class Crew:
    """The background threads of the service. One that dies takes the service down: half a service saves nobody."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.failed = threading.Event()
        self._threads: list[threading.Thread] = []

    def add(self, name: str, work: Callable[[threading.Event], None]) -> None:
        def guarded() -> None:
            try:
                work(self.stop)
            except Exception:  # noqa: BLE001 - whatever it was: the thread ends, and with it the service
                _log.exception("a part of the service failed; stopping all of it", part=name)
                self.failed.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def dismiss(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(timeout=2)


class HttpServer(Server):
    """Serves until a signal comes, the time is up or a part of the service fails."""

    def __init__(
        self, app: FastAPI, *, ready: Callable[[], None], failed: threading.Event, for_s: float | None
    ) -> None:
        super().__init__(app)
        self._ready = ready
        self._failed = failed
        self._ends_at = None if for_s is None else time.monotonic() + for_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    async def on_tick(self, counter: int) -> bool:
        over = self._ends_at is not None and time.monotonic() >= self._ends_at
        if over or self._failed.is_set():
            self.should_exit = True
        return await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal is a wish to end well, not an error to pass on."""
        self.should_exit = True


@contextmanager
def service(settings: Settings, records: Records) -> Iterator[tuple[Services, Crew]]:
    """Worker, alerts and notifications, running; with what the API needs."""
    with ExitStack() as stack:
        book = load_rules(settings.alerts.rules)
        series = open_series(settings)
        stack.callback(series.close)
        spool = Spool(settings.data.dir / "spool", settings.spool.limit_mb * 1_000_000)
        stack.callback(spool.close)
        recall(spool, series.heard)  # before the desk asks what devices said last
        registry, incidents, outbox = Registry(records), Incidents(records), Outbox(records)
        announcer = Announcer(settings.mqtt)
        stack.callback(announcer.close)
        postman = Postman(outbox, announcer, f"{socket.gethostname()}:{os.getpid()}", now_ms)
        desk = AlertDesk(
            book,
            incidents=incidents,
            registry=registry,
            series=series,
            now=now_ms,
            told=postman.wake,
            newer_rules=lambda known: newer_rules(settings.alerts.rules, known),
        )
        source = Subscription(settings.mqtt, now=now_ms, on_connection=desk.listening)
        quarantine = Quarantine(records)
        receipts = Receipts(records)
        unknown = UnknownFields()
        keeper = Storekeeper(series, spool, quarantine, source.ack, limited=unknown.limit)
        worker = Worker(source, desk, keeper, quarantine, receipts, unknown, kind_of=desk.kind_of, on_flow=desk.flowing)
        crew = Crew()
        stack.callback(crew.dismiss)
        stack.callback(source.close)
        source.start()
        crew.add("mqtt", source.watch)
        crew.add("ingest", worker.run)
        crew.add("series", keeper.run)
        crew.add("alert clock", desk.run)
        crew.add("windows of rules", desk.read_back)
        crew.add("notifications", postman.run)
        crew.add("housekeeping", housekeeping(receipts))
        crew.add("roll-ups", RollUpJob(series, settings.series, now_ms).run)
        yield (
            Services(
                settings=settings,
                registry=registry,
                incidents=incidents,
                tickets=Tickets(records),
                silences=Silences(records),
                alarm_quality=AlarmQuality(records),
                quarantine=quarantine,
                outbox=outbox,
                series=series,
                rules=lambda: RulesState(desk.book, desk.troubles, desk.rules_refused),
                stats=lambda: worker.stats()._replace(late_samples=desk.late_samples, alerts_lost=desk.alerts_lost),
                now=now_ms,
            ),
            crew,
        )


def newer_rules(folder: Path, known: str) -> RuleBook | None:
    """The rules of a folder, if they are not those of this digest any more."""
    return None if digest(folder) == known else load_rules(folder)


def housekeeping(receipts: Receipts) -> Callable[[threading.Event], None]:
    """Drops what nobody will ask for again, once an hour."""

    def keep(stop: threading.Event) -> None:
        while not stop.wait(3600):
            with suppress(StoreUnavailable):
                receipts.forget(now=now_ms())

    return keep


def run_service(
    settings: Settings, records: Records, *, for_s: float | None, begin: Callable[[str, Crew], None]
) -> None:
    """Serves until a signal, the time or a failure ends it. `begin` is called with the address once it answers."""
    with _listen(settings) as listener, service(settings, records) as (services, crew):
        host, port = listener.getsockname()[:2]
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}"

        def ready() -> None:
            gc.set_threshold(SEARCH_AFTER, 20, 20)
            sys.setswitchinterval(TURN_S)
            _write_run_file(settings, url)
            begin(url, crew)

        server = HttpServer(create_app(services), ready=ready, failed=crew.failed, for_s=for_s)
        try:
            server.run(sockets=[listener])
        finally:
            (settings.data.dir / "run.json").unlink(missing_ok=True)
        if crew.failed.is_set():
            raise TizhuangError("stopped because a part of the service failed; the reason stands above")


def _listen(settings: Settings) -> socket.socket:
    host, port = settings.http.host, settings.http.port
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise AddressInUse("pages", host, port, "--http-port") from None
        reason = str(error.strerror or error).partition(" (while")[0]
        raise SettingsError(f"http.host: cannot listen on '{host}': {reason}") from None


def _write_run_file(settings: Settings, url: str) -> None:
    """`DIR/run.json`, readable by its owner only: how scripts find a running service."""
    broker = core_mqtt.broker(settings.mqtt)
    facts = {
        "pid": os.getpid(),
        "http": url,
        "mqtt": f"mqtt://{broker.host}:{broker.port}",
        "data": str(settings.data.dir.resolve()),
        "version": _version(),
        "started": now_ms(),
    }
    draft = settings.data.dir / "run.json.new"
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        json.dump(facts, file, indent=2)
    draft.replace(settings.data.dir / "run.json")


# --- commands --------------------------------------------------------------------------------------------------------

_HttpPort = Annotated[
    int | None, typer.Option("--http-port", help="port of the pages and the API; 0: any free one", min=0, max=65_535)
]
_DataDir = Annotated[Path | None, typer.Option("--data", help="folder of the embedded databases")]
_For = Annotated[float | None, typer.Option("--for", help="stop after so many seconds", metavar="SECONDS", min=0)]
_Preset = Annotated[str, typer.Option(help=f"which neighbourhood: {', '.join(presets.PRESETS)}")]
_Seed = Annotated[int, typer.Option(help="the same seed gives the same neighbourhood life")]
_Speed = Annotated[float, typer.Option(help="simulated time runs so many times faster", min=0.1, max=1000)]
_Faults = Annotated[
    list[str] | None,
    typer.Option("--fault", help=f"NAME@WHEN[:DEVICE], like entrapment@2m; may be repeated. {', '.join(known())}"),
]
_MqttUrl = Annotated[str | None, typer.Option("--mqtt-url", help="mqtt://[user:password@]host[:port] or mqtts://...")]


@app.command()
def demo(
    http_port: _HttpPort = None,
    mqtt_port: Annotated[
        int, typer.Option("--mqtt-port", help="port of the embedded broker; 0: any free one", min=0, max=65_535)
    ] = 1883,
    data: _DataDir = None,
    preset: _Preset = "demo",
    seed: _Seed = 1,
    speed: _Speed = 1.0,
    fault: _Faults = None,
    for_s: _For = None,
) -> None:
    """A live neighbourhood on this machine: broker, simulators, worker, alerts, API and pages in one command."""
    life = presets.get(preset)
    neighbourhood = checked(life.entries())
    kinds = {device.kind for device in life.devices}
    faults = fault or [one for kind in DEMO_FAULTS if kind in kinds for one in DEMO_FAULTS[kind]]
    assign([parse(one) for one in faults], life.devices, seed)  # says now what cannot be, not in the child later
    with ExitStack() as stack:
        settings = core_settings.load(http={"port": http_port}, data={"dir": data})
        stack.enter_context(held(settings.data.dir))
        records = _open(stack, settings)
        _listen(settings).close()  # say "port in use" before anything is started
        port = stack.enter_context(embedded_broker(mqtt_port))
        url = f"mqtt://127.0.0.1:{port}"
        settings = settings.model_copy(update={"mqtt": core_settings.Mqtt(url=url)})
        Registry(records).register(neighbourhood, now=now_ms())

        def begin(page: str, crew: Crew) -> None:
            options = ["--mqtt-url", url, "--preset", preset, "--seed", str(seed), "--speed", str(speed)]
            options += [word for one in faults for word in ("--fault", one)]
            child = subprocess.Popen(
                [sys.executable, "-m", "simulators", *options], cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True
            )
            stack.callback(stop_child, child)
            crew.add("simulators", lambda stop: _watch(child, stop))
            typer.echo(f"\n  Tizhuang 梯桩  {page}\n  broker         {url}\n  data           {settings.data.dir}\n")
            typer.echo("  The first ticket comes within 20 seconds. Ctrl-C ends everything.\n")

        run_service(settings, records, for_s=for_s, begin=begin)


@app.command()
def serve(
    mqtt_url: _MqttUrl = None,
    http_host: Annotated[str | None, typer.Option("--http-host", help="address to listen on")] = None,
    http_port: _HttpPort = None,
    data: _DataDir = None,
    for_s: _For = None,
) -> None:
    """Worker, alerts, API and pages in one process, against the broker at mqtt.url."""
    with ExitStack() as stack:
        settings = core_settings.load(
            mqtt={"url": mqtt_url}, http={"host": http_host, "port": http_port}, data={"dir": data}
        )
        _needs_broker(settings)
        stack.enter_context(held(settings.data.dir))
        records = _open(stack, settings)
        run_service(settings, records, for_s=for_s, begin=lambda page, _: typer.echo(f"Tizhuang 梯桩  {page}"))


@app.command()
def simulate(
    preset: _Preset = "demo",
    fault: _Faults = None,
    seed: _Seed = 1,
    speed: _Speed = 1.0,
    mqtt_url: _MqttUrl = None,
    for_s: _For = None,
) -> None:
    """Virtual lifts and piles that publish to the broker at mqtt.url until Ctrl-C."""
    settings = core_settings.load(mqtt={"url": mqtt_url})
    _needs_broker(settings)
    stop = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop.set())
    run_simulators(settings.mqtt, preset, seed=seed, speed=speed, faults=fault or (), for_s=for_s, stop=stop)


@app.command()
def register(
    file: Annotated[Path, typer.Argument(help="YAML with sites, buildings, contractors and devices")],
    data: _DataDir = None,
) -> None:
    """Adds or updates places, contractors and devices; a running service takes them up within 30 seconds."""
    settings = core_settings.load(data={"dir": data})
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"register: {file}: {error}".replace("\n", " ")) from None
    make(settings.data.dir)
    with ExitStack() as stack:
        counts = Registry(_open(stack, settings)).register(checked(entries), now=now_ms())
    typer.echo(", ".join(f"{count} {name}" for name, count in counts.items()))


@app.command("migrate")
def migrate_command(data: _DataDir = None) -> None:
    """Brings the records in a data folder up to date. A copy of the old ones stays beside them."""
    settings = core_settings.load(data={"dir": data})
    with held(settings.data.dir) as folder:
        copy = None if settings.database.url else copy_aside(folder / "records.sqlite")
        before, after = migrate(address(settings.database.url, folder))
        typer.echo(f"records: {before or 'new'} -> {after}" + (f"; the old ones are in {copy}" if copy else ""))


@app.command()
def doctor(
    mqtt_url: _MqttUrl = None,
    data: _DataDir = None,
    no_mark: Annotated[
        bool, typer.Option("--no-mark", help="leave nothing on the broker; what survives its restart is not seen then")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Says what a real broker and real databases would lose. Exit code 0: nothing, 1: something, 2: not checked."""
    from core import doctor as told
    from ingest.doctor import check_broker
    from storage.doctor import check_store

    found: list[told.Finding] = []
    try:
        settings = core_settings.load(mqtt={"url": mqtt_url}, data={"dir": data})
        _needs_broker(settings)
        folder = settings.data.dir
        at_broker = check_broker(settings.mqtt, folder=folder, keep_mark=not no_mark, now=now_ms, tell=_progress)
        for one in chain(at_broker, check_store(settings, now_ms)):
            _progress("")
            found.append(one)
            if not as_json:
                typer.echo("\n".join(told.lines(one)))
    except SettingsError as error:
        typer.echo(f"tizhuang: {error}", err=True)
        raise typer.Exit(told.NOT_CHECKED) from None
    typer.echo(json.dumps(told.document(found), ensure_ascii=False, indent=2) if as_json else told.summary(found))
    raise typer.Exit(told.exit_code(found))


@app.command()
def schema(
    check: Annotated[bool, typer.Option("--check", help="write nothing; fail when a document is out of date")] = False,
) -> None:
    """Writes the documents under docs/ that are generated from the code."""
    stale = []
    for name, text in core_schema.documents().items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if check and stale:
        raise TizhuangError(f"out of date, run `tizhuang schema`: {', '.join(stale)}")
    typer.echo(f"{'written' if stale else 'up to date'}: {', '.join(stale) or 'all documents'}")


# --- small things ----------------------------------------------------------------------------------------------------


def _needs_broker(settings: Settings) -> None:
    if not settings.mqtt.url:
        raise SettingsError("mqtt.url: say which broker: --mqtt-url mqtt://host:1883 (or TIZHUANG_MQTT__URL)")


def _progress(text: str) -> None:
    """One line that the next one overwrites, for people who wait at a terminal."""
    if sys.stderr.isatty():
        typer.echo(f"\r\x1b[K{text}", nl=False, err=True)


def _open(stack: ExitStack, settings: Settings) -> Records:
    records = open_records(address(settings.database.url, settings.data.dir))
    stack.callback(records.close)
    return records


def _watch(child: subprocess.Popen[bytes], stop: threading.Event) -> None:
    """A demo whose simulators have died shows a dead neighbourhood: better to end, and say so."""
    while not stop.wait(0.5):
        if child.poll() is not None:
            raise TizhuangError(f"the simulators ended by themselves (exit code {child.returncode})")


def _version() -> str:
    try:
        return version("tizhuang")
    except PackageNotFoundError:
        return "0.1.0 (source tree)"


def _log_to_stderr() -> None:
    """Lines for people on a terminal, JSON lines for machines."""
    for_people = sys.stderr.isatty()
    last: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if for_people
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if for_people else "iso", utc=not for_people),
            *last,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def main() -> None:
    """Runs a command; our own errors are one line and exit code 1."""
    _log_to_stderr()
    try:
        app()
    except TizhuangError as error:
        typer.echo(f"tizhuang: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        main()
