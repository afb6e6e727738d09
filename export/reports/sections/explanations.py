"""Shows how well explanations point at what is there, and what they cost."""

from __future__ import annotations

from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.sections.blocks import Block, Row, Section, Table, Text, figure
from saccade.models.contract.extras import ExtraOutput

_TEXT = (
    "Requests with `explain` get a map of where the network looked, from the same file. A hit is a picture in whose "
    "objects' boxes the hottest place lies (of classifiers, a picture that was answered right); chance is the share of "
    "the picture that the boxes cover, which limits how many times chance a map can reach. Time is that of a run with "
    "the map, in runs without it, in turns at batch 1."
)


def explanation_section(report: ExportReport) -> Section:
    """One row per variant that gives explanations; variants without them say why."""
    found = [(each.qualify.variant, each.qualify) for each in report.variants]
    rows: list[Row] = []
    for variant, qualify in found:
        each = qualify.explanation
        if each is not None:
            gain = "" if not each.hits or not each.chance else f"{each.hits / each.chance:.1f} of {1 / each.chance:.1f}"
            figures = (figure(each.hits, 3), figure(each.chance, 3), gain, str(each.pictures))
            rows.append((variant, each.method, *figures, f"{each.time_ratio:.2f}"))
    blocks: list[Block] = []
    if rows:
        header = ("variant", "method", "hits", "chance", "times chance, of at most", "pictures with boxes", "time")
        blocks = [Text(_TEXT), Table(header, tuple(rows))]
    published = [each.qualify for each in report.variants if each.gate.accepted or each.gate.is_pending]
    maps = [(each.variant, extra) for each in published for extra in each.extras or () if extra.kind == "explain"]
    blocks += [
        Text(f"Not served from {variant}: its map ({_told(extra)}) is another one than that of {maps[0][0]}.")
        for variant, extra in maps
        if extra != maps[0][1]
    ]
    reasons = {
        str(qualify.detail["no_explain"]): variant for variant, qualify in found if "no_explain" in qualify.detail
    }
    blocks += [Text(f"No explanation, as of {variant}: {reason}.") for reason, variant in reasons.items()]
    return Section("Where it looked", tuple(blocks))


def _told(extra: ExtraOutput) -> str:
    return f"{extra.method}, {' x '.join(map(str, extra.output.shape))}"
