"""Shows where variants are wrong and where they differ from the reference, in counts of images."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.qualification.curves import Confusion, PrecisionRecall
from saccade.export.qualification.disagreements import Disagreements
from saccade.export.reports.export_report import ExportReport, VariantReport
from saccade.export.reports.sections.blocks import (
    Block,
    Cell,
    Gallery,
    Plot,
    ReportPicture,
    Row,
    Section,
    Table,
    Text,
    figure,
)
from saccade.models.contract.specs import Task


def example_file(variant: str, file: str) -> str:
    """Names a picture; pictures of all variants lie in one directory beside the report."""
    return f"{variant}-{file}"


def disagreement_section(report: ExportReport) -> Section:
    """Tells how often variants answer differently, with the pictures that differ most."""
    found = [(each.qualify.variant, each.qualify.disagreements) for each in report.variants]
    seen = [(variant, result) for variant, result in found if result is not None]
    rows = tuple((variant, str(each.differing), str(each.images)) for variant, each in seen)
    blocks: list[Block] = []
    if seen:
        title = f"Amount: {seen[0][1].measure}"
        blocks.append(Table(("variant", "images that differ", "of"), rows, title))
    for variant, each in seen:
        blocks.append(_gallery(variant, each, report) if each.examples else Text(f"{variant}: no image differs."))
    return Section("Answers that differ from the reference", tuple(blocks))


def mistake_section(report: ExportReport) -> Section:
    """Shows confusion matrices or precision-recall curves, then every class; nothing of it is known without labels."""
    if not report.thresholds.needs_labels:
        return Section("Mistakes", (Text("Not measured: the recipe says gate: {mode: parity}."),))
    blocks = [block for variant in report.variants for block in _curves(report, variant)]
    return Section("Mistakes", (*blocks, _per_class(report), Plot("per_class", "the metric of each class")))


def _gallery(variant: str, found: Disagreements, report: ExportReport) -> Gallery:
    has_truth, is_picture = report.thresholds.needs_labels, report.task is Task.IMAGE
    order = f"reference left, {variant} right"
    if is_picture:
        framed = "" if report.reference.name == "depth_accuracy" else "and of its frame: the same, "
        order = f"what was sent, {framed}reference, {variant}{', target' if has_truth else ''}"
    pictures = tuple(
        ReportPicture(
            example_file(variant, each.file),
            f"image {each.image}: {order}",
            (
                f"image {each.image}, amount {each.amount:.3g}",
                *([f"truth: {each.truth}"] if has_truth else []),
                f"reference: {each.reference}",
                f"{variant}: {each.variant}",
            ),
        )
        for each in found.examples
    )
    return Gallery(f"{variant}: where it differs most; {order}", pictures, is_wide=is_picture)


def _curves(report: ExportReport, variant: VariantReport) -> Iterator[Block]:
    curves, name = variant.qualify.curves, variant.qualify.variant
    if curves is None:
        return
    if curves.confusion is not None:
        yield from _confusion(report.labels, curves.confusion, name)
    if curves.precision_recall:
        ious = " and ".join(f"{each.iou:g}" for each in curves.precision_recall if each.iou is not None)
        yield Plot(f"precision_recall_{name}", f"precision-recall curves of {name}{ious and f' at IoU {ious}'}")
        yield _average_precision(report, curves.precision_recall, name)


def _confusion(labels: tuple[str, ...], found: Confusion, variant: str) -> Iterator[Table]:
    names = tuple(labels[class_id] for class_id in found.class_ids)
    rows: list[Row] = []
    for name, counts in zip(names, found.counts, strict=True):
        total = max(sum(counts), 1)
        rows.append((name, *(Cell(str(count), heat=count / total) for count in counts)))
    chosen = "" if len(names) == len(labels) else f", the {len(names)} classes with the most mistakes"
    yield Table(("truth \\ answer", *names), tuple(rows), f"{variant}: confusion, {found.unit}{chosen}")
    pairs = tuple(
        (labels[pair.truth], labels[pair.found], str(pair.count), f"{pair.share:.2%}") for pair in found.pairs
    )
    if pairs:
        header = ("truth", "answer", found.unit, "of that class")
        yield Table(header, pairs, f"{variant}: most frequent mistakes", is_folded=True)


def _average_precision(report: ExportReport, found: tuple[PrecisionRecall, ...], variant: str) -> Table:
    rows = tuple(
        (report.labels[class_id], *(figure(each.average_precision[class_id]) for each in found))
        for class_id in report.shown_classes()
    )
    header = ("class", *("average precision" + ("" if each.iou is None else f" at IoU {each.iou:g}") for each in found))
    return Table(header, rows, f"{variant}: average precision", is_folded=True)


def _per_class(report: ExportReport) -> Table:
    shown = report.shown_classes()
    whole = len(shown) == len(report.labels)
    title = f"Per class, {report.reference.name}" if whole else f"Per class: the worst {len(shown)}"
    rows = tuple(
        (report.labels[index], *(figure(variant.qualify.per_class[index]) for variant in report.variants))
        for index in shown
    )
    return Table(("class", *(variant.qualify.variant for variant in report.variants)), rows, title)
