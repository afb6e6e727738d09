"""Decides whether a plan may be opened. Every refusal names the exact difference and the command to run.

Nothing here calls a runtime, because bytes of unknown origin must never reach TensorRT's parser of plans.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from saccade.models.contract.plans import (
    PLAN_FILE,
    PLAN_RECORD,
    PlanEnvironment,
    PlanError,
    PlanKey,
    PlanRecord,
    environment_differences,
    missing_batch_sizes,
    plan_record_from,
)
from saccade.service.backends.base import LoadRequest
from saccade.service.errors import PlanRefused, RepositoryError
from saccade.service.repository.verify import verified_bytes


def read_plan_record(plan_dir: Path | None, capability: str) -> PlanRecord:
    """Reads the record in the plan's directory. Raises PlanRefused."""
    if plan_dir is None:
        raise PlanRefused("the tensorrt backend opens plans and was given none: build one with `saccade-export build`")
    try:
        return plan_record_from(verified_bytes(plan_dir / PLAN_RECORD, None))
    except (RepositoryError, PlanError) as error:
        raise PlanRefused(f"{error}; {_command_from_path(plan_dir, capability)}") from error


def read_plan(plan_dir: Path, record: PlanRecord, capability: str) -> bytes:
    """Reads the plan's bytes and checks their digest. Raises PlanRefused for damaged or missing ones."""
    try:
        content = verified_bytes(plan_dir / PLAN_FILE, None)
    except RepositoryError as error:
        raise PlanRefused(f"{error}; {build_command(record, capability)}") from error
    if len(content) != record.plan_bytes:
        raise PlanRefused(
            f"plan {plan_dir.name} has {len(content)} bytes, its record says {record.plan_bytes}: it was cut off or "
            f"replaced; {build_command(record, capability)}"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != record.plan_sha256:
        raise PlanRefused(
            f"plan {plan_dir.name} has SHA-256 {found[:12]}…, its record says {record.plan_sha256[:12]}…: these are "
            f"not the bytes that were built; {build_command(record, capability)}"
        )
    return content


def ensure_plan_fits(record: PlanRecord, request: LoadRequest, environment: PlanEnvironment) -> None:
    """Raises PlanRefused, with every difference between the plan and what this request and machine need."""
    found = (*_file_differences(record.key, request), *environment_differences(record.key, environment))
    if request.plan_sha256 not in (None, record.plan_sha256):
        found = (*found, f"plan {record.plan_sha256[:12]}…, the one that passed its gate is {request.plan_sha256:.12}…")
    absent = missing_batch_sizes(record.key, request.allowed_batch_sizes)
    if absent:
        sizes = ", ".join(map(str, absent))
        found = (*found, f"lacks batch size {sizes}; it has {', '.join(map(str, record.key.allowed_batch_sizes))}")
    if found:
        raise PlanRefused(
            f"the plan of {record.model}/{record.version} {record.variant} cannot be used: {'; '.join(found)}. "
            f"{build_command(record, environment.capability)}"
        )


def build_command(record: PlanRecord, capability: str) -> str:
    """The command that builds a plan for this machine; ONNX Runtime's are made by servers alone."""
    if record.key.runtime == "onnxruntime":
        return "a server measures it again by itself"
    return _command(f"{record.model}/{record.version}", record.variant, capability)


def _file_differences(key: PlanKey, request: LoadRequest) -> tuple[str, ...]:
    if request.sha256 is None:  # only while exporting, before anything is published
        return ()
    found: list[str] = []
    if request.sha256 != key.onnx_sha256:
        found.append(f"made from the file {key.onnx_sha256[:12]}…, the variant's is {request.sha256[:12]}…")
    wanted, built = {path.name: sha256 for path, sha256 in request.external_data}, dict(key.external_sha256)
    changed = sorted(name for name in wanted.keys() | built.keys() if wanted.get(name) != built.get(name))
    if changed:
        found.append(f"made from other weights: {', '.join(changed)}")
    return tuple(found)


def _command_from_path(plan_dir: Path, capability: str) -> str:
    """The build command by the plan's path, `<model>/<version>/<variant>/<place>`."""
    *_, model, version, variant, _ = ("MODEL", "VERSION", "VARIANT", *plan_dir.parts)
    return _command(f"{model}/{version}", variant, capability)


def _command(version: str, variant: str, capability: str) -> str:
    where = f" --capability {capability}" if capability else ""
    return f"build it again: saccade-export build {version} --variant {variant}{where}"
