"""One version and its instances in the supervisor's table; a version's state is derived from its instances."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from saccade.service.core import VersionState
from saccade.service.repository.open import Fingerprint, FoundVersion
from saccade.service.repository.verify import VerifiedVersion

LOADS_ON_REQUEST = "loads on first request"
_BY_PROGRESS = (VersionState.READY, VersionState.WARMING, VersionState.LOADING, VersionState.BUILDING)
_ON_THE_WAY = _BY_PROGRESS[1:]


def version_state(states: Collection[VersionState]) -> VersionState:
    """Returns the state of a version from those of its instances: that of the instance nearest to ready.

    It is the first of ready, warming, loading and building that any instance has. Without such an instance the version
    has failed if any has failed, and is otherwise unloading.
    """
    for state in _BY_PROGRESS:
        if state in states:
            return state
    return VersionState.FAILED if VersionState.FAILED in states else VersionState.UNLOADING


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """Which variant an instance runs, by which backend, on which device."""

    device: str
    variant: str
    backend: str
    plan_dir: str = ""  # folder of a TensorRT plan
    plan_sha256: str = ""
    file_bytes: int = 0  # size of the files that the backend opens; memory is estimated from it until it is measured
    ladder_level: int = 0  # 0 is the best variant; instances of higher levels answer only under load


@dataclass(slots=True)
class Instance:
    """The state of one instance; `instance_id` is 0 while it is not on its worker."""

    spec: InstanceSpec
    state: VersionState = VersionState.LOADING
    reason: str = ""
    instance_id: int = 0
    provider: str = ""
    memory_bytes: int = 0  # measured by its worker; 0 until the instance is ready
    decodes_jpegs: bool = False  # whether its worker decodes JPEGs for it
    load_seconds: float = 0.0  # from the order to load until the instance was warm
    load_crashes: int = 0
    unload_generation: int | None = None
    is_placed: bool = False  # memory of its device is reserved for it
    lacks_room: bool = False  # it failed because its device has too little memory

    def fail(self, reason: str) -> None:
        self.state = VersionState.FAILED
        self.reason = reason
        self.instance_id = 0

    def start_over(self) -> None:
        """Returns to loading, because its worker died."""
        self.state = VersionState.LOADING
        self.instance_id = 0
        self.memory_bytes = 0


@dataclass(slots=True)
class VersionEntry:
    """The state of one version."""

    found: FoundVersion
    refusal: str = ""  # reason why no device may load it
    verified: VerifiedVersion | None = None
    manifest_sha256: str = ""
    allowed_batch_sizes: tuple[int, ...] = (1,)
    instances: list[Instance] = field(default_factory=list)
    on_demand: bool = False  # its first request loads it, and it is unloaded when others need its memory
    is_unloaded: bool = False  # all its instances are unloaded, or being unloaded, until a request asks for it
    load_seconds: float = 0.0  # duration of its last load, kept while it is unloaded
    notice: str = ""  # what happened to its files while it is loaded
    seen: Fingerprint | None = None  # the files at the last look, where they differ from `found`

    @property
    def state(self) -> VersionState:
        if self.refusal:
            return VersionState.FAILED
        if not self.instances:
            return VersionState.LOADING  # the version is not verified yet
        return version_state([instance.state for instance in self.instances])

    @property
    def has_no_load_pending(self) -> bool:
        """Whether the version is ready or has failed, and no instance is still being built or loaded."""
        return self.state in (VersionState.READY, VersionState.FAILED) and not any(
            instance.state in _ON_THE_WAY for instance in self.instances
        )

    @property
    def reason(self) -> str:
        """The reason why the version is not ready; devices are named only where their reasons differ."""
        if self.is_unloaded and not self.refusal:
            return LOADS_ON_REQUEST
        if self.refusal or self.state is not VersionState.FAILED:
            return self.refusal
        failed = [instance for instance in self.instances if instance.state is VersionState.FAILED]
        if len({instance.reason for instance in failed}) == 1:
            return failed[0].reason
        return "; ".join(f"{instance.spec.device}: {instance.reason}" for instance in failed)

    @property
    def variant(self) -> str:
        """The variant of the best ready instance, or of the best one when none is ready."""
        by_rung = sorted(self.instances, key=lambda instance: instance.spec.ladder_level)
        ready = [instance for instance in by_rung if instance.state is VersionState.READY]
        return next((instance.spec.variant for instance in (*ready, *by_rung)), "")
