"""Finds which modules of this project a module imports, directly or through others, without running them."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_OWN_PACKAGES = ("export", "models", "service")
# The formatter puts each import on a line of its own, so every import begins a line.
_IMPORT = re.compile(rb"^[ \t]*((?:from[ \t]+[\w.]+[ \t]+)?import[ \t]+(?:\([^)]*\)|[^\n]+))", re.MULTILINE)
_QUOTED_NAME = re.compile(rb"""["']([A-Za-z_]\w*(?:\.\w+)+)["']""")


@dataclass(frozen=True, slots=True)
class Package:
    """A package on disk whose modules are followed; modules of other packages are left out of a closure."""

    name: str  # as imported, with dots
    folder: Path

    def file_of(self, module: str) -> Path | None:
        """Returns the source file of a module of this package, or None when there is no such module."""
        if module != self.name and not module.startswith(f"{self.name}."):
            return None
        path = self.folder.joinpath(*module[len(self.name) :].strip(".").split("."))
        candidates = (path / "__init__.py", path.with_suffix(".py"))
        return next((candidate for candidate in candidates if candidate.is_file()), None)


def own_packages() -> tuple[Package, ...]:
    """Returns the packages of this project, named as this module itself was imported."""
    folder = Path(__file__).parents[1]
    parents = __name__.split(".")[:-2]
    return tuple(Package(".".join([*parents, name]), folder / name) for name in _OWN_PACKAGES)


@cache
def import_closure(module: str, packages: tuple[Package, ...]) -> tuple[str, ...]:
    """Returns sorted names of `module` and of all modules of `packages` that it imports, directly or through others.

    Imports inside functions count. Every string that is the full name of a module counts too, because a module that is
    chosen while a step runs is named by such a string. Imports for the type checker also count: they name the classes
    of objects that a caller passes in, whose code runs too.
    """
    found: set[str] = set()
    pending = [module]
    while pending:
        name = pending.pop()
        if name not in found and _file_of(name, packages) is not None:
            found.add(name)
            pending.extend(_imported_by(name, packages))
    return tuple(sorted(found))


@cache
def closure_digest(module: str, packages: tuple[Package, ...]) -> str:
    """Returns the SHA-256 over the names and source text of all modules in the import closure of `module`."""
    digest = hashlib.sha256()
    for name in import_closure(module, packages):
        digest.update(f"{name}\0{_source_sha256(name, packages)}\0".encode())
    return digest.hexdigest()


@cache
def _file_of(module: str, packages: tuple[Package, ...]) -> Path | None:
    return next((file for package in packages if (file := package.file_of(module)) is not None), None)


def _source(module: str, packages: tuple[Package, ...]) -> bytes:
    file = _file_of(module, packages)
    return b"" if file is None else file.read_bytes()


@cache
def _source_sha256(module: str, packages: tuple[Package, ...]) -> str:
    return hashlib.sha256(_source(module, packages)).hexdigest()


@cache
def _imported_by(module: str, packages: tuple[Package, ...]) -> frozenset[str]:
    """Returns names that one module imports, with the packages around them, because importing runs those first."""
    file = _file_of(module, packages)
    is_package = file is not None and file.name == "__init__.py"
    source = _source(module, packages)
    names = {name for node in _import_statements(source) for name in _names_in(node, module, is_package)}
    names.update(name.decode() for name in _QUOTED_NAME.findall(source))
    known = {name for name in names if _file_of(name, packages) is not None}
    return frozenset(parent for name in (module, *known) for parent in _with_parents(name))


def _with_parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    return (".".join(parts[:count]) for count in range(1, len(parts) + 1))


def _import_statements(source: bytes) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yields all imports, also inside functions; parsing only these lines takes a tenth of parsing the file."""
    try:
        tree = ast.parse(b"\n".join(_IMPORT.findall(source)))
    except SyntaxError:  # a line of prose begins like an import, or an import runs over several lines
        tree = ast.parse(source)
    return (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _names_in(node: ast.Import | ast.ImportFrom, module: str, is_package: bool) -> Iterator[str]:
    """Yields the names that one statement imports; some are functions or classes, not modules."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        source = _absolute(node, module, is_package)
        yield source
        yield from (f"{source}.{alias.name}" for alias in node.names)


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    """Returns the module that `from … import` names, with leading dots resolved."""
    if node.level == 0:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*kept, *([node.module] if node.module else [])])
