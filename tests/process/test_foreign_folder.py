"""A server that is started in a user's folder imports nothing of what lies there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.images import red_png
from tests.support.server import ROOT, clean_environment, running_server

TRAP = "raise SystemExit('a module of the user was imported')"


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """Files and packages named like ours, each of which ends the process that imports it."""
    folder = tmp_path / "users"
    for name in (
        "models.py",
        "service.py",
        "export.py",
        "models/__init__.py",
        "export/__init__.py",
        "tests/__init__.py",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(TRAP)
    return folder


def test_server_serves_beside_modules_named_like_its_own(
    users_folder: Path, three_models: Path, tmp_path: Path
) -> None:
    with running_server(
        three_models, tmp_path, folder=users_folder, environment={"PYTHONPATH": os.fspath(ROOT)}
    ) as server:
        assert server.predict("classifier", red_png(7)).status_code == 200


def test_exporter_starts_beside_modules_named_like_its_own(users_folder: Path) -> None:
    program = [sys.executable, "-m", "saccade.export", "--help"]
    environment = clean_environment({"PYTHONPATH": os.fspath(ROOT)})

    shown = subprocess.run(
        program, cwd=users_folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert shown.returncode == 0, shown.stderr
    assert "run" in shown.stdout


@pytest.mark.parametrize("name", ["service", "models", "export"])
def test_a_package_of_ours_has_one_name(name: str) -> None:
    imported = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )

    assert f"imported as `saccade.{name}`" in imported.stderr
