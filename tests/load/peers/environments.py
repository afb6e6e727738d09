"""Environments of the peers. Promises: one folder each below .saccade/peers, versions as pinned in requirements/."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.load.peers.servers import packages_of

REQUIREMENTS = Path(__file__).with_name("requirements")
_INSTALL_TIMEOUT_S = 1200.0


def python_of(environment: str, work: Path) -> Path:
    """The interpreter of a peer's environment; this project's own for an empty name."""
    return work.absolute() / environment / "bin" / "python" if environment else Path(sys.executable)


def set_up(environments: Sequence[str], work: Path) -> None:
    """Makes what is missing, and brings what is there to the pinned versions. Raises CalledProcessError."""
    for name in environments:
        python = python_of(name, work)
        print(f"environment {name}: {python.parents[1]}", flush=True)
        if not python.exists():
            _uv("venv", "--python", sys.executable, str(python.parents[1]))
        _uv("pip", "sync", "--python", str(python), str(REQUIREMENTS / f"{name}.txt"))
        if name == "triton":
            _place_stub(python)


def _uv(*arguments: str) -> None:
    command = [sys.executable, "-m", "uv", *arguments, "--quiet"]
    subprocess.run(command, check=True, timeout=_INSTALL_TIMEOUT_S)


def _place_stub(python: Path) -> None:
    """nvidia-pytriton brings the Python backend's process for several Pythons; Triton looks beside the backend."""
    triton = packages_of(python) / "pytriton" / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = "triton_python_backend_stub"
    shutil.copy2(triton / "python_backend_stubs" / version / stub, triton / "backends" / "python" / stub)
