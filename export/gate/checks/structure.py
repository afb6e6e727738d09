"""Checks a file's claims about its sparsity and precision, in the file and in a plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from saccade.export.gate.checks.facts import Judged
from saccade.models.contract.manifest import GateCheck

_NAMED = 3  # layers that a check's line names; the report lists all


def structure_checks(judged: Judged) -> Iterator[GateCheck]:
    if judged.traits.form == "sparse24":
        yield _mask(judged)
    yield _effective_precision(judged)
    yield from _silent_layers(judged)
    if judged.traits.needs_gpu:
        yield _plan_precision(judged)
    if judged.traits.form == "sparse24":
        yield _sparse_tactic(judged)
        yield _sparse_gain(judged)


def _mask(judged: Judged) -> GateCheck:
    found = judged.report.mask
    if found is None or not found.claimed:
        detail = "no layer is said to be 2:4, so there is nothing sparse about this variant"
        return GateCheck(name="mask", passed=False, value=0, limit=0, detail=detail)
    broken = len(found.violations)
    good = f"all {len(found.claimed)} claimed layers hold at most two weights in every four input channels"
    return GateCheck(
        name="mask",
        passed=not broken,
        value=broken,
        limit=0,
        detail=f"{broken} of {len(found.claimed)} claimed layers are not 2:4: {_some(found.violations)}"
        if broken
        else good,
    )


def _effective_precision(judged: Judged) -> GateCheck:
    """Requires the precision of the file's name; a file that computes otherwise is slower, or another network."""
    found, asked = judged.report.precision, judged.traits.precision
    limit = judged.thresholds.precision_limit(asked)
    if found is None:
        return GateCheck(name="effective_precision", passed=False, value=None, limit=limit, detail="not measured")
    if found.share is None:
        # An fp32 network makes no claim that it could miss; every other claim must be shown.
        passed = asked == "fp32" or limit == 0.0
        return GateCheck(
            name="effective_precision", passed=passed, value=None, limit=limit, detail=f"not counted: {found.problem}"
        )
    is_refused = bool(found.refusal) and judged.traits.target == "trt"
    parts = [f"share of multiply-adds in {asked}"]
    if found.otherwise:
        parts.append(f"{len(found.otherwise)} layers otherwise: {_some(found.otherwise)}")
    if found.refusal:
        parts.append(f"TensorRT does not take the file: {found.refusal}")
    elif found.mismatches:
        parts.append(f"{found.parsed_by} does {len(found.mismatches)} layers otherwise: {_some(found.mismatches)}")
    elif found.parsed_by:
        parts.append(f"{found.parsed_by} reads it the same way")
    return GateCheck(
        name="effective_precision",
        passed=found.share >= limit and not found.mismatches and not is_refused,
        value=found.share,
        limit=limit,
        detail="; ".join(parts),
    )


def _silent_layers(judged: Judged) -> Iterator[GateCheck]:
    """Allows a layer to stay in another precision only for a reason that was given."""
    found = judged.report.precision
    if found is None or found.silent is None:
        return
    yield GateCheck(
        name="silent_layers",
        passed=not found.silent,
        value=len(found.silent),
        limit=0,
        detail=f"in another precision without a reason: {_some(found.silent)}"
        if found.silent
        else f"every layer that is not {found.asked} has its reason",
    )


def _plan_precision(judged: Judged) -> GateCheck:
    device, asked = judged.report.device, judged.traits.precision
    limit = judged.thresholds.precision_limit(asked)
    if device is None:
        return pending("plan_precision", limit, "layer information of a plan")
    lost = f"; no plan layer names {_some(device.unaccounted)}" if device.unaccounted else ""
    return GateCheck(
        name="plan_precision",
        passed=device.precision_share >= limit,
        value=device.precision_share,
        limit=limit,
        detail=f"share of multiply-adds in {asked} in the plan of {device.runtime} on {device.device.name}{lost}",
    )


def _sparse_tactic(judged: Judged) -> GateCheck:
    device = judged.report.device
    if device is None:
        return pending("sparse_tactic", 1, "whether TensorRT picks a sparse tactic")
    count = device.sparse_layers or 0
    return GateCheck(
        name="sparse_tactic",
        passed=count > 0,
        value=count,
        limit=1,
        detail=f"{count} layers of the plan run a sparse tactic"
        if count
        else "TensorRT picked no sparse tactic: the dense sibling is the same speed, and ships instead",
    )


def _sparse_gain(judged: Judged) -> GateCheck:
    device, limit = judged.report.device, judged.thresholds.min_sparse_gain
    if device is None:
        return pending("sparse_gain", limit, "the latency beside the dense sibling's")
    gain = device.sparse_gain
    if gain is None:
        detail = "there is no dense sibling to compare with: put it into the recipe's variants"
        return GateCheck(name="sparse_gain", passed=False, value=None, limit=limit, detail=detail)
    is_worth_it = gain.ci_low >= limit
    return GateCheck(
        name="sparse_gain",
        passed=is_worth_it,
        value=gain.ci_low,
        limit=limit,
        detail=f"{gain.ratio:.3f} times the images/s of {gain.sibling} at batch {gain.batch_size}, measured in turns, "
        f"interval [{gain.ci_low:.3f}, {gain.ci_high:.3f}]{'' if is_worth_it else ': not worth it, dense ships'}",
    )


def pending(name: str, limit: float | None, needs: str) -> GateCheck:
    """Returns a pending check that says which device it waits for."""
    return GateCheck(
        name=name,
        passed=False,
        pending=True,
        value=None,
        limit=limit,
        detail=f"{needs} needs a device that was not there; `saccade-export qualify --on-this-device` settles it",
    )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
