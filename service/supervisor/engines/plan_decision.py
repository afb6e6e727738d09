"""Decides what a version runs on a GPU, given the plans that exist, are being built, or have failed.

The rules
1. A plan serves when it was made from the published bytes, by this runtime, for this GPU, and passed its gate on such
   a device. Of several, the one with the most measured images per second serves; with a ladder, those on its levels.
   The runtime is TensorRT, or ONNX Runtime where there is no TensorRT that can use the GPU.
2. Without such a plan, ONNX Runtime serves an accepted variant (`serve_while_building`), or nothing serves.
3. Plans that no gate has judged yet are built one after the other. A plan that its gate denied is not built again.
4. A plan that cannot be built is given up after MAX_ATTEMPTS attempts; the reason is shown, and serving goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.plans import PlanKey, PlanRecord, PlanRuntime
from saccade.service.backends.registry import backend_name
from saccade.service.errors import RepositoryError
from saccade.service.ipc.messages import DeviceFacts
from saccade.service.repository.variants import choose_variant
from saccade.service.supervisor.engines.candidates import plan_key_for, runtime_of
from saccade.service.supervisor.engines.plan_ladder import ladder_candidates, plan_levels

MAX_ATTEMPTS = 2  # a single failure may have a passing cause, such as memory that another process held


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A plan in the store: its record and its folder."""

    record: PlanRecord
    directory: str


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """All that the decision depends on."""

    manifest: Manifest
    wanted_variant: str  # "auto" or the name of a variant
    backend: Literal["auto", "tensorrt", "onnxruntime", "fake"]
    device: str
    facts: DeviceFacts
    stored: tuple[StoredRecord, ...]
    attempts: Mapping[str, int]  # number of failed builds by variant
    built_elsewhere: frozenset[str]  # folder names of plans that another server builds now
    may_build: bool
    serve_while_building: bool
    ladder: tuple[str, ...] | None = ()  # as in `ladder_for`


@dataclass(frozen=True, slots=True)
class Serving:
    """What a worker must load."""

    variant: str
    backend: str
    plan_dir: str = ""
    plan_sha256: str = ""
    file_bytes: int = 0  # size of the files that the backend opens
    images_per_s: float = 0.0  # measured speed of a plan at its best batch size; 0 without a plan


@dataclass(frozen=True, slots=True)
class MissingPlan:
    """A plan that must be built, here or by another server."""

    variant: str
    key: PlanKey
    is_built_elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class PlanDecision:
    """What to serve and what to build; `serve` is None when nothing may serve yet."""

    serve: Serving | None
    build: MissingPlan | None  # the first missing plan
    reason: str  # why TensorRT does not serve, in one line; empty when it does, or its plan is still to be built
    cheaper: tuple[Serving, ...] = ()  # ladder levels from 1 on


def decide(situation: PlanFacts) -> PlanDecision:
    """Decides what to serve and what to build. Raises RepositoryError when the version can never serve there."""
    if situation.backend == "fake" or situation.device.startswith("cpu"):
        return PlanDecision(_without_plan(situation), None, "")
    missing = _why_no_tensorrt(situation)
    if missing and situation.backend == "tensorrt":
        raise RepositoryError(f"SACCADE_BACKEND is tensorrt, but {missing}")
    runtime = runtime_of(situation.facts, missing)
    told = "" if situation.backend == "onnxruntime" else missing
    if runtime is None:
        return PlanDecision(_without_plan(situation), None, told)
    keys = {
        item.name: plan_key_for(situation.manifest, item, runtime, situation.facts)
        for item in ladder_candidates(situation.manifest, situation.wanted_variant, runtime, situation.ladder)
    }
    levels = _levels(situation, keys)
    build = _next_build(situation, keys)
    if levels:
        return PlanDecision(levels[0], build, told, levels[1:])
    reason = told if build is not None else "; ".join(filter(None, (told, _why_no_plan(situation, runtime, keys))))
    if build is not None and runtime != "onnxruntime" and not situation.serve_while_building:
        return PlanDecision(None, build, "")
    try:
        return PlanDecision(_without_plan(situation), build, reason)
    except RepositoryError as error:
        if build is not None:  # nothing serves until the plan is built
            return PlanDecision(None, build, told)
        raise RepositoryError(f"{error}; {reason}") from error


def serves(found: PlanKey, wanted: PlanKey) -> bool:
    """Returns whether a plan of the key `found` can serve for `wanted`; it may be built for further GPUs as well."""
    return (
        wanted.capabilities[0] in found.capabilities
        and found.model_copy(update={"capabilities": wanted.capabilities}) == wanted
    )


def is_judged(stored: Sequence[StoredRecord], missing: MissingPlan) -> bool:
    """Returns whether the store has the plan and its gate has judged it."""
    return _judged(stored, missing.variant, missing.key) is not None


def _without_plan(situation: PlanFacts) -> Serving:
    variant = choose_variant(situation.manifest, situation.device, situation.wanted_variant)
    backend = backend_name(variant, situation.backend)
    return Serving(variant.name, backend, file_bytes=situation.manifest.bytes_of(variant))


def _why_no_tensorrt(situation: PlanFacts) -> str:
    facts = situation.facts
    if situation.backend == "onnxruntime":
        return "SACCADE_BACKEND is onnxruntime"
    if not facts.tensorrt:
        return "no TensorRT is installed beside the server (extra `tensorrt` or `rtx`)"
    if not facts.compute_capability:
        problem = facts.problem or "it names no compute capability"
        return f"{situation.device} is no GPU that TensorRT can use: {problem}"
    if facts.tensorrt_problem:
        return facts.tensorrt_problem
    targets = (item for item in situation.manifest.targets if item.target == "tensorrt")
    refused = next((item for item in targets if not item.supported), None)
    return "" if refused is None else f"TensorRT does not take this network: {refused.reason}"


def _judged(stored: Sequence[StoredRecord], variant: str, key: PlanKey) -> StoredRecord | None:
    """Returns the stored plan of a variant that its gate has judged, an accepted one if there is any."""
    mine = [each for each in stored if each.record.variant == variant and serves(each.record.key, key)]
    judged = [each for each in mine if each.record.gate is not None and not each.record.gate.is_pending]
    return max(judged, key=lambda each: each.record.gate is not None and each.record.gate.accepted, default=None)


def _levels(situation: PlanFacts, keys: Mapping[str, PlanKey]) -> tuple[Serving, ...]:
    """Returns the accepted plans by ladder level; without a ladder only the fastest."""
    judged = [found for name, key in keys.items() if (found := _judged(situation.stored, name, key)) is not None]
    accepted = {
        each.record.variant: each for each in judged if each.record.gate is not None and each.record.gate.accepted
    }
    speeds = {name: _images_per_s(each) for name, each in accepted.items()}
    if situation.ladder == ():
        names: tuple[str, ...] = (max(speeds, key=lambda name: speeds[name]),) if speeds else ()
    else:
        names = plan_levels(speeds, situation.manifest, situation.wanted_variant, situation.ladder)
    return tuple(_serving(situation.manifest, accepted[name]) for name in names)


def _serving(manifest: Manifest, stored: StoredRecord) -> Serving:
    record, variant = stored.record, manifest.variant(stored.record.variant)
    assert variant is not None  # the keys are of the manifest's variants
    backend = record.key.backend
    file_bytes = record.plan_bytes if backend == "tensorrt" else manifest.bytes_of(variant)
    return Serving(variant.name, backend, stored.directory, record.plan_sha256, file_bytes, _images_per_s(stored))


def _images_per_s(stored: StoredRecord) -> float:
    return max((figure.images_per_s for figure in stored.record.latency), default=0.0)


def _next_build(situation: PlanFacts, keys: Mapping[str, PlanKey]) -> MissingPlan | None:
    if not situation.may_build:
        return None
    for name, key in keys.items():
        if situation.attempts.get(name, 0) < MAX_ATTEMPTS and _judged(situation.stored, name, key) is None:
            return MissingPlan(name, key, key.place in situation.built_elsewhere)
    return None


def _why_no_plan(situation: PlanFacts, runtime: PlanRuntime, keys: Mapping[str, PlanKey]) -> str:
    if not keys:
        known = ", ".join(item.name for item in situation.manifest.variants)
        name = "ONNX Runtime on a GPU" if runtime == "onnxruntime" else "TensorRT"
        return f"no variant for {name} among {known} with variant setting {situation.wanted_variant!r}"
    parts: list[str] = []
    for name, key in keys.items():
        found = _judged(situation.stored, name, key)
        if found is not None and found.record.gate is not None:
            failed = [check.name for check in found.record.gate.checks if not check.passed]
            parts.append(f"{name}: denied by {', '.join(failed)}")
        elif situation.attempts.get(name, 0) >= MAX_ATTEMPTS:
            parts.append(f"{name}: not built in {MAX_ATTEMPTS} attempts")
        else:
            parts.append(f"{name}: no plan for {key.place}, and SACCADE_BUILD_ENGINES is off")
    return "; ".join(parts)
