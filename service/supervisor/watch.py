"""Decides which versions to load and unload; older versions stay loaded until newer ones are ready."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from saccade.service.core import VersionKey, VersionState
from saccade.service.repository.open import Fingerprint, FoundVersion

_NO_PINS: Mapping[str, int] = {}


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """The state of a version that the server has tried to load."""

    state: VersionState
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class RepositoryPlan:
    load: tuple[FoundVersion, ...]
    unload: tuple[VersionKey, ...]
    forget: tuple[VersionKey, ...]  # failed versions that were removed, or will be tried again
    missing: tuple[VersionKey, ...] = ()  # versions that stay loaded although their directories are gone


def plan_versions(
    found: Iterable[FoundVersion],
    known: Mapping[VersionKey, KnownVersion],
    versions_per_model: int,
    pins: Mapping[str, int] = _NO_PINS,
) -> RepositoryPlan:
    """Keeps the newest `versions_per_model` versions of each model that do not fail, or its pinned version alone.

    A failed version does not count, so the version before it still serves; it is tried again when its files change. An
    older version is unloaded only once `versions_per_model` newer ones are ready. A pinned version stays loaded when
    its directory is removed, and so does every version when the whole repository is found empty.
    """
    load: list[FoundVersion] = []
    unload: list[VersionKey] = []
    forget: list[VersionKey] = []
    missing: list[VersionKey] = []
    by_model: dict[str, list[FoundVersion]] = {}
    for version in found:
        by_model.setdefault(version.key.model, []).append(version)
    present = {version.key for versions in by_model.values() for version in versions}
    for key, entry in known.items():
        if key in present:
            continue
        if entry.state is VersionState.FAILED:
            forget.append(key)
        elif not present or pins.get(key.model) == key.version:
            missing.append(key)
        else:
            unload.append(key)
    for model, versions in by_model.items():
        wanted = 0
        ready = 0
        allowed = [item for item in versions if pins.get(model, item.key.version) == item.key.version]
        for version in sorted(allowed, key=lambda item: -item.key.version):
            tried = known.get(version.key)
            if tried is not None and tried.state is VersionState.FAILED:
                if tried.fingerprint == version.fingerprint:
                    continue
                forget.append(version.key)
                tried = None
            if wanted < versions_per_model:
                wanted += 1
                if tried is None:
                    load.append(version)
                elif tried.state is VersionState.READY:
                    ready += 1
            elif tried is not None and ready >= versions_per_model:
                unload.append(version.key)
    leaving = tuple(key for key in unload if known[key].state is not VersionState.UNLOADING)
    return RepositoryPlan(tuple(load), leaving, tuple(forget), tuple(missing))
