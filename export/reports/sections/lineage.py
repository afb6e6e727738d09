"""Tells what everything was made of and how, with whole digests, so that each can be searched for."""

from __future__ import annotations

from saccade.export.data.fidelity import FidelityReport
from saccade.export.reports.export_report import ExportReport
from saccade.export.reports.sections.blocks import Block, Cell, Code, Row, Section, Table, Text, fact_table


def proof_section(report: ExportReport) -> Section:
    """Tells what was proven during the export: pixels, conversion, folds, runtimes."""
    conversion = tuple((each.output, str(each.batch_size), f"{each.relative_l2:.1e}") for each in report.conversion)
    blocks: list[Block] = []
    if report.fidelity is not None:
        blocks.append(_fidelity(report.fidelity))
    title = "Conversion: the ONNX file against the eager network"
    blocks.append(Table(("output", "batch", "relative L2"), conversion, title))
    if report.folds:
        folds = tuple((each.name, str(each.layers), f"{each.relative_error:.1e}") for each in report.folds)
        blocks.append(Table(("fold", "layers", "relative L2"), folds, "Folded before conversion"))
    for each in report.targets:
        told = "yes" if each.supported else f"no, {each.reason}; {each.fallback} serves"
        blocks.append(Text(f"TensorRT takes this network: {told}.", "" if each.supported else "pending"))
    if report.not_batchable_reason:
        blocks.append(Text(f"Images never share a batch: {report.not_batchable_reason}.", "pending"))
    return Section("Proof of conversion", tuple(blocks))


def lineage_section(report: ExportReport) -> Section:
    """Shows the command, and the digests of all inputs and outputs."""
    blocks: list[Block] = []
    if report.command:
        blocks += [Text("Made by:"), Code(report.command)]
    files: list[Row] = []
    for variant in report.variants:
        figures = variant.qualify
        files.append((figures.variant, "graph", f"{figures.file_bytes}", Cell(figures.file_sha256)))
        files += [(figures.variant, name, "", Cell(digest)) for name, digest in figures.external_sha256.items()]
    blocks.append(Table(("variant", "file", "bytes, all files", "SHA-256"), tuple(files), "Files as measured"))
    sources = [("weights", report.weights), *((f"{name} split", each) for name, each in report.splits.items())]
    blocks.append(fact_table(sources, "What went in", ("", "digest")))
    blocks.append(fact_table(tuple(report.network.items()), "The network as traced", ("fact", "value")))
    steps = tuple((each.step, each.digest, f"{each.seconds:.2f}") for each in report.steps)
    title = "Steps: the digest covers inputs, configuration, tools and source text"
    blocks.append(Table(("step", "digest", "seconds"), steps, title, is_folded=True))
    blocks.append(fact_table(tuple(report.environment.items()), "Environment", ("environment", "value")))
    for variant in report.variants:
        detail = tuple(variant.qualify.detail.items())
        blocks.append(
            Table(
                ("fact", "value"),
                tuple((name, str(value)) for name, value in detail),
                f"How {variant.qualify.variant} was made",
                is_folded=True,
            )
        )
    return Section("How it was made", tuple(blocks))


def _fidelity(found: FidelityReport) -> Table:
    rows: tuple[Row, ...] = (
        ("images", str(found.images)),
        ("pixels within one level", f"{found.share_within_one_level:.6f}"),
        ("worst image", f"{found.worst_image}: {found.worst_image_share:.6f}"),
        ("largest difference, levels", f"{found.max_difference:.2f}"),
        *(("not comparable", text) for text in found.failures),
        *(("larger than the graph's input", text) for text in found.beyond_canvas),
    )
    return Table(("", "figure"), rows, f"Preprocessing: the server's pixels against {found.transform}")
