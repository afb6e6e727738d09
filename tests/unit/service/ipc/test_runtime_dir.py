"""The folder of a running server: gone at its end, or when the next one starts."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from saccade.service.ipc.runtime_dir import runtime_dir

_HOLD = """
import sys
from saccade.service.ipc.runtime_dir import runtime_dir
with runtime_dir() as path:
    print(path, flush=True)
    sys.stdin.read()
"""


def holding() -> tuple[subprocess.Popen[str], Path]:
    """Another server and its folder."""
    process = subprocess.Popen([sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_folder_is_removed_at_the_end() -> None:
    with runtime_dir() as path:
        assert (path / "metrics").is_dir()
    assert not path.exists()


def test_folder_of_a_killed_server_is_removed_by_the_next_one_and_that_of_a_living_one_is_not() -> None:
    (living, kept), (killed, left) = holding(), holding()
    killed.kill()
    killed.communicate()
    assert left.is_dir()

    with runtime_dir():
        assert not left.exists()
        assert kept.is_dir()

    living.communicate()  # its input ends
    assert not kept.exists()


def test_process_id_that_was_given_out_anew_says_nothing() -> None:
    killed, left = holding()
    killed.kill()
    killed.communicate()
    ours = left.rename(left.with_name("saccade-1-anew"))  # as the first process of every container

    with runtime_dir():
        assert not ours.exists()


def test_temporary_files_go_into_it_where_nothing_else_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [path for path in [os.environ["TMPDIR"]] if path])

    with runtime_dir() as path, tempfile.TemporaryDirectory() as folder:
        assert Path(folder).parent == path
