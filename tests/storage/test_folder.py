"""The data folder: one process at a time, plain words, and nothing left behind by kill -9."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.errors import DataFolderError
from storage.folder import copy_aside, held
from tests.servers import ROOT

HOLDER = """
import sys
from pathlib import Path
from storage.folder import held
with held(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def refusal(folder: Path) -> str:
    with pytest.raises(DataFolderError) as caught, held(folder):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_folder_is_made_and_may_be_held_again(tmp_path: Path):
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        with held(folder) as got:
            assert got == folder
            assert folder.is_dir()


def test_a_folder_in_use_names_the_process_until_that_is_killed(tmp_path: Path):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert refusal(tmp_path) == f"data folder {tmp_path}: in use by another tizhuang (process {child.pid})"
    finally:
        child.kill()
        child.communicate()
    with held(tmp_path):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"


def test_a_file_where_the_folder_should_be(tmp_path: Path):
    (tmp_path / "data").write_text("mine")
    assert "cannot be written" in refusal(tmp_path / "data")
    assert "cannot be written" in refusal(tmp_path / "data" / "deeper")
    assert (tmp_path / "data").read_text() == "mine"


def test_a_folder_that_may_not_be_written():
    assert "cannot be written" in refusal(Path("/proc/tizhuang"))  # not even by root


def test_a_copy_is_made_of_what_is_there(tmp_path: Path):
    file = tmp_path / "records.sqlite"
    assert copy_aside(file) is None
    file.write_bytes(b"old")
    copy = copy_aside(file)
    assert copy is not None
    assert (copy.read_bytes(), file.read_bytes()) == (b"old", b"old")
    assert copy.parent == tmp_path
