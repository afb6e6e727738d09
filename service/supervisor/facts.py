"""All that the supervisor's decisions depend on, at one moment; `observed.py` and `reconciler.py` put it together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from saccade.service.core import VersionKey
from saccade.service.device_names import device_kind
from saccade.service.ipc.messages import DeviceFacts, Usage
from saccade.service.repository.open import FoundVersion
from saccade.service.supervisor.engines.plan_decision import PlanDecision
from saccade.service.supervisor.policy import ServingPolicy
from saccade.service.supervisor.state import InstanceState, Slot, Verified, Version


class MemoryKey(NamedTuple):
    """What determines the memory of an instance; all devices of one kind in a machine are treated as equal."""

    kind: str
    manifest_sha256: str
    variant: str
    backend: str
    plan_dir: str
    batch_sizes: tuple[int, ...]


def memory_key(slot: Slot, verified: Verified) -> MemoryKey:
    spec = slot.spec
    digest = verified.version.manifest_sha256
    return MemoryKey(device_kind(spec.device), digest, spec.variant, spec.backend, spec.plan_dir, verified.batch_sizes)


@dataclass(frozen=True, slots=True)
class Facts:
    found: Sequence[FoundVersion]  # in the repository
    policies: Mapping[str, ServingPolicy]  # by model; a model without one follows its newest version
    kept: Collection[VersionKey]  # versions that were stable a short while ago
    plans: Mapping[tuple[VersionKey, str], PlanDecision | str]  # by device; str: why TensorRT never serves it there
    versions: Mapping[VersionKey, Version]
    instances: Mapping[Slot, InstanceState]
    devices: Mapping[str, DeviceFacts]  # devices whose worker has reported
    lost: frozenset[str]  # devices whose worker ended before it reported
    measured: Mapping[MemoryKey, int]
    usages: Mapping[VersionKey, tuple[Usage, ...]]  # of every API process
    now_s: float
    by_version: Mapping[VersionKey, Mapping[Slot, InstanceState]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "by_version", instances_by_version(self.instances))

    def of(self, key: VersionKey) -> Mapping[Slot, InstanceState]:
        """Returns the instances of a version."""
        return self.by_version.get(key, {})


def instances_by_version(instances: Mapping[Slot, InstanceState]) -> dict[VersionKey, dict[Slot, InstanceState]]:
    found: dict[VersionKey, dict[Slot, InstanceState]] = {}
    for slot, state in instances.items():
        found.setdefault(slot.key, {})[slot] = state
    return found
