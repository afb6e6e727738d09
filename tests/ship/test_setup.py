"""`.ci/setup` names the packages that a plain Debian or Ubuntu lacks, before anything is downloaded."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SETUP = Path(__file__).resolve().parents[2] / ".ci/setup"
TRIED = ("python3.11", "python3.12", "python3.13", "python3")
OLD_PYTHON = "exit 1"  # every question is answered with no
PYTHON_WITHOUT_VENV = '[[ "$2" != *ensurepip* ]]'


def run_setup(folder: Path, interpreters: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a copy of the script where the interpreters are these shell programs."""
    (folder / ".ci").mkdir()
    (folder / "bin").mkdir()
    shutil.copy(SETUP, folder / ".ci/setup")
    for name in TRIED:
        program = folder / "bin" / name
        program.write_text(f"#!/bin/bash\n{interpreters.get(name, OLD_PYTHON)}\n")
        program.chmod(0o755)
    environment = {"PATH": f"{folder / 'bin'}:/usr/bin:/bin"}
    return subprocess.run([folder / ".ci/setup"], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("interpreters", "reason", "packages"),
    [
        ({}, "Python 3.11 or newer is missing", "python3 python3-venv"),
        ({"python3": PYTHON_WITHOUT_VENV}, "python3 cannot make an environment", "python3-venv"),
        ({"python3.12": PYTHON_WITHOUT_VENV}, "python3.12 cannot make an environment", "python3.12-venv"),
    ],
)
def test_missing_packages_are_named(tmp_path: Path, interpreters: dict[str, str], reason: str, packages: str) -> None:
    done = run_setup(tmp_path, interpreters)

    assert done.returncode == 1
    assert reason in done.stderr
    assert f"apt-get install {packages}" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_interpreter_that_can_make_environments_is_preferred(tmp_path: Path) -> None:
    makes = 'if [ "$2" = venv ]; then mkdir -p "$3/bin"; echo "exit 3" >"$3/bin/python"; chmod +x "$3/bin/python"; fi'

    done = run_setup(tmp_path, {"python3.12": PYTHON_WITHOUT_VENV, "python3": makes})

    assert (tmp_path / ".venv/bin/python").exists()
    assert "cannot make an environment" not in done.stderr
