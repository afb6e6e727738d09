"""Tells what leaving whole channels out saved, what it cost, and what was learned back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from saccade.export.reports.compression_report import PruningReport
from saccade.export.reports.export_report import VariantReport
from saccade.export.reports.sections.blocks import Block, Row, Table, Text


def pruning_blocks(found: PruningReport, variants: Sequence[VariantReport], metric: str) -> Iterator[Block]:
    """Tells of the pruned weights, then of each of the `variants` that were made from them."""
    narrower = sum(each.pruned != each.dense for each in found.layers)
    yield Text(
        f"Whole channels left {narrower} of {len(found.layers)} layers: the network keeps "
        f"{found.multiply_adds / found.dense_multiply_adds:.1%} of its multiply-adds and "
        f"{found.parameters / found.dense_parameters:.1%} of its parameters."
    )
    history = found.recovery.history
    kept = max((each.step for each in history if each.tuning_metric == found.tuning_metric), default=0)
    learned = (
        f"{history[-1].step} steps on {found.recovery.images} images; the weights of step {kept} are kept"
        if len(history) > 1
        else "nothing was learned back"
    )
    yield Text(
        f"{metric} on the tuning split: {found.dense_tuning_metric:.4f} dense, {found.one_shot_tuning_metric:.4f} "
        f"without the channels, {found.tuning_metric:.4f} after recovery ({learned})."
    )
    header = ("variant", f"{metric}, test split", "drop", "interval of the drop", "speed in turns")
    yield Table(header, tuple(_outcome(each) for each in variants), "What the pruned variants lost and gained")
    widths = tuple((each.layer, _width(each.dense), _width(each.pruned)) for each in found.layers)
    yield Table(("layer", "channels out x in", "kept"), widths, "Width of each layer", is_folded=True)


def _outcome(variant: VariantReport) -> Row:
    measured = variant.qualify
    drop = measured.drop
    return (
        measured.variant,
        f"{measured.metric.value:.4f}",
        f"{drop.value:+.4f}",
        f"{drop.ci_low:+.4f} to {drop.ci_high:+.4f}",
        "; ".join(pair.text for pair in measured.paired_speeds) or "-",
    )


def _width(channels: Sequence[int]) -> str:
    return " x ".join(map(str, channels))
