"""Tells what was decided about each variant, and why: accepted, denied or pending."""

from __future__ import annotations

from saccade.export.gate.checks.names import GATE_BY_CHECK
from saccade.export.gate.limits import looser_limits
from saccade.export.qualification.picture_figures import FEWEST_FOR_A_SHIFT
from saccade.export.reports.export_report import ExportReport, VariantReport
from saccade.export.reports.sections.blocks import Block, Cell, Row, Section, Table, Text, Tone
from saccade.models.contract.manifest import GateCheck, GateDecision


def verdict_section(report: ExportReport) -> Section:
    """Shows one row per variant."""
    reference = report.reference
    blocks: list[Block] = []
    if report.weights == "random":
        blocks.append(
            Text("The weights are random: this network was never trained, and its answers mean nothing.", "bad")
        )
    quantized = report.network.get("quantized")
    subject = (
        "The eager fp32 network"
        if not quantized
        else (
            f"The file's weights are int8 already ({quantized}), so no float network exists: the reference is the file "
            "itself, run by ONNX Runtime without int8 kernels. It"
        )
    )
    eager = (
        f"{subject} reaches {reference.name} {reference.value:.4f} "
        f"[{reference.ci_low:.4f}, {reference.ci_high:.4f}] on {reference.images} test images "
        f"({reference.confidence:.0%} interval). Drops are paired with it, image by image."
    )
    if report.thresholds.mode == "parity":
        blocks.append(
            Text(
                "Unjudged: the recipe says gate: {mode: parity}. Whether answers are right was not measured, only that "
                "variants answer like the eager network: so many of their answers are the same.",
                "bad",
            )
        )
    looser = [*looser_limits(report.thresholds, reference.name), *report.looser_data_limits]
    if looser:
        blocks.append(Text(f"The recipe asks for less than the defaults: {', '.join(looser)}."))
    if report.thresholds.mode == "parity":
        rows = tuple(_unjudged_row(variant) for variant in report.variants)
        blocks.append(Table(("variant", "gate", "agreement with the eager network", "MiB"), rows))
    else:
        header = ("variant", "gate", reference.name, "interval", "drop (upper end)", "MiB")
        blocks += [Text(eager), Table(header, tuple(_row(variant) for variant in report.variants))]
        blocks += [*_operating_blocks(report), *_retrieval_blocks(report), *_picture_blocks(report)]
        if report.unmeasured_labels():
            blocks.append(Text(f"No test picture shows {report.unmeasured_labels()}: nothing is known of them.", "bad"))
    # Below the table: beside it nobody would see them on a phone.
    blocks += [
        Text(f"{variant.qualify.variant} {told.text}: {reason(variant.gate)}.", told.tone)
        for variant in report.variants
        if (told := verdict(variant.gate)).tone != "good"
    ]
    blocks += [Text(f"{name} could not be made: {reason}.", "bad") for name, reason in report.lost.items()]
    if any(variant.gate.is_pending for variant in report.variants):
        blocks.append(
            Text(
                "Pending: nothing failed, and the checks that are left need a device that was not here. Such a variant "
                "travels with the version, and no server chooses it before they are settled."
            )
        )
    return Section("Verdict", tuple(blocks))


def _operating_blocks(report: ExportReport) -> list[Block]:
    """What users get who name no score threshold; nothing for tasks whose answers are not cut at one."""
    eager = report.reference_operating_point
    if eager is None:
        return []
    name = eager.metric.name
    matched = "; boxes at IoU 0.5" if report.task.has_boxes else ""
    text = (
        f"From score {eager.score_threshold:g}, which is what a request gets when it names none, the eager network "
        f"reaches {name} {eager.metric.value:.4f} (precision {eager.precision:.4f}, recall {eager.recall:.4f}, F1 "
        f"{eager.f1:.4f}{matched}). A variant passes at both or at neither."
    )
    header = (
        "variant",
        f"{name} from score {eager.score_threshold:g}",
        "drop (upper end)",
        "precision",
        "recall",
        "F1",
    )
    rows = [
        (
            variant.qualify.variant,
            f"{point.metric.value:.4f}",
            f"{drop.value:+.4f} ({drop.ci_high:+.4f})",
            f"{point.precision:.4f}",
            f"{point.recall:.4f}",
            f"{point.f1:.4f}",
        )
        for variant in report.variants
        if (point := variant.qualify.operating_point) and (drop := variant.qualify.operating_drop)
    ]
    return [Text(text), Table(header, tuple(rows))]


def _retrieval_blocks(report: ExportReport) -> list[Block]:
    """What a search finds with each variant's vectors; nothing for other tasks, and without labels."""
    measured = [(each.qualify.variant, each.qualify.retrieval) for each in report.variants]
    reference = next((each.qualify.reference for each in report.variants if each.qualify.reference), None)
    eager = None if reference is None else reference.retrieval
    if eager is None or not report.thresholds.needs_labels:
        return []
    text = (
        f"Each of {eager.queries} test pictures was searched for among all others: recall@k is the share that find a "
        "picture of their label among the k nearest by cosine, mAP the mean average precision of the whole order."
    )
    header = ("variant", *(f"recall@{count}" for count in eager.recall), "mAP")
    rows = tuple(
        (name, *(f"{value:.4f}" for value in found.recall.values()), f"{found.mean_average_precision:.4f}")
        for name, found in (("eager", eager), *measured)
        if found is not None
    )
    return [Text(text), Table(header, rows)]


def _picture_blocks(report: ExportReport) -> list[Block]:
    """How near each variant's pictures are to their targets; nothing for other tasks, and without targets."""
    measured = [(each.qualify.variant, each.qualify.pictures) for each in report.variants]
    reference = next((each.qualify.reference for each in report.variants if each.qualify.reference), None)
    eager = None if reference is None else reference.pictures
    if eager is None or not report.thresholds.needs_labels:
        return []
    if eager.absolute_relative_error is not None:
        text = (
            "Mean of |depth - truth| / truth over pixels whose depth is known, after depths were brought to the truth "
            "by factor and offset; the metric depth_accuracy is 1 minus that of each picture."
        )
        rows = tuple(
            (name, f"{found.absolute_relative_error:.4f}")
            for name, found in (("eager", eager), *measured)
            if found is not None and found.absolute_relative_error is not None
        )
        return [Text(text), Table(("variant", "absolute relative error"), rows)]
    pairs = tuple(
        (name, f"{found.psnr:.2f} dB", f"{found.ssim:.4f}")
        for name, found in (("eager", eager), *measured)
        if found is not None and found.psnr is not None
    )
    text = "Means over the test pictures, each against its target."
    if reference is not None and reference.metric.images < FEWEST_FOR_A_SHIFT:
        text += f" Whether answers lie a pixel beside them is unknown: fewer than {FEWEST_FOR_A_SHIFT} do not tell."
    return [Text(text), Table(("variant", "PSNR", "SSIM"), pairs)]


def gate_section(report: ExportReport) -> Section:
    """Shows every check of every variant."""
    tables = tuple(
        Table(
            ("gate", "check", "verdict", "value", "limit", "detail"),
            tuple(_check_row(check) for check in variant.gate.checks),
            f"{variant.qualify.variant}: {verdict(variant.gate).text}",
            is_folded=variant.gate.accepted,
        )
        for variant in report.variants
    )
    return Section("Gate", tables)


def verdict(decision: GateDecision) -> Cell:
    if decision.accepted:
        return Cell("accepted", "good")
    return Cell("pending", "pending") if decision.is_pending else Cell("denied, not published", "bad")


def reason(decision: GateDecision) -> str:
    """Returns what speaks against a variant; empty for an accepted one. Where checks failed, only those are listed."""
    failed = [check for check in decision.checks if not check.passed and not check.pending]
    waiting = [check for check in decision.checks if check.pending]
    return "; ".join(f"{check.name}: {check.detail}" for check in (failed or waiting))


def _row(variant: VariantReport) -> Row:
    figures = variant.qualify
    return (
        figures.variant,
        verdict(variant.gate),
        f"{figures.metric.value:.4f}",
        f"[{figures.metric.ci_low:.4f}, {figures.metric.ci_high:.4f}]",
        f"{figures.drop.value:+.4f} ({figures.drop.ci_high:+.4f})",
        f"{figures.file_bytes / 2**20:.2f}",
    )


def _unjudged_row(variant: VariantReport) -> Row:
    """Shows how many answers are the eager network's, because metrics of an unjudged version mean nothing."""
    figures = variant.qualify
    shares = ", ".join(f"{name} {value:.4f}" for name, value in (figures.agreement or {}).items())
    return figures.variant, verdict(variant.gate), shares, f"{figures.file_bytes / 2**20:.2f}"


def _check_row(check: GateCheck) -> Row:
    tone: Tone = "good" if check.passed else "pending" if check.pending else "bad"
    word = {"good": "pass", "pending": "pending", "bad": "fail"}[tone]
    return (
        GATE_BY_CHECK.get(check.name, ""),
        check.name,
        Cell(word, tone),
        _value(check.value),
        _value(check.limit),
        check.detail,
    )


def _value(value: float | str | bool | None) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
