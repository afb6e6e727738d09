"""Shows which pictures a version calls unfamiliar, and whether its scores are the shares of right answers."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.qualification.confidence import TEMPERATURES
from saccade.export.qualification.trust_figures import ConfidenceFigure, ForeignFigure, TrustFigure
from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.sections.blocks import Block, Row, Section, Table, Text

_SUGGESTED = 0.005  # gain in calibration error from which a temperature is worth a line in the recipe


def trust_section(report: ExportReport) -> Section:
    """Tables per variant; those without a score say why."""
    return Section("Trust", (*_familiarity(report), *_confidence(report)))


def _familiarity(report: ExportReport) -> Iterator[Block]:
    measured = [(each.qualify.variant, found) for each in report.variants if (found := each.qualify.trust)]
    details = [(each.qualify.variant, each.qualify.detail) for each in report.variants]
    reasons = {str(detail["no_trust"]): name for name, detail in details if "no_trust" in detail}
    for reason, name in reasons.items():
        yield Text(f"No score of unfamiliarity, as of {name}: {reason}.")
    if not measured:
        return
    yield Text(
        "With `trust=true` an answer says how unlike the pictures of this export its picture is: a Gaussian on deep "
        "features of calibration pictures, scaled so that 95 % of the tuning pictures are below 1. AUROC is the chance "
        "that a foreign picture has a higher score than a test picture. Photographs are foreign only to a network that "
        "was not trained for such; damage that the network was trained for is no reason for a higher score."
    )
    header = ("variant", "pictures", "AUROC", f"AUROC of the {measured[0][1].baseline}", "called unfamiliar")
    for name, found in measured:
        rows: list[Row] = [_row(name, each) for each in (found.foreign, *found.kinds, *found.damaged)]
        rows.append((name, "of the test split", "", "", f"{1 - found.familiar_share:.1%} of {found.pictures}"))
        title = f"{name}: asking takes {found.cost:+.1%} of an answer's time (up to {found.cost_high:+.1%})"
        yield Table(header, tuple(rows), title)
        yield from _verdict(name, found)


def _verdict(name: str, found: TrustFigure) -> Iterator[Block]:
    other = found.foreign.baseline_auroc
    if other is None or other <= found.foreign.auroc:
        return
    told = f"{name}: the {found.baseline} alone reaches {other:.4f} against {found.foreign.auroc:.4f}"
    if found.baseline_gain is not None:
        low, high = found.baseline_gain
        told += f", a difference of {low:+.4f} to {high:+.4f}: "
        told += "it tells these foreign pictures better" if low > 0 else "so many pictures do not tell which is better"
    yield Text(f"{told}.")


def _row(name: str, found: ForeignFigure) -> Row:
    other = "" if found.baseline_auroc is None else f"{found.baseline_auroc:.4f}"
    return (name, f"{found.kind} ({found.pictures})", f"{found.auroc:.4f}", other, f"{found.unfamiliar_share:.1%}")


def _is_at_limit(found: ConfidenceFigure) -> bool:
    least, most = TEMPERATURES
    return not least * 1.01 < found.fitted_temperature < most / 1.01


def _confidence(report: ExportReport) -> Iterator[Block]:
    measured = [(each.qualify.variant, found) for each in report.variants if (found := each.qualify.confidence)]
    if not measured:
        return
    yield Text(
        f"The calibration error is the mean gap between the best score and the share of right answers, over fifteen "
        f"ranges of scores of {measured[0][1].images} test pictures. A temperature divides the logits and changes no "
        "order of classes; the fitted one makes the labels of tuning pictures likeliest."
    )
    rows = tuple(
        (
            name,
            f"{found.unscaled_error:.4f}",
            f"{found.served_error:.4f} ({found.served_temperature:g})",
            f"{found.fitted_error:.4f} ({found.fitted_temperature:g})",
        )
        for name, found in measured
    )
    yield Table(("variant", "error without a temperature", "as served", "with the fitted temperature"), rows)
    for name, found in measured:
        if _is_at_limit(found):
            yield Text(
                f"{name}: the fitted temperature is at the limit of what is tried ({TEMPERATURES[0]:g} to "
                f"{TEMPERATURES[1]:g}), so none fits and none is recommended: scores of tuning pictures say too little."
            )
        if found.fitted_error > found.served_error:
            yield Text(
                f"{name}: the fitted temperature makes the error larger on test pictures, {found.fitted_error:.4f} "
                f"instead of {found.served_error:.4f}: leave it out."
            )
    first = measured[0][1]
    if first.served_error - first.fitted_error >= _SUGGESTED and not _is_at_limit(first):
        yield Text(
            f"`task: {{temperature: {first.fitted_temperature:g}}}` in the recipe would serve scores with an error of "
            f"{first.fitted_error:.4f} instead of {first.served_error:.4f}."
        )
