"""The wheel of this tree, installed beside this environment's packages so that the tree itself is not importable."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import ROOT, clean_environment


@dataclass(frozen=True, slots=True)
class Installation:
    """An environment in which `saccade` and `saccade-export` can be started."""

    folder: Path

    def program(self, name: str) -> str:
        return str(self.folder / "bin" / name)

    @property
    def environment(self) -> dict[str, str]:
        """Changes to this process's: the tree is not on the path."""
        return {"PYTHONPATH": ""}


def build_wheel(folder: Path) -> Path:
    """The wheel, made by the backend of pyproject.toml, which the dev extra brings."""
    _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder))
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, folder: Path) -> Installation:
    """Into an environment of its own. A `.pth` file in what a `.pth` file names is not read: the tree's is one."""
    _run(sys.executable, "-m", "venv", "--without-pip", str(folder))
    python = str(folder / "bin" / "python")
    _run(sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--python", python, str(wheel))
    paths = {"base": str(folder), "platbase": str(folder)}
    Path(sysconfig.get_path("purelib", vars=paths), "packages.pth").write_text(sysconfig.get_path("purelib"))
    return Installation(folder)


def _run(*command: str) -> None:
    done = subprocess.run(
        command, cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
