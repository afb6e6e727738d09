"""Lists a model repository: reads names only, ignores what is not a version, never writes."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from saccade.models.contract.manifest import MAX_VERSION
from saccade.service.core import VersionKey
from saccade.service.errors import RepositoryError

Fingerprint = tuple[tuple[str, int, int], ...]
"""Name, size in bytes and mtime in ns of each file of a directory."""


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """A version directory and a fingerprint that changes when any of its files does."""

    key: VersionKey
    path: Path
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class RefusedDirectory:
    """A directory that is named like a version, and cannot be one."""

    model: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Listing:
    versions: tuple[FoundVersion, ...] = ()
    refused: tuple[RefusedDirectory, ...] = ()

    def of(self, model: str) -> list[int]:
        """Returns the numbers of a model's versions, ascending."""
        return [found.key.version for found in self.versions if found.key.model == model]


def list_versions(repository: Path) -> list[FoundVersion]:
    """All `<model>/<integer>/` directories that can be versions. Raises as `list_repository` does."""
    return list(list_repository(repository).versions)


def list_repository(repository: Path) -> Listing:
    """All `<model>/<integer>/` directories. Names that start with a dot are work in progress or samples.

    Raises RepositoryError when the repository cannot be read.
    """
    try:
        models = sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))
        found = [each for model in models for each in _versions_of(model)]
        return Listing(
            tuple(each for each in found if isinstance(each, FoundVersion)),
            tuple(each for each in found if isinstance(each, RefusedDirectory)),
        )
    except OSError as error:
        raise RepositoryError(
            f"cannot read the model repository {repository}: {error.strerror}; "
            "publish with `saccade-export run RECIPE.yaml --repository DIR` or set SACCADE_REPOSITORY"
        ) from error


def newest_versions(repository: Path) -> list[FoundVersion]:
    """The newest version of every model. Raises as `list_versions` does."""
    return list({found.key.model: found for found in list_versions(repository)}.values())


def _versions_of(model_dir: Path) -> list[FoundVersion | RefusedDirectory]:
    try:
        paths = [path for path in model_dir.iterdir() if _is_number(path.name) and path.is_dir()]
    except (PermissionError, FileNotFoundError):  # a volume's lost+found, or a model that was just removed
        return []
    found: list[FoundVersion | RefusedDirectory] = []
    shown = os.fsencode(model_dir.name).decode("utf-8", "backslashreplace")
    for path in sorted(paths, key=lambda path: int(path.name)):
        number = int(path.name)
        if shown != model_dir.name:
            found.append(RefusedDirectory(shown, path.name, "the model's name is not UTF-8; rename its directory"))
            continue
        if number > MAX_VERSION:
            reason = f"a version is a number up to {MAX_VERSION}; publish it under a smaller one"
            found.append(RefusedDirectory(model_dir.name, path.name, reason))
            continue
        with suppress(FileNotFoundError):  # the file was just removed; the next listing will not see it
            found.append(FoundVersion(VersionKey(model_dir.name, number), path, _fingerprint(path)))
    return found


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and str(int(name)) == name


def _fingerprint(path: Path) -> Fingerprint:
    entries = []
    for file in sorted(path.rglob("*")):
        try:
            stat = file.stat()
        except OSError:  # the version is being replaced, or this is a loop of links, which verifying refuses by name
            continue
        entries.append((str(file.relative_to(path)), stat.st_size, stat.st_mtime_ns))
    return tuple(entries)
