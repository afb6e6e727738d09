"""The session's script with a Python that fails, hangs or cannot start: it comes to its end, in time, and says so."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "load" / "gpu_session.sh"
PARTS = ["tests", "prepare", "bare", "decoding", "served", "reference", "detector", "threads"]


def session(directory: Path, python: str, seconds: str) -> subprocess.CompletedProcess[str]:
    """A session whose Python is a shell script of these lines."""
    stand_in = directory / "python"
    stand_in.write_text(f"#!/usr/bin/env bash\n{python}\n")
    stand_in.chmod(0o755)
    return subprocess.run(
        ["bash", str(SCRIPT), str(directory / "out"), seconds],
        env={**os.environ, "PYTHON": str(stand_in), "COMMIT": "abc"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def outcomes(directory: Path) -> dict[str, str]:
    lines = [line.split("\t") for line in (directory / "out" / "parts.tsv").read_text().splitlines()]
    return {name: outcome for name, _, _, outcome, _ in lines}


def test_part_that_fails_stops_no_other(tmp_path: Path) -> None:
    done = session(tmp_path, 'case "$*" in *"-m pytest"*) echo broken; exit 3 ;; *) echo "$*" ;; esac', "330")

    assert done.returncode == 0, done.stderr
    assert outcomes(tmp_path) == {"tests": "exit code 3"} | dict.fromkeys(PARTS[1:], "ran to its end")
    assert (tmp_path / "out" / "tests.log").read_text() == "broken\n"
    served = (tmp_path / "out" / "served.log").read_text()
    assert "--connections 4,8,16,32,64,128" in served
    assert "--commit abc" in served
    budget_s = int(served.split("--budget-s ")[1])
    assert 0 < budget_s < 330


def test_parts_that_hang_are_ended_within_the_time_of_the_session(tmp_path: Path) -> None:
    start_s = time.monotonic()

    session(tmp_path, 'case "$*" in *session_table*) ;; *) exec tail -f /dev/null ;; esac', "3")

    assert time.monotonic() - start_s < 30
    assert list(outcomes(tmp_path)) == PARTS
    assert set(outcomes(tmp_path).values()) <= {"out of time", "not begun: no time was left"}
    assert "out of time" in outcomes(tmp_path).values()


def test_log_is_without_the_lines_of_cudnns_search(tmp_path: Path) -> None:
    session(tmp_path, 'echo "[cudnn_frontend] Error: No execution plans support the graph"; echo kept', "330")

    assert (tmp_path / "out" / "bare.log").read_text() == "kept\n"


def test_python_that_is_not_there_still_leaves_a_list_of_the_parts(tmp_path: Path) -> None:
    done = session(tmp_path, "exit 127", "330")

    assert [line.split("\t")[0] for line in done.stdout.splitlines()[: len(PARTS)]] == PARTS
    assert set(outcomes(tmp_path).values()) == {"exit code 127"}


@pytest.mark.parametrize("seconds", ["many", "-1", "1.5"])
def test_seconds_that_are_no_number_are_refused(tmp_path: Path, seconds: str) -> None:
    done = session(tmp_path, "true", seconds)

    assert done.returncode == 2
    assert "whole number" in done.stderr
