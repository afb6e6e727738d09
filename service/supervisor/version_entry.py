"""One version and its instances, as the supervisor keeps them. Promises: a version's state is derived, never set."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from saccade.service.core import VersionState
from saccade.service.repository.open import FoundVersion
from saccade.service.repository.verify import VerifiedVersion

LOADS_ON_REQUEST = "loads on first request"
_BY_PROGRESS = (VersionState.READY, VersionState.WARMING, VersionState.LOADING, VersionState.BUILDING)
_ON_THE_WAY = _BY_PROGRESS[1:]


def version_state(states: Collection[VersionState]) -> VersionState:
    """State of a version with instances in these states: that of the one furthest on its way.

    Ready if any is ready, else warming, loading, building in this order; failed if all that are to stay have failed,
    unloading if all are.
    """
    for state in _BY_PROGRESS:
        if state in states:
            return state
    return VersionState.FAILED if VersionState.FAILED in states else VersionState.UNLOADING


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """What an instance is to be: a variant, opened by a backend, on a device."""

    device: str
    variant: str
    backend: str
    plan_dir: str = ""  # of a TensorRT plan
    plan_sha256: str = ""
    file_bytes: int = 0  # of what the backend opens; its memory is estimated from them until it was measured
    ladder_level: int = 0  # of the ladder; what is above 0 answers only when time is short


@dataclass(slots=True)
class Instance:
    """What is known of one instance; `instance_id` 0 means it is not on the worker."""

    spec: InstanceSpec
    state: VersionState = VersionState.LOADING
    reason: str = ""
    instance_id: int = 0
    provider: str = ""
    memory_bytes: int = 0  # measured by its worker; 0 until it is ready
    decodes_jpegs: bool = False  # its worker does
    load_seconds: float = 0.0  # from the order to load until it was warm
    load_crashes: int = 0
    unload_generation: int | None = None
    is_placed: bool = False  # its device has room for it, and keeps it
    lacks_room: bool = False  # failed for want of it

    def fail(self, reason: str) -> None:
        self.state = VersionState.FAILED
        self.reason = reason
        self.instance_id = 0

    def start_over(self) -> None:
        """Its worker is gone."""
        self.state = VersionState.LOADING
        self.instance_id = 0
        self.memory_bytes = 0


@dataclass(slots=True)
class VersionEntry:
    """What is known of one version."""

    found: FoundVersion
    refusal: str = ""  # why no device is asked to load it
    verified: VerifiedVersion | None = None
    manifest_sha256: str = ""
    allowed_batch_sizes: tuple[int, ...] = (1,)
    instances: list[Instance] = field(default_factory=list)
    on_demand: bool = False  # requests load it, and it leaves when others need its place
    is_unloaded: bool = False  # nothing of it is loaded, or stays loaded, until it is asked for
    load_seconds: float = 0.0  # of its last load, kept while it rests

    @property
    def state(self) -> VersionState:
        if self.refusal:
            return VersionState.FAILED
        if not self.instances:
            return VersionState.LOADING  # still to be verified
        return version_state([instance.state for instance in self.instances])

    @property
    def has_no_load_pending(self) -> bool:
        """No instance is on its way to ready."""
        return self.state in (VersionState.READY, VersionState.FAILED) and not any(
            instance.state in _ON_THE_WAY for instance in self.instances
        )

    @property
    def reason(self) -> str:
        """Why it is not ready; which device says what only where they differ."""
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
        """Of the first instance that is ready, else of the first; the best level counts."""
        by_rung = sorted(self.instances, key=lambda instance: instance.spec.ladder_level)
        ready = [instance for instance in by_rung if instance.state is VersionState.READY]
        return next((instance.spec.variant for instance in (*ready, *by_rung)), "")
