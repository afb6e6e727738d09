"""Documents name only files that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOP = ("service", "models", "export", "tests", "k8s", ".ci")
DOCUMENTS = [
    path
    for pattern in ("README.md", "CHANGELOG.md", "k8s/README.md", "*/DECISIONS.md", "*/*/README.md")
    for path in sorted(ROOT.glob(pattern))
    if ".venv" not in path.parts and "repository" not in path.parts
]
PACKAGE_MAPS = sorted(path for package in TOP[:3] for path in (ROOT / package).rglob("__init__.py"))
_CODE = re.compile(r"`([^`\n]+)`|\]\(([^)\s]+)\)")  # `code` and [text](target)
_PATH = re.compile(r"\.{0,2}[\w.{},*-]*(?:/[\w.{},*-]+)+/?|[\w-]+\.py|[A-Z]+\.md")
_MODULE = re.compile(r"(?<![\w/.-])(?:[\w-]+/)*(?:\w+|\{[\w,]+\})\.py\b")


def expanded(token: str) -> Iterator[str]:
    """`a/{b,c}.py` is a/b.py and a/c.py."""
    parts = re.split(r"\{([^{}]*)\}", token)
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    yield from ("".join(chosen) for chosen in product(*choices))


def names_in(text: str) -> set[str]:
    """Backticked or linked paths that claim to lie in this project."""
    tokens = {code or target for code, target in _CODE.findall(text)}
    return {token for token in tokens if _PATH.fullmatch(token) and not token.startswith(("/", "http"))}


def exists(name: str, *bases: Path) -> bool:
    """As a path from one of the folders; globs must match something."""
    clean = name.removeprefix("./").rstrip("/")
    return any(
        next(iter(base.glob(clean)), None) is not None if "*" in clean else (base / clean).exists() for base in bases
    )


def is_ours(name: str) -> bool:
    return name.removeprefix("./").split("/")[0] in TOP or name.endswith((".py", ".md"))


def missing(names: set[str], *bases: Path) -> list[str]:
    return sorted(name for token in names for name in expanded(token) if not exists(name, *bases))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_names_only_files_that_exist(path: Path) -> None:
    names = {name for name in names_in(path.read_text("utf-8")) if is_ours(name)}

    assert missing(names, ROOT, path.parent) == []


@pytest.mark.parametrize("path", PACKAGE_MAPS, ids=lambda path: str(path.relative_to(ROOT)))
def test_package_map_names_only_files_that_exist(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    names = names_in(docstring) | set(_MODULE.findall(docstring))

    # a map may speak from the package, from the project, or (on a line about a folder) from that folder
    folders = [folder for folder in path.parent.iterdir() if folder.is_dir()]
    assert missing(names, path.parent, ROOT, *folders) == []


def test_server_map_names_every_part_of_the_server() -> None:
    docstring = ast.get_docstring(ast.parse((ROOT / "service/__init__.py").read_text("utf-8"))) or ""
    folders = [item.name for item in (ROOT / "service").iterdir() if (item / "__init__.py").exists()]

    assert [name for name in folders if f"{name}/" not in docstring] == []


def test_missing_files_would_be_found() -> None:
    text = "see `service/{core,absent}.py`, `service/vision/`, [map](service/nowhere.md), `/v1/models`, `a b/c`"
    names = names_in(text)

    assert names == {"service/{core,absent}.py", "service/vision/", "service/nowhere.md"}
    assert missing(names, ROOT) == ["service/absent.py", "service/nowhere.md"]
