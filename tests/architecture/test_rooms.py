"""A folder is a process or a stage: who may import whom, how many rooms there are, how long a file may be."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("service", "export", "models")
PROCESSES = ("api", "worker", "supervisor")
MAX_ROOMS = 16  # on one floor
MAX_ARROWS = 60  # between the rooms of the server
MAX_FILE_LINES = 400


def modules_of(package: str) -> dict[str, Path]:
    """Files by their full name; `service.api` is the package's own file."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(path: Path, known: dict[str, Path], *, is_at_import: bool = False) -> set[str]:
    """Modules among `known` that a file imports, anywhere in it, or only while it is imported itself."""
    tree = ast.parse(path.read_text("utf-8"))
    found = set()
    for node in tree.body if is_at_import else ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            base = node.module.removeprefix("saccade.")
            named = {f"{base}.{alias.name}" for alias in node.names}
            found |= (named & known.keys()) or ({base} & known.keys())
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("saccade.") for alias in node.names} & known.keys()
    return found


def room(module: str) -> str:
    """`service.api.http.limits` lies in the room `api`; a file on the floor is a room of its own."""
    return module.split(".")[1] if "." in module else ""


def arrows(package: str) -> dict[tuple[str, str], list[str]]:
    known = modules_of(package)
    found: dict[tuple[str, str], list[str]] = {}
    for module, path in known.items():
        for target in imports_of(path, known):
            if room(module) != room(target):
                found.setdefault((room(module), room(target)), []).append(f"{module} -> {target}")
    return found


def test_processes_never_import_each_other() -> None:
    found = {pair: names for pair, names in arrows("service").items() if {*pair} <= {*PROCESSES}}

    assert found == {}


def test_arrows_between_rooms_of_the_server_are_few() -> None:
    assert len(arrows("service")) <= MAX_ARROWS


@pytest.mark.parametrize("package", PACKAGES)
def test_a_floor_has_few_rooms(package: str) -> None:
    floors = [ROOT / package, *(path.parent for path in (ROOT / package).rglob("__init__.py"))]
    rooms = {floor: [item for item in floor.iterdir() if (item / "__init__.py").exists()] for floor in floors}

    assert {floor: len(found) for floor, found in rooms.items() if len(found) > MAX_ROOMS} == {}


def test_no_module_imports_itself_through_others() -> None:
    known = {name: path for package in PACKAGES for name, path in modules_of(package).items()}

    order = TopologicalSorter({name: imports_of(path, known, is_at_import=True) for name, path in known.items()})

    assert len([*order.static_order()]) == len(known)  # raises CycleError and names the cycle


@pytest.mark.parametrize("package", [*PACKAGES, "tests"])
def test_files_stay_short(package: str) -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in (ROOT / package).rglob("*.py")}

    assert {str(path.relative_to(ROOT)): count for path, count in lengths.items() if count > MAX_FILE_LINES} == {}
