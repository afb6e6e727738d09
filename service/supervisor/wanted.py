"""Decides which versions to load and unload; older versions stay loaded until newer ones are ready."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from saccade.service.core import VersionKey, VersionState
from saccade.service.repository.open import Fingerprint, FoundVersion
from saccade.service.supervisor.policy import FOLLOW, ServingPolicy

_NO_POLICIES: Mapping[str, ServingPolicy] = {}
_READY = VersionState.READY


@dataclass(frozen=True, slots=True)
class KnownVersion:
    """The state of a version that the server has tried to load."""

    state: VersionState
    fingerprint: Fingerprint
    may_recover: bool = False  # it failed, and is tried again when memory is free or a plan is there


@dataclass(frozen=True, slots=True)
class RepositoryPlan:
    load: tuple[FoundVersion, ...]
    unload: tuple[VersionKey, ...]
    forget: tuple[VersionKey, ...]  # failed versions that were removed, or will be tried again
    missing: tuple[VersionKey, ...] = ()  # versions that stay loaded although their directories are gone
    wanted: frozenset[VersionKey] = frozenset()  # versions of which every instance is to be loaded


def plan_versions(
    found: Iterable[FoundVersion],
    known: Mapping[VersionKey, KnownVersion],
    versions_per_model: int,
    policies: Mapping[str, ServingPolicy] = _NO_POLICIES,
    kept: Collection[VersionKey] = (),
) -> RepositoryPlan:
    """Keeps the versions of each model that its policy names, or else its newest `versions_per_model` that do not fail.

    A failed version does not count, so the version before it still serves; it is tried again when its files change. An
    older version is unloaded only once `versions_per_model` newer ones, or the one that is held, are ready, and not
    while it is in `kept`. A named version stays loaded when its directory is removed, and so does every version when
    the whole repository is found empty.
    """
    load: list[FoundVersion] = []
    unload: list[VersionKey] = []
    forget: list[VersionKey] = []
    missing: list[VersionKey] = []
    wanted: set[VersionKey] = set()
    by_model: dict[str, list[FoundVersion]] = {}
    for version in found:
        by_model.setdefault(version.key.model, []).append(version)
    present = {version.key for versions in by_model.values() for version in versions}
    for key, entry in known.items():
        if key in present:
            continue
        if entry.state is VersionState.FAILED:
            forget.append(key)
        elif not present or key.version in policies.get(key.model, FOLLOW).named:
            missing.append(key)
        else:
            unload.append(key)
    for model, versions in by_model.items():
        policy = policies.get(model, FOLLOW)
        held = known.get(VersionKey(model, policy.stable or 0))
        follows = policy.stable is None and not policy.is_blocked
        count = 0
        ready = 0
        for version in sorted(versions, key=lambda item: -item.key.version):
            tried = known.get(version.key)
            is_named = version.key.version in policy.named
            is_counted = follows and count < versions_per_model
            if tried is not None and tried.state is VersionState.FAILED:
                if tried.fingerprint == version.fingerprint:
                    if tried.may_recover and (is_counted or is_named):
                        wanted.add(version.key)
                    continue
                forget.append(version.key)
                tried = None
            is_replaced = ready >= versions_per_model if follows else held is not None and held.state is _READY
            count += is_counted
            ready += is_counted and tried is not None and tried.state is _READY
            if is_counted or is_named:
                wanted.add(version.key)
                if tried is None:
                    load.append(version)
            elif tried is not None and is_replaced and version.key not in kept:
                unload.append(version.key)
    return RepositoryPlan(tuple(load), tuple(unload), tuple(forget), tuple(missing), frozenset(wanted))
