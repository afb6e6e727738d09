"""The library's own environment, below `.saccade/ultralytics`. Promises: pinned versions, no download when it runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tests.matrix.ultralytics.networks import LIBRARY, VERSION

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
REPOSITORY = Path(__file__).resolve().parents[3]
_INSTALL_TIMEOUT_S = 1800.0


def python_of(work: Path) -> Path:
    return work.absolute() / "environment" / "bin" / "python"


def set_up(work: Path) -> None:
    """Makes the environment unless it is there, and brings it to the pinned versions. Raises CalledProcessError."""
    python = python_of(work)
    if not python.exists():
        venv.create(python.parents[1], with_pip=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    # The library asks for OpenCV with windows; the one without needs no display's libraries, and so is named by hand.
    for more in (["--requirement", str(REQUIREMENTS)], ["--no-deps", f"{LIBRARY}=={VERSION}"]):
        subprocess.run([*install, *more], check=True, timeout=_INSTALL_TIMEOUT_S)


def copy_own_photographs(work: Path, folder: Path) -> None:
    """Side effect: adds the two that the library ships."""
    for picture in sorted((python_of(work).parents[1] / "lib").glob(f"python*/site-packages/{LIBRARY}/assets/*.jpg")):
        shutil.copy(picture, folder / picture.name)


def run_inside(work: Path, module: str, *arguments: str, timeout_s: float) -> None:
    """Runs a module of this repository there. Raises CalledProcessError, whose stderr says why, and TimeoutExpired."""
    settings = {
        "PYTHONPATH": str(REPOSITORY),
        "YOLO_CONFIG_DIR": str(work.absolute()),
        "YOLO_OFFLINE": "true",
        "YOLO_AUTOINSTALL": "false",  # otherwise its exporter installs packages by itself
    }
    subprocess.run(
        [str(python_of(work)), "-m", module, *arguments],
        cwd=work,
        env={**os.environ, **settings},
        check=True,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def interpreter() -> str:
    """This project's own."""
    return sys.executable
