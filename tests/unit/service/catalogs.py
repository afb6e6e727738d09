"""Builds catalogs as the supervisor would send them. Promises: real messages, real manifests."""

from __future__ import annotations

from models.manifest import Manifest
from service.core import VersionKey
from service.workers.messages import Catalog, DeviceStatus, VersionStatus
from tests.support.versions import manifest_for

WORKER_UP = DeviceStatus("cpu", True, 0, "/run/worker.sock")


def status(version: int, state: str = "ready", *, model: str = "digits", reason: str = "") -> VersionStatus:
    """Instance numbers follow the version: version 3 is instance 30."""
    instance_id = version * 10 if state in ("ready", "warming", "unloading") else 0
    device = "cpu" if instance_id else ""
    return VersionStatus(model, version, f"{model}/{version}", "d" * 64, state, reason, "fp32", instance_id, device)


def catalog(*versions: VersionStatus, generation: int = 1, draining: bool = False) -> Catalog:
    return Catalog(generation, (WORKER_UP,), versions, draining)


def manifests_of(snapshot: Catalog) -> dict[VersionKey, Manifest]:
    return {VersionKey(item.model, item.version): manifest_for(item.model, item.version) for item in snapshot.versions}
