"""The state of versions and of their instances: one frozen type each, which holds only what is true in that state.

An instance is named by its slot, which variant of which version on which device; a slot is never held twice. It goes
Building or Waiting, Placed, Loading, Ready, Leaving. NoRoom is tried again whenever memory changes, Failed never is.
The state of a version follows from its check and from its instances, unless it is quarantined.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from saccade.service.core import VersionKey, VersionState
from saccade.service.ipc.messages import EngineStatus, InstanceStatus, SpeedStatus, VersionStatus
from saccade.service.repository.open import Fingerprint, FoundVersion
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.supervisor.placement.specs import InstanceSpec, Specs

LOADS_ON_REQUEST = "loads on first request"
_ASKED_FOR = "it is loaded again when a newer desired state names it (`saccade rollout`), or at a restart"
_BY_PROGRESS = (VersionState.READY, VersionState.WARMING, VersionState.LOADING, VersionState.BUILDING)


@dataclass(frozen=True, slots=True)
class Slot:
    key: VersionKey
    spec: InstanceSpec

    @property
    def device(self) -> str:
        return self.spec.device

    @property
    def level(self) -> int:
        return self.spec.ladder_level


@dataclass(frozen=True, slots=True)
class Building:
    """Waits for a TensorRT plan."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Waits for a place on its device, which is not known yet, or where room is being made."""


@dataclass(frozen=True, slots=True)
class NoRoom:
    reason: str


@dataclass(frozen=True, slots=True)
class Failed:
    reason: str


@dataclass(frozen=True, slots=True)
class Placed:
    """Memory is reserved, and the worker has not been told to load it yet."""

    was_ready: bool = False  # before its worker ended


@dataclass(frozen=True, slots=True)
class Loading:
    instance_id: int
    was_ready: bool = False  # before its worker ended
    is_warming: bool = False


@dataclass(frozen=True, slots=True)
class Ready:
    instance_id: int
    provider: str = ""
    memory_bytes: int = 0  # measured by its worker
    decodes_jpegs: bool = False
    gives: int = 0  # mask of its extra outputs


@dataclass(frozen=True, slots=True)
class Leaving:
    """Gets no requests from catalog `generation` on; the worker is told once no process uses an older catalog."""

    instance_id: int
    memory_bytes: int
    generation: int
    is_told: bool = False


OffWorker = Building | Waiting | NoRoom | Failed
Staying = Placed | Loading | Ready
Held = Placed | Loading | Ready | Leaving
"""The states in which an instance holds memory of its device."""
InstanceState = OffWorker | Held


@dataclass(frozen=True, slots=True)
class Unverified:
    pass


@dataclass(frozen=True, slots=True)
class Refused:
    reason: str


@dataclass(frozen=True, slots=True)
class Verified:
    version: VerifiedVersion
    batch_sizes: tuple[int, ...]
    specs: Specs  # its instances on devices without TensorRT
    on_demand: bool = False  # its first request loads it, and it is unloaded when others need its memory
    is_asleep: bool = False  # unloaded until a request asks for it
    turn: int = 0  # the order in which sleeping versions were woken
    ready_s: float | None = None  # when its first instance was ready; None while none is
    load_seconds: float = 0.0  # duration of its last load, kept while it sleeps
    choice: str = ""  # why its variant serves, where others could


@dataclass(frozen=True, slots=True)
class Quarantine:
    reason: str
    generation: int = 0  # of the desired state that ruled; a newer one that names the version ends the quarantine


@dataclass(frozen=True, slots=True)
class Version:
    found: FoundVersion
    check: Unverified | Refused | Verified = Unverified()
    quarantine: Quarantine | None = None
    notice: str = ""  # what happened to its files while it is loaded
    seen: Fingerprint | None = None  # the files at the last look, where they differ from `found`

    @property
    def verified(self) -> Verified | None:
        return self.check if isinstance(self.check, Verified) else None

    @property
    def is_asleep(self) -> bool:
        return isinstance(self.check, Verified) and self.check.is_asleep


Instances = Mapping[Slot, InstanceState]


def instance_state(state: InstanceState) -> VersionState:
    match state:
        case Building():
            return VersionState.BUILDING
        case Waiting() | Placed():
            return VersionState.LOADING
        case Loading():
            return VersionState.WARMING if state.is_warming else VersionState.LOADING
        case Ready():
            return VersionState.READY
        case Leaving():
            return VersionState.UNLOADING
        case NoRoom() | Failed():
            return VersionState.FAILED


def version_state(version: Version, states: Collection[InstanceState]) -> VersionState:
    """Returns the state of a version: quarantined, or that of the instance nearest to ready.

    It is the first of ready, warming, loading and building that any instance has. Without such an instance the version
    has failed if any has failed, and is otherwise unloading. It is loading while no instance is known.
    """
    if version.quarantine is not None:
        return VersionState.QUARANTINED
    if isinstance(version.check, Refused):
        return VersionState.FAILED
    shown = {instance_state(state) for state in states}
    for state in _BY_PROGRESS:
        if state in shown:
            return state
    if not shown:
        return VersionState.LOADING
    return VersionState.FAILED if VersionState.FAILED in shown else VersionState.UNLOADING


def is_settled(version: Version, states: Collection[InstanceState]) -> bool:
    """Returns whether a version is ready or has failed, and no instance is still on its way."""
    on_the_way = any(isinstance(state, Building | Waiting | Placed | Loading) for state in states)
    return not on_the_way and version_state(version, states) in (VersionState.READY, VersionState.FAILED)


def may_recover(version: Version, states: Collection[InstanceState], *, is_decided: bool) -> bool:
    """Returns whether a version that failed is tried again by itself: when memory is free, or a plan is there.

    `is_decided` tells that TensorRT can serve it on some device.
    """
    waits = is_decided or any(isinstance(state, NoRoom) for state in states)
    return waits and version.verified is not None and version.quarantine is None


def version_status(
    key: VersionKey, version: Version, instances: Instances, engines: tuple[EngineStatus, ...]
) -> VersionStatus:
    """Returns what a catalog says about a version; `instances` are its own."""
    verified = version.verified
    by_level = sorted(instances.items(), key=lambda item: (not isinstance(item[1], Ready), item[0].level))
    return VersionStatus(
        key.model,
        key.version,
        str(version.found.path),
        verified.version.manifest_sha256 if verified else "",
        version_state(version, instances.values()).value,
        _reason(version, instances),
        by_level[0][0].spec.variant if by_level else "",
        tuple(_instance_status(slot, state) for slot, state in instances.items()),
        engines,
        verified.on_demand if verified else False,
        verified.load_seconds if verified else 0.0,
        verified.choice if verified else "",
        _speeds(verified.version) if verified else (),
        (verified.version.signed_by or "unsigned") if verified else "",
        version.notice,
    )


def _speeds(version: VerifiedVersion) -> tuple[SpeedStatus, ...]:
    return tuple(
        SpeedStatus(
            variant.name,
            pair.against,
            pair.ratio,
            pair.ci_low,
            pair.ci_high,
            pair.confidence,
            pair.rounds,
            pair.text,
            version.is_compared_here,
        )
        for variant in version.manifest.accepted_variants()
        for pair in variant.paired_speeds
    )


def _reason(version: Version, instances: Instances) -> str:
    """The reason why a version is not ready; devices are named only where their reasons differ."""
    if version.quarantine is not None:
        return f"{version.quarantine.reason}; {_ASKED_FOR}"
    if isinstance(version.check, Refused):
        return version.check.reason
    if version.is_asleep:
        return LOADS_ON_REQUEST
    if version_state(version, instances.values()) is not VersionState.FAILED:
        return ""
    reasons = {
        slot.device: _with_failed(version, slot, state.reason)
        for slot, state in instances.items()
        if isinstance(state, NoRoom | Failed)
    }
    if len({*reasons.values()}) == 1:
        return next(iter(reasons.values()))
    return "; ".join(f"{device}: {reason}" for device, reason in reasons.items())


def _with_failed(version: Version, slot: Slot, reason: str) -> str:
    """The reason, after those of the variants that were tried on the device before."""
    before = version.verified.specs.failed.get(slot.device, {}) if version.verified else {}
    if not before:
        return reason
    return "; ".join(f"{name}: {why}" for name, why in {**before, slot.spec.variant: reason}.items())


def _instance_status(slot: Slot, state: InstanceState) -> InstanceStatus:
    spec, ready = slot.spec, state if isinstance(state, Ready) else None
    return InstanceStatus(
        spec.device,
        state.instance_id if isinstance(state, Loading | Ready | Leaving) else 0,
        instance_state(state).value,
        state.reason if isinstance(state, NoRoom | Failed) else "",
        spec.variant,
        spec.backend,
        ready.provider if ready else "",
        ready.decodes_jpegs if ready else False,
        spec.ladder_level,
        ready.gives if ready else 0,
    )
