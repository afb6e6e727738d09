"""A program started in a user's folder imports nothing of what lies there, but the factory that a recipe names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.images import red_png
from tests.support.installed_wheel import Installation, build_wheel, install
from tests.support.server import ROOT, clean_environment, running_server

TRAP = "raise SystemExit('a module of the user was imported')"
NETWORK = """
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
"""
RECIPE = {
    "task": {"task": "classify", "top_k": 3},
    "labels": [str(digit) for digit in range(10)],
    "preprocess": {"width": 32, "height": 32, "fit": "stretch"},
    "data": {"dataset": "digit_scenes", "images": {"calibration": 32, "tuning": 16, "test": 24}},
    "allowed_batch_sizes": [1, 2],
    "variants": ["fp32"],
    "qualify": {
        "latency_repeats": 3,
        "latency_budget_s": 0.05,
        "compare_batch_sizes": [1],
        "compare_repeats": 3,
        "compare_budget_s": 0.05,
        "threads": 1,
        "allow_spinning": False,
    },
    "gate": {"mode": "parity", "allow_random_weights": True, "allow_loose_thresholds": True, "max_metric_drop": 1.0},
}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    root = tmp_path_factory.mktemp("installed")
    return install(build_wheel(root), root / "environment")


@pytest.fixture
def users_folder(tmp_path: Path) -> Path:
    """Files and packages named like ours, each of which ends the process that imports it."""
    folder = tmp_path / "users"
    for name in (
        "models.py",
        "service.py",
        "export.py",
        "models/__init__.py",
        "service/__init__.py",
        "export/__init__.py",
        "tests/__init__.py",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(TRAP)
    return folder


def run_in(folder: Path, command: list[str], extra: dict[str, str]) -> subprocess.CompletedProcess[str]:
    environment = clean_environment(extra)
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


def test_server_serves_beside_modules_named_like_its_own(
    users_folder: Path, three_models: Path, tmp_path: Path
) -> None:
    with running_server(
        three_models, tmp_path, folder=users_folder, environment={"PYTHONPATH": os.fspath(ROOT)}
    ) as server:
        assert server.predict("classifier", red_png(7)).status_code == 200


def test_exporter_starts_beside_modules_named_like_its_own(users_folder: Path) -> None:
    shown = run_in(users_folder, [sys.executable, "-m", "saccade.export", "--help"], {"PYTHONPATH": os.fspath(ROOT)})

    assert shown.returncode == 0, shown.stderr
    assert "run" in shown.stdout


def test_installed_wheel_is_what_runs(installed: Installation, users_folder: Path) -> None:
    program = "import saccade.export, saccade.models, saccade.service as found; print(found.__file__)"

    shown = run_in(users_folder, [installed.program("python"), "-P", "-c", program], installed.environment)

    assert shown.stdout.startswith(str(installed.folder)), shown.stderr


def test_installed_server_serves_beside_modules_named_like_its_own(
    installed: Installation, users_folder: Path, three_models: Path, tmp_path: Path
) -> None:
    with running_server(
        three_models,
        tmp_path,
        program=[installed.program("saccade")],
        folder=users_folder,
        environment=installed.environment,
    ) as server:
        assert server.predict("classifier", red_png(7)).status_code == 200


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_installed_exporter_takes_factories_of_the_users_models(installed: Installation, users_folder: Path) -> None:
    # given a user whose networks are in a package of his own called `models`
    (users_folder / "models/__init__.py").write_text("")
    (users_folder / "models/net.py").write_text(NETWORK)
    factories = {"by-path": "models/net.py:build", "by-name": "models.net:build"}
    for model, factory in factories.items():
        recipe = {**RECIPE, "model": model, "source": f"module/{factory}"}
        (users_folder / f"{model}.yaml").write_text(yaml.safe_dump(recipe))

    command = [installed.program("saccade-export"), "run", *(f"{model}.yaml" for model in factories)]
    done = run_in(users_folder, command, installed.environment)

    assert done.returncode == 0, done.stdout + done.stderr
    for model in factories:
        assert (users_folder / f"repository/{model}/1/fp32.onnx").is_file()


@pytest.mark.parametrize("name", ["service", "models", "export"])
def test_a_package_of_ours_has_one_name(name: str) -> None:
    imported = run_in(ROOT, [sys.executable, "-c", f"import {name}"], {})

    assert f"imported as `saccade.{name}`" in imported.stderr
