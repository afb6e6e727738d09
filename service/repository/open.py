"""Lists a model repository: reads names only, ignores what is not a version, never writes."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from saccade.service.core import VersionKey
from saccade.service.errors import RepositoryError


@dataclass(frozen=True, slots=True)
class FoundVersion:
    """A version directory and a fingerprint that changes when any of its files does."""

    key: VersionKey
    path: Path
    fingerprint: tuple[tuple[str, int, int], ...]  # (name, size in bytes, mtime in ns) of each file


def list_versions(repository: Path) -> list[FoundVersion]:
    """All `<model>/<integer>/` directories. Names that start with a dot are work in progress or samples.

    Raises RepositoryError when the repository cannot be read.
    """
    try:
        models = sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith("."))
        return [found for model in models for found in _versions_of(model)]
    except OSError as error:
        raise RepositoryError(
            f"cannot read the model repository {repository}: {error.strerror}; "
            "publish with `saccade-export run RECIPE.yaml --repository DIR` or set SACCADE_REPOSITORY"
        ) from error


def newest_versions(repository: Path) -> list[FoundVersion]:
    """The newest version of every model. Raises as `list_versions` does."""
    return list({found.key.model: found for found in list_versions(repository)}.values())


def _versions_of(model_dir: Path) -> list[FoundVersion]:
    try:
        paths = list(model_dir.iterdir())
    except (PermissionError, FileNotFoundError):  # a volume's lost+found, or a model that was just removed
        return []
    found = []
    for path in paths:
        if path.name.isascii() and path.name.isdigit() and str(int(path.name)) == path.name and path.is_dir():
            key = VersionKey(model_dir.name, int(path.name))
            with suppress(FileNotFoundError):  # the file was just removed; the next listing will not see it
                found.append(FoundVersion(key, path, _fingerprint(path)))
    return sorted(found, key=lambda version: version.key.version)


def _fingerprint(path: Path) -> tuple[tuple[str, int, int], ...]:
    entries = []
    for file in sorted(path.rglob("*")):
        try:
            stat = file.stat()
        except FileNotFoundError:  # the version is being replaced; the next listing sees the result
            continue
        entries.append((str(file.relative_to(path)), stat.st_size, stat.st_mtime_ns))
    return tuple(entries)
