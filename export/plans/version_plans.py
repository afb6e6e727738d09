"""Builds the plans of a published version from its verified files and puts them into the store.

Nothing here opens a plan: its gate stays `None`, and it takes no traffic, until a device has settled it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from saccade.export.errors import DeviceError, RecipeError
from saccade.export.plans.precision_claim import PrecisionClaim, precision_claim
from saccade.export.plans.progress import BuildProgress
from saccade.export.plans.tensorrt_from_onnx import PlanReport, build_plan, refusal_text
from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.plans import PlanKey, PlanRecord, TensorRtName, plan_key
from saccade.service.errors import PlanRefused
from saccade.service.repository.plans import PlanStore, StoredPlan
from saccade.service.repository.variants import gate_state
from saccade.service.repository.verify import VerifiedVersion

_TARGETS = ("gpu", "trt", "any")
_NAMED_REFUSALS = 3
_MODULES: dict[str, TensorRtName] = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt_rtx"}


@dataclass(frozen=True, slots=True)
class BuiltPlan:
    """A plan in the store. `claim` is None when the plan was there already, or its layers cannot be counted."""

    stored: StoredPlan
    is_new: bool
    claim: PrecisionClaim | None = None


def buildable_variants(manifest: Manifest, asked: Sequence[str] = ()) -> tuple[Variant, ...]:
    """The variants that TensorRT takes and the gate did not deny. Raises RecipeError for one that cannot be built."""
    chosen = [_asked(manifest, name) for name in dict.fromkeys(asked)] or list(manifest.variants)
    problems = {variant.name: _problem(variant) for variant in chosen}
    refused = [f"{name} {problem}" for name, problem in problems.items() if problem]
    fitting = tuple(variant for variant in chosen if not problems[variant.name])
    if (asked and refused) or not fitting:
        raise RecipeError(f"no plan can be built for {manifest.model}/{manifest.version}: {'; '.join(refused)}")
    return fitting


def key_for(manifest: Manifest, variant: Variant, tensorrt: ModuleType, capability: str) -> PlanKey:
    """Returns the key that a server with this TensorRT on such a GPU looks for."""
    return plan_key(manifest, variant, _MODULES[tensorrt.__name__], str(tensorrt.__version__), (capability,))


def ensure_plan(
    version: VerifiedVersion,
    variant: Variant,
    tensorrt: ModuleType,
    capability: str,
    store: PlanStore,
    *,
    force: bool = False,
    progress: BuildProgress | None = None,
) -> BuiltPlan:
    """Returns the plan of one variant for one kind of GPU: the stored one, or a new one.

    `force` builds in place of a stored one. Raises DeviceError naming what TensorRT refuses, or when the file changed
    meanwhile; RepositoryError when the plan cannot be kept; BuildCancelled when `progress` ended it.
    """
    manifest = version.manifest
    key = key_for(manifest, variant, tensorrt, capability)
    found = None if force else usable_plan(store, manifest, variant.name, key)
    if found is not None:
        return BuiltPlan(found, is_new=False)
    file = version.path / variant.file
    made = build_plan(
        file,
        (capability,),
        manifest.allowed_batch_sizes,
        tensorrt.__name__,
        is_sparse="sparse_weights" in key.flags,
        timings=store.newest_timings(manifest.model, variant.name, key),
        progress=progress,
    )
    plan = _plan_of(made, manifest, variant, tensorrt)
    _ensure_unchanged(version.path, key, variant)
    claim = precision_claim(file, variant.precision, made.network)
    record = PlanRecord(
        model=manifest.model,
        version=manifest.version,
        variant=variant.name,
        key=key,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        plan_bytes=len(plan),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        build_seconds=round(made.seconds, 3),
        layers=made.layers,
        dtypes=dict(made.dtypes),
        warnings=(*_claim_warnings(claim), *made.warnings),
    )
    stored = store.put(record, plan, timing_cache=made.timings or None, replace=force)
    return BuiltPlan(stored, is_new=True, claim=claim)


def _asked(manifest: Manifest, name: str) -> Variant:
    variant = manifest.variant(name)
    if variant is None:
        known = ", ".join(each.name for each in manifest.variants)
        raise RecipeError(f"{manifest.model}/{manifest.version} has no variant {name!r}; it has {known}")
    return variant


def _problem(variant: Variant) -> str:
    if variant.target not in _TARGETS:
        return f"is for {variant.target}, not for TensorRT"
    return "was denied by its gate" if gate_state(variant) == "denied" else ""


def usable_plan(store: PlanStore, manifest: Manifest, variant: str, key: PlanKey) -> StoredPlan | None:
    """Returns a stored plan whose bytes match its record; a damaged one is built again in its place."""
    try:
        found = store.find(manifest.model, manifest.version, variant, key)
        if found is not None:
            store.read_plan(found)
    except PlanRefused:
        return None
    return found


def _plan_of(made: PlanReport, manifest: Manifest, variant: Variant, tensorrt: ModuleType) -> bytes:
    """Returns the plan's bytes. Raises DeviceError naming node and layer of what stopped the build."""
    name = f"{manifest.model}/{manifest.version} {variant.name}"
    if made.plan is None:
        told = [refusal_text(error) for error in made.errors[:_NAMED_REFUSALS]]
        raise DeviceError(f"{tensorrt.__name__} {tensorrt.__version__} builds no plan of {name}: {'; '.join(told)}")
    smallest, _, largest = made.batches
    lacking = [size for size in manifest.allowed_batch_sizes if not smallest <= size <= largest]
    if lacking:
        raise DeviceError(
            f"the graph of {name} takes batches of {smallest} to {largest} only, its manifest allows {lacking}: "
            "publish the version again"
        )
    return made.plan


def _ensure_unchanged(directory: Path, key: PlanKey, variant: Variant) -> None:
    """Raises DeviceError when files changed between their verification and TensorRT's reading."""
    for name, digest in ((variant.file, key.onnx_sha256), *key.external_sha256):
        with (directory / name).open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != digest:
            raise DeviceError(
                f"{directory / name} changed while its plan was built (SHA-256 {found[:12]}…, its manifest says "
                f"{digest[:12]}…); nothing was kept: publish the version again"
            )


def _claim_warnings(claim: PrecisionClaim) -> tuple[str, ...]:
    if claim.is_kept:
        return ()
    return (
        f"{claim.asked}: the file multiplies {claim.in_file:.1%} in it, the parsed network {claim.in_network:.1%}; "
        f"lost: {', '.join(claim.lost[:_NAMED_REFUSALS])}",
    )
