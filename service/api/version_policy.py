"""Which version answers a request that names none. Promises: pure; only ready versions; today the newest one."""

from __future__ import annotations

from collections.abc import Iterable

STABLE = "stable"


def default_version(ready_versions: Iterable[int]) -> int | None:
    """The newest ready version; None when there is none. Canary shares will decide here."""
    return max(ready_versions, default=None)


def labels_of(ready_versions: Iterable[int]) -> dict[str, int]:
    """Labels and the versions they name. `stable` is always the version that answers by default."""
    version = default_version(ready_versions)
    return {} if version is None else {STABLE: version}
