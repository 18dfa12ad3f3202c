"""Real servers for tests: each on a free loopback port, in a temporary folder, stopped by the process we started."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), default="")
"""Debian keeps the programs of a PostgreSQL server apart, by version."""
ENABLE = "sudo sh deploy/test-servers.sh"
"""The one command that installs what the real-server tests need."""


def program(name: str) -> str | None:
    """Where a server's program is; Debian keeps some outside the PATH of ordinary users."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:{POSTGRES}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_until(what: str, ready: Callable[[], object], *, timeout_s: float = 20.0) -> None:
    """Asks until the answer is true; an AssertionError names what did not come true in time."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:.0f} s"
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
    except OSError:
        return False
    return True


@contextmanager
def process(command: Sequence[str], *, log: Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A child process whose output goes to a file; it is killed at the end of the `with` block."""
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, **options)  # type: ignore[call-overload]
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()


class Mosquitto(NamedTuple):
    """A real Mosquitto on loopback."""

    port: int
    log: Path
    child: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    def publish(self, topic: str, payload: bytes | str, *, retain: bool = False) -> None:
        """Publishes with QoS 1 by `mosquitto_pub`, a client that shares no code with ours; returns after the PUBACK."""
        body = payload.encode() if isinstance(payload, str) else payload
        command = [str(program("mosquitto_pub")), "-h", "127.0.0.1", "-p", str(self.port), "-q", "1", "-t", topic]
        command += ["-s" if body else "-n", *(["-r"] if retain else [])]  # it takes no empty standard input
        subprocess.run(command, input=body, check=True, timeout=20)

    def publish_lines(self, topic: str, lines: Sequence[str]) -> None:
        """Publishes one message per line on one connection."""
        command = [str(program("mosquitto_pub")), "-h", "127.0.0.1", "-p", str(self.port), "-q", "1", "-t", topic, "-l"]
        subprocess.run(command, input="".join(f"{line}\n" for line in lines).encode(), check=True, timeout=60)


@contextmanager
def mosquitto(
    folder: Path,
    *,
    port: int | None = None,
    persistence: bool = False,
    autosave_s: int | None = None,
    queued: int = 100_000,
) -> Iterator[Mosquitto]:
    """A broker that keeps what a persistent session has not acknowledged.

    `autosave_s`: writes its memory to disk that often (its default: every 30 minutes). `queued`: messages that it
    keeps for a session; it drops what is more, although it acknowledged it.
    """
    port = port or free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 500\nmax_queued_messages {queued}\n"
        + (f"persistence true\npersistence_location {folder}/\n" if persistence else "persistence false\n")
        + (f"autosave_interval {autosave_s}\n" if autosave_s else "")
        + ("user root\n" if os.geteuid() == 0 else "")
    )
    log = folder / "mosquitto.log"
    with process([str(program("mosquitto")), "-c", str(config)], log=log) as child:
        wait_until(f"mosquitto on port {port}: {log}", lambda: child.poll() is None and answers(port))
        yield Mosquitto(port, log, child)


class Influx(NamedTuple):
    """A real InfluxDB 1.x on loopback."""

    port: int
    log: Path
    child: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def influxd(folder: Path, *, port: int | None = None, auth: bool = False) -> Iterator[Influx]:
    """InfluxDB whose data stays in `folder`, so that it can be killed and started again."""
    port = port or free_port()
    config = folder / "influxdb.conf"
    config.write_text(
        f'reporting-disabled = true\nbind-address = "127.0.0.1:{free_port()}"\n'
        f'[meta]\ndir = "{folder}/meta"\n'
        f'[data]\ndir = "{folder}/data"\nwal-dir = "{folder}/wal"\nquery-log-enabled = false\n'
        f'[http]\nbind-address = "127.0.0.1:{port}"\nlog-enabled = false\n'
        f"auth-enabled = {str(auth).lower()}\n"
        "[monitor]\nstore-enabled = false\n[continuous_queries]\nenabled = false\n"
    )
    log = folder / "influxd.log"
    with process([str(program("influxd")), "-config", str(config)], log=log) as child:
        wait_until(f"influxd on port {port}: {log}", lambda: child.poll() is None and answers(port))
        yield Influx(port, log, child)


class Postgres(NamedTuple):
    """A real PostgreSQL on loopback."""

    port: int
    log: Path
    child: subprocess.Popen[bytes]

    def url(self, database: str) -> str:
        """The address of a database, for settings and SQLAlchemy."""
        return f"postgresql+psycopg://tizhuang@127.0.0.1:{self.port}/{database}"

    def create(self, database: str, *, template: str = "template1") -> str:
        """A new database, a copy of another that nobody uses; returns its address."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "tizhuang"]
        subprocess.run([str(program("createdb")), *where, "-T", template, database], check=True, timeout=60)
        return self.url(database)


@contextmanager
def postgres(folder: Path, *, port: int | None = None) -> Iterator[Postgres]:
    """A PostgreSQL that trusts everybody on loopback. As root it runs under another user, since it refuses root.

    `folder` must be one which that user can reach: `tempfile` makes such, pytest's `tmp_path` is root's alone. It does
    not wait for the disk: what is tested here is not PostgreSQL's durability.
    """
    port = port or free_port()
    data, log = folder / "data", folder / "postgres.log"
    other = _other_user(folder) if os.geteuid() == 0 else {}
    init = [str(program("initdb")), "-D", str(data), "-U", "tizhuang", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]
    with log.open("ab") as output:
        subprocess.run([*init, "-N"], check=True, stdout=output, stderr=output, timeout=120, cwd=folder, **other)  # type: ignore[call-overload]
    command = [str(program("postgres")), "-F", "-D", str(data), "-p", str(port), "-k", str(folder), "-h", "127.0.0.1"]
    asking = [str(program("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(port)]
    with process(command, log=log, cwd=folder, **other) as child:

        def ready() -> bool:
            assert child.poll() is None, f"ended with {child.returncode}:\n{log.read_text()[-3000:]}"
            return subprocess.run(asking, check=False, timeout=20).returncode == 0

        wait_until(f"postgres on port {port}: {log}", ready, timeout_s=60)
        yield Postgres(port, log, child)
        child.send_signal(signal.SIGINT)  # ends its own children too; a kill would leave them for a while
        child.wait(30)


def _other_user(folder: Path) -> dict[str, object]:
    """Who runs a server that refuses root: the user of Debian's package, or nobody. The folder becomes theirs."""
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    user = names.get("postgres") or names["nobody"]
    os.chown(folder, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


class Tizhuang(NamedTuple):
    """A running `tizhuang serve` or `tizhuang demo`."""

    child: subprocess.Popen[bytes]
    http: str
    data: Path
    log: Path

    def kill(self) -> None:
        """kill -9, and waits until it is gone."""
        self.child.kill()
        self.child.wait()


@contextmanager
def tizhuang(
    command: Sequence[str], *, data: Path, env: dict[str, str] | None = None, timeout_s: float = 30
) -> Iterator[Tizhuang]:
    """Our own program as a user would start it, in its own process; ready when `run.json` stands."""
    log = data.parent / f"{data.name}.log"
    run_file = data / "run.json"
    run_file.unlink(missing_ok=True)
    line = [sys.executable, str(ROOT / "tizhuang.py"), *command, "--data", str(data)]
    with process(line, log=log, env=os.environ | (env or {}), cwd=ROOT) as child:

        def ready() -> bool:
            assert child.poll() is None, f"ended with {child.returncode}:\n{log.read_text()[-3000:]}"
            return run_file.exists()

        wait_until(f"tizhuang {' '.join(command)}", ready, timeout_s=timeout_s)
        yield Tizhuang(child, json.loads(run_file.read_text())["http"], data, log)
