"""Mosquitto as others configure it: with passwords, access lists, certificates, limits, and mistakes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.servers import Mosquitto, answers, free_port, process, program, wait_until

ROOMY = ("max_inflight_messages 500", "max_queued_messages 100000")


@contextmanager
def configured(folder: Path, *lines: str, port: int | None = None, listen: str = "127.0.0.1") -> Iterator[Mosquitto]:
    """A broker with these lines in its configuration, and next to none of ours."""
    folder.mkdir(exist_ok=True)
    port = port or free_port()
    config = folder / "mosquitto.conf"
    user = ("user root",) if os.geteuid() == 0 else ()
    config.write_text("\n".join([f"listener {port} {listen}", *lines, *user, ""]))
    log = folder / "mosquitto.log"
    with process([str(program("mosquitto")), "-c", str(config)], log=log) as child:
        wait_until(f"mosquitto on port {port}: {log}", lambda: child.poll() is None and answers(port))
        yield Mosquitto(port, log, child)


def ended(broker: Mosquitto) -> None:
    """Stopped in order: it writes what it keeps."""
    broker.child.terminate()
    broker.child.wait(timeout=10)


def persistence(folder: Path) -> str:
    return f"persistence true\npersistence_location {folder}/"


def kept(folder: Path) -> bytes:
    """The file in which a broker with persistence keeps sessions and retained messages."""
    return (folder / "mosquitto.db").read_bytes()


def passwords(folder: Path, **users: str) -> str:
    """The line for a password file."""
    folder.mkdir(exist_ok=True)
    path = folder / "passwords"
    path.touch(mode=0o600)
    for name, password in users.items():
        subprocess.run([str(program("mosquitto_passwd")), "-b", str(path), name, password], check=True, timeout=20)
    return f"password_file {path}"


def access(folder: Path, *lines: str) -> str:
    """The line for an access list."""
    folder.mkdir(exist_ok=True)
    path = folder / "access"
    path.write_text("\n".join([*lines, ""]))
    path.chmod(0o600)
    return f"acl_file {path}"


def certificate(folder: Path, *, days: int) -> tuple[Path, str]:
    """A self-signed certificate for 127.0.0.1, good for so many days, and the lines that use it."""
    folder.mkdir(exist_ok=True)
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc"]
    command += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", str(days)]
    command += ["-out", str(cert), "-keyout", str(key)]
    subprocess.run([str(program("openssl")), *command], check=True, timeout=20, capture_output=True)
    return cert, f"certfile {cert}\nkeyfile {key}"
