"""Describes each layer of each variant: precision, work, sparsity, sensitivity; a dash means not measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from saccade.export.reports.compression_report import QuantizedLayer, SparseLayer, SparsityReport
from saccade.export.reports.export_report import ExportReport, VariantReport
from saccade.export.reports.sections.blocks import Block, Cell, Plot, Row, Section, Table, Text, fact_table, figure
from saccade.export.reports.sections.pruning import pruning_blocks
from saccade.export.variants import TRAITS

_NOT_CHOSEN = "not chosen"


def layer_section(report: ExportReport) -> Section:
    """Tells in which precision each layer multiplies, and why."""
    blocks: list[Block] = []
    for variant in report.variants:
        name = variant.qualify.variant
        blocks += _shares(variant)
        quantized = {each.node or each.layer: each for each in report.quantized_layers.get(name, ())}
        sparsity = report.sparsity if _form(name) == "sparse24" else None
        table = _layer_table(variant, quantized, sparsity)
        blocks += [table] if table.rows else _left_float(name, quantized)
    return Section("Layers", tuple(blocks))


def compression_section(report: ExportReport) -> Section:
    """Tells how other forms of the weights were made, and the metric before and after recovery."""
    blocks: list[Block] = [
        fact_table(tuple(facts.items()), f"How the {form} weights were made")
        for form, facts in report.forms.items()
        if form != "pruned" or report.pruning is None
    ]
    if report.pruning is not None:
        made = [each for each in report.variants if _form(each.qualify.variant) == "pruned"]
        blocks += pruning_blocks(report.pruning, made, report.reference.name)
    if report.sparsity is not None:
        blocks += _sparsity_blocks(report.sparsity, report.reference.name)
    for table in report.calibration:
        rows = tuple((each.calibrator, f"{each.tuning_metric:.4f}") for each in table.candidates)
        title = f"Calibrators of {table.variant}, on {table.tuning_images} tuning images"
        blocks.append(Table(("calibrator", report.reference.name), rows, title))
    if report.calibration:
        blocks.append(Plot("calibrators", "what each calibrator reached on the tuning split"))
    return Section("Compression", tuple(blocks))


def _layer_table(
    variant: VariantReport, quantized: Mapping[str, QuantizedLayer], sparsity: SparsityReport | None
) -> Table:
    sparse = {each.layer: each for each in sparsity.layers} if sparsity else {}
    claimed = set(sparsity.claimed) if sparsity else set()
    header = ["layer", "op", "precision", "MFLOPs", "activations", "weights", "KiB"]
    header += ["sparsity", "zeros", "kept magnitude"] if sparsity else []
    header += ["sensitivity dB", "why not quantized"] if quantized else []
    rows: list[Row] = []
    for each in variant.qualify.layers:
        row: list[str | Cell] = [
            each.layer or each.node,
            each.op,
            each.precision,
            f"{each.flops / 1e6:.3f}",
            str(each.activations),
            str(each.weights),
            f"{each.weight_bytes / 1024:.1f}",
        ]
        if sparsity:
            told = sparse.get(each.layer)
            zeros = "-" if each.zero_share is None else f"{each.zero_share:.1%}"
            row += [_sparsity(each.layer in claimed, told), zeros, _kept(told)]
        if quantized:
            row += _quantization_cells(quantized.get(each.node) or quantized.get(each.layer))
        rows.append(tuple(row))
    return Table(tuple(header), tuple(rows), f"{variant.qualify.variant}: {len(rows)} layers", is_folded=True)


def _quantization_cells(told: QuantizedLayer | None) -> tuple[str, str]:
    return (figure(told.sensitivity, 1), told.reason) if told else ("-", "")


def _sparsity(is_claimed: bool, told: SparseLayer | None) -> Cell:
    if is_claimed:
        return Cell("2:4", "good")
    return Cell(f"dense: {told.reason or _NOT_CHOSEN}" if told else "dense")


def _kept(told: SparseLayer | None) -> str:
    """Tells the magnitude that the chosen order of channels keeps, and what their own order would have kept."""
    if told is None or told.kept_magnitude_identity is None:
        return "-"
    own = f"{told.kept_magnitude_identity:.4f}"
    return own if told.kept_magnitude_permuted is None else f"{told.kept_magnitude_permuted:.4f} (unpermuted {own})"


def _shares(variant: VariantReport) -> Iterator[Text]:
    layers = variant.qualify.layers
    total = sum(each.flops for each in layers)
    if not total:
        return
    kinds = {each.precision: 0 for each in layers}
    for each in layers:
        kinds[each.precision] += each.flops
    shares = ", ".join(f"{kind} {flops / total:.2%}" for kind, flops in sorted(kinds.items()))
    weights = sum(each.weight_bytes for each in layers) / 2**20
    yield Text(
        f"{variant.qualify.variant}: {total / 1e9:.4f} GFLOPs per image ({shares}), "
        f"{sum(each.activations for each in layers) / 1e6:.3f} M activations, {weights:.2f} MiB of weights."
    )


def _left_float(variant: str, quantized: Mapping[str, QuantizedLayer]) -> list[Block]:
    """Tells what quantization said of its layers, where the file's own layers were not read."""
    rows = tuple(
        (each.layer, each.op, "yes" if each.quantized else "no", figure(each.sensitivity, 1), each.reason)
        for each in quantized.values()
    )
    header = ("layer", "op", "quantized", "sensitivity dB", "why not")
    return [Table(header, rows, f"{variant}: quantization of each layer", is_folded=True)] if rows else []


def _sparsity_blocks(found: SparsityReport, metric: str) -> Iterator[Block]:
    ranked = [each for each in found.layers if each.kept_magnitude_identity is not None]
    raised = [each for each in ranked if (each.kept_magnitude_permuted or 0.0) > (each.kept_magnitude_identity or 0.0)]
    dense = len(found.layers) - len(found.claimed)
    gain = (
        ""
        if found.claimed_share is None or found.best_possible_gain is None
        else f" They do {found.claimed_share:.1%} of the multiply-adds, so at best it runs "
        f"{found.best_possible_gain:.2f}x as fast as the dense network."
    )
    yield Text(
        f"2:4 along input channels: {len(found.claimed)} layers claimed, {dense} stay dense.{gain} Permuting input "
        f"channels raises the kept magnitude of {len(raised)} of {len(ranked)} layers."
    )
    if found.dense_tuning_metric is not None and found.tuning_metric is not None:
        error = (
            "" if found.permutation_error is None else f" Permuting changed outputs by {found.permutation_error:.1e}."
        )
        yield Text(
            f"{metric} on the tuning split: {found.dense_tuning_metric:.4f} dense, {found.tuning_metric:.4f} with 2:4 "
            f"after recovery.{error}"
        )
    if found.layers:
        header = ("layer", "sparsity", "kept magnitude")
        rows = tuple((each.layer, _sparsity(each.layer in found.claimed, each), _kept(each)) for each in found.layers)
        yield Table(header, rows, "2:4 sparsity of each layer", is_folded=True)
    if found.one_shot:
        shots = tuple((_method(each.method, each.permuted), f"{each.tuning_metric:.4f}") for each in found.one_shot)
        yield Table(("mask", f"{metric}, tuning split"), shots, "One-shot: masked, before anything was learned back")
    if found.recovery.history:
        yield Plot("recovery", "the sparse network's metric and the masks' flip rate while it learns")
        steps = tuple(
            (str(each.step), f"{each.tuning_metric:.4f}", figure(each.flip_rate)) for each in found.recovery.history
        )
        yield Table(("step", f"{metric}, tuning split", "flip rate"), steps, "Recovery", is_folded=True)


def _method(name: str, is_permuted: bool | None) -> str:
    return name if is_permuted is None else f"{name}, {'permuted' if is_permuted else 'channels in their own order'}"


def _form(variant: str) -> str:
    return next((traits.form for name, traits in TRAITS.items() if name == variant), "dense")
