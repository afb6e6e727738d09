"""What goes to a package index: the wheel, the source distribution, and what the extras ask for."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
RUNTIMES = {"onnxruntime", "onnxruntime-gpu"}  # both own the import name `onnxruntime`


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("built")
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stderr}; `make setup` installs hatchling"
    return folder


def names_in_wheel(folder: Path) -> set[str]:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(folder: Path) -> str:
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name).decode()


def runtimes_of(extra: str) -> set[str]:
    lines = PROJECT["optional-dependencies"][extra]
    return {re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0] for line in lines} & RUNTIMES


def test_wheel_holds_one_import_package(built: Path) -> None:
    roots = {name.partition("/")[0] for name in names_in_wheel(built)}

    assert {root for root in roots if not root.endswith(".dist-info")} == {"saccade"}


def test_wheel_holds_every_module_of_the_tree_and_says_that_it_is_typed(built: Path) -> None:
    modules = {
        f"saccade/{path.relative_to(ROOT)}"
        for package in ("service", "models", "export")
        for path in (ROOT / package).rglob("*.py")
    }

    assert {*modules, "saccade/py.typed"} <= names_in_wheel(built)


def test_source_distribution_holds_what_the_wheel_holds(built: Path) -> None:
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}

    wanted = {name for name in names_in_wheel(built) if name.startswith("saccade/")}

    assert {name for name in members if name.startswith("saccade/")} == wanted
    assert all(members[name].isfile() for name in wanted), "links of the tree are folders there"


def test_page_on_the_index_is_the_readme(built: Path) -> None:
    headers, _, page = metadata(built).partition("\n\n")

    assert "Name: saccade-serving" in headers
    assert "Description-Content-Type: text/markdown" in headers
    assert page.strip() == (ROOT / "README.md").read_text("utf-8").strip()


def test_only_cpu_and_gpu_bring_a_runtime_so_that_no_two_extras_fight_over_its_name() -> None:
    found = {extra: runtimes_of(extra) for extra in PROJECT["optional-dependencies"]}

    assert {extra: runtimes for extra, runtimes in found.items() if runtimes} == {
        "cpu": {"onnxruntime"},
        "gpu": {"onnxruntime-gpu"},
    }
