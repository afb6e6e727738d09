"""Builds catalogs as the supervisor would send them. Promises: real messages, real manifests."""

from __future__ import annotations

from saccade.models.contract.manifest import Manifest
from saccade.service.core import VersionKey
from saccade.service.ipc.messages import Catalog, DeviceStatus, InstanceStatus, ModelStatus, VersionStatus
from tests.support.versions import manifest_for

WORKER_UP = DeviceStatus("cpu", True, 0, "/run/worker.sock")


def status(version: int, state: str = "ready", *, model: str = "digits", reason: str = "") -> VersionStatus:
    """Instance numbers follow the version: version 3 is instance 30."""
    instance_id = version * 10 if state in ("ready", "warming", "unloading") else 0
    return version_of(model, version, instance("cpu", instance_id, state, reason=reason))


def instance(
    device: str, instance_id: int, state: str = "ready", *, variant: str = "fp32", reason: str = ""
) -> InstanceStatus:
    return InstanceStatus(device, instance_id, state, reason, variant, "fake", "FakeExecutionProvider")


def version_of(model: str, version: int, *instances: InstanceStatus) -> VersionStatus:
    """A version whose state is that of its first instance."""
    first = instances[0]
    folder = f"{model}/{version}"
    return VersionStatus(model, version, folder, "d" * 64, first.state, first.reason, first.variant, instances)


def catalog(
    *versions: VersionStatus,
    generation: int = 1,
    draining: bool = False,
    devices: tuple[DeviceStatus, ...] = (WORKER_UP,),
    models: tuple[ModelStatus, ...] = (),
) -> Catalog:
    return Catalog(generation, devices, versions, draining, models=models)


def manifests_of(snapshot: Catalog) -> dict[VersionKey, Manifest]:
    return {VersionKey(item.model, item.version): manifest_for(item.model, item.version) for item in snapshot.versions}
