"""Checks plain numbers: parity, hostile inputs, batches, repetition."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.gate.checks.facts import Judged
from saccade.models.contract.manifest import GateCheck

_HALVES = ("fp16", "bf16")


def number_checks(judged: Judged) -> Iterator[GateCheck]:
    yield from _conversion(judged)
    yield _parity(judged)
    yield _hostile_inputs(judged)
    yield _batch_invariance(judged)
    yield _determinism(judged)


def _conversion(judged: Judged) -> Iterator[GateCheck]:
    """Compares sparse and pruned networks with their own torch module, because they differ from the dense network."""
    if judged.traits.form == "dense":
        return
    found, limit = judged.report.form_error, judged.thresholds.max_parity_error
    yield GateCheck(
        name="conversion",
        passed=found is not None and found <= limit,
        value=found,
        limit=limit,
        detail=f"the {judged.traits.form} network's file against its own eager module, relative L2 {figure(found)}",
    )


def _parity(judged: Judged) -> GateCheck:
    """Compares dense float variants with the eager network; others differ by design, and agreement decides there."""
    report, thresholds, traits = judged.report, judged.thresholds, judged.traits
    errors = [each.relative_l2 for each in report.parity]
    disagreement = max((1.0 - each.class_agreement for each in report.parity), default=0.0)
    finite = [error for error in errors if error is not None]
    worst = max(finite, default=0.0) if errors and len(finite) == len(errors) else None
    sizes = ", ".join(str(each.batch_size) for each in report.parity)
    text = f"against eager at batch {sizes}: relative L2 {figure(worst)}, ids that differ {disagreement:.2e}"
    if traits.form != "dense" or traits.precision in ("int8", "fp8"):
        what = traits.precision if traits.form == "dense" else f"{traits.form} weights"
        detail = f"{text}; informs, agreement and the task metric decide for {what}"
        return GateCheck(name="parity", passed=worst is not None, value=worst, limit=None, detail=detail)
    is_half = traits.precision in _HALVES
    limit = thresholds.max_half_parity_error if is_half else thresholds.max_parity_error
    ids_limit = thresholds.max_half_mask_disagreement if is_half else thresholds.max_mask_disagreement
    return GateCheck(
        name="parity",
        passed=worst is not None and worst <= limit and disagreement <= ids_limit,
        value=worst,
        limit=limit,
        detail=f"{text} (at most {ids_limit:g})",
    )


def _hostile_inputs(judged: Judged) -> GateCheck:
    hostile = judged.report.hostile
    bad = [each.name for each in hostile if not (each.is_finite and each.is_in_range)]
    names = ", ".join(each.name for each in hostile)
    return GateCheck(
        name="hostile_inputs",
        passed=not bad,
        value=len(bad),
        limit=0,
        detail=f"not finite or out of range on: {', '.join(bad)}" if bad else f"finite and in range on: {names}",
    )


def _batch_invariance(judged: Judged) -> GateCheck:
    """Compares images alone and in batches; variants for GPUs have their own limit, because sums there change order.

    Their int8 is emulated here with float sums, whose last bit may round a value to the next level; the layers after it
    carry that on. So half the images of a batch are held to the limit, and the worst to what rounding has cost already:
    an image that takes anything from its neighbours is beyond both.
    """
    thresholds, found = judged.thresholds, judged.report.batch_invariance
    rounds = judged.traits.needs_gpu
    limit = thresholds.max_half_batch_error if rounds else thresholds.max_batch_error
    ids_limit = thresholds.max_half_mask_disagreement if rounds else thresholds.max_mask_disagreement
    value, told = found.relative_l2, f"relative L2 {figure(found.relative_l2)}"
    if rounds and judged.traits.precision == "int8" and found.usual_l2 is not None and found.relative_l2 is not None:
        lost = max((each.relative_l2 or 0.0 for each in judged.report.parity), default=0.0)
        if found.relative_l2 <= lost:
            value, told = found.usual_l2, f"relative L2 {figure(found.usual_l2)}, worst {figure(found.relative_l2)}"
    return GateCheck(
        name="batch_invariance",
        passed=value is not None and value <= limit and found.id_disagreement <= ids_limit,
        value=value,
        limit=limit,
        detail=f"alone against in a batch: {told}, ids that differ {found.id_disagreement:.2e}",
    )


def _determinism(judged: Judged) -> GateCheck:
    found, runs = judged.report.is_deterministic, judged.report.runs_compared
    return GateCheck(
        name="determinism",
        passed=found,
        value=found,
        limit=True,
        detail=f"{runs} runs of one batch, a fresh session's among them, give "
        f"{'equal bits' if found else 'different bits'}",
    )


def figure(value: float | None) -> str:
    return "not finite" if value is None else f"{value:.1e}"
