"""Step `speed`: times all variants that run on this processor in turns, in the sessions that serve.

A variant for GPUs is not timed, because a processor's time says nothing about it. One that fails here costs the others
nothing: its figures say why, and the gate denies it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from saccade.export.artifact import Artifact, Detail
from saccade.export.data.image_split import batch_of
from saccade.export.graph.onnx_graph import MODEL_FILE
from saccade.export.precision.effective_precision import LayerPrecision
from saccade.export.precision.efficiency import Efficiency, efficiency_of, measured_peak
from saccade.export.qualification.benchmark import latency_figure, usable_threads
from saccade.export.qualification.qualify import REPORT_FILE
from saccade.export.qualification.qualify_report import LayerFigure, QualifyReport
from saccade.export.qualification.serving import open_racing_backend
from saccade.export.recipe import Recipe
from saccade.export.steps import StepContext, qualified_name
from saccade.export.variants import TRAITS, VariantKind, VariantTraits
from saccade.models.contract.manifest import LatencyFigure
from saccade.models.contract.paired_speed import PairedSpeed
from saccade.models.contract.specs import Frozen
from saccade.service.paired_timing import ROUNDS, Run, TimingLimits, Timings, pairs_of, timed_in_turns
from saccade.service.repository.variants import ROUNDING

SPEED_FILE = "speed.json"


class SpeedFigures(Frozen):
    """What the step found out about one variant."""

    latency: tuple[LatencyFigure, ...] = ()
    paired_speeds: tuple[PairedSpeed, ...] = ()
    efficiency: Efficiency | None = None
    failure: str = ""  # why it could not be timed


_FIGURES = TypeAdapter(dict[str, SpeedFigures])


def run_speed(context: StepContext) -> Detail:
    """Writes `speed.json`, figures by variant."""
    recipe = context.recipe
    files: dict[str, tuple[Path, VariantTraits]] = {
        name: (context.inputs[qualified_name("precision", name)].file(MODEL_FILE), TRAITS[name])
        for name in by_exactness(recipe.variants)
        if not TRAITS[name].needs_gpu
    }
    context.note(f"{len(files)} variants in turns")
    timings = timed_files(files, recipe, context.data.split(context.loaded, "test").images)
    pairs = pairs_of(timings, [*files], "cpu", recipe.allowed_batch_sizes)
    figures: dict[str, SpeedFigures] = {}
    for name in recipe.variants:
        report = context.inputs[qualified_name("qualify", name)].file(REPORT_FILE)
        layers = QualifyReport.model_validate_json(report.read_bytes()).layers
        latency = _latency(timings, name, recipe)
        peak = measured_peak(usable_threads(recipe.qualify.threads)) if latency else None
        figures[name] = SpeedFigures(
            latency=latency,
            paired_speeds=pairs.get(name, ()),
            efficiency=efficiency_of([_layer(each) for each in layers], latency, peak),
            failure=timings.failures.get(name, ""),
        )
    (context.out / SPEED_FILE).write_bytes(_FIGURES.dump_json(figures, indent=2))
    told = (f"{name} {_fact(each)}" for name, each in figures.items() if each.latency or each.failure)
    return {"in_turns": "; ".join(told)}


def read_speed(artifact: Artifact) -> Mapping[str, SpeedFigures]:
    return _FIGURES.validate_json(artifact.file(SPEED_FILE).read_bytes())


def timed_files(files: Mapping[str, tuple[Path, VariantTraits]], recipe: Recipe, images: NDArray[np.uint8]) -> Timings:
    """Opens the files as the server does and times them in turns at every allowed batch size."""
    batches = [batch_of(images, size) for size in recipe.allowed_batch_sizes]
    spec = recipe.qualify
    limits = TimingLimits(
        turns=math.ceil(spec.latency_repeats / ROUNDS),
        budget_s=spec.latency_budget_s * len(batches) * len(files),
        block_s=spec.latency_budget_s / spec.latency_repeats,
    )

    @contextmanager
    def runs_of(file: Path, traits: VariantTraits) -> Iterator[list[Run]]:
        with closing(open_racing_backend(file, recipe, traits)) as backend:
            yield [partial(backend.infer, batch) for batch in batches]

    return timed_in_turns({name: partial(runs_of, *found) for name, found in files.items()}, limits)


def by_exactness(names: Sequence[VariantKind]) -> list[VariantKind]:
    """The names with the most exact first, in the server's order: less rounding, then dense before pruned.

    Of equally exact ones ONNX Runtime's come first.
    """
    traits = {name: TRAITS[name] for name in names}
    return sorted(
        names,
        key=lambda name: (ROUNDING[traits[name].precision], traits[name].form != "dense", traits[name].is_openvino),
    )


def _latency(timings: Timings, name: str, recipe: Recipe) -> tuple[LatencyFigure, ...]:
    rounds = timings.blocks.get(name, [])
    return tuple(
        latency_figure([block[index] for block in rounds], size)
        for index, size in enumerate(recipe.allowed_batch_sizes if rounds else ())
    )


def _layer(figure: LayerFigure) -> LayerPrecision:
    return LayerPrecision(
        figure.node,
        figure.op,
        figure.layer,
        figure.precision,
        figure.flops,
        figure.activations,
        figure.weights,
        figure.weight_bytes,
    )


def _fact(figures: SpeedFigures) -> str:
    """Returns what the progress line shows."""
    if figures.failure:
        return f"not timed: {figures.failure}"
    return figures.paired_speeds[0].text if figures.paired_speeds else f"{figures.latency[0].p50_ms:.2f} ms at batch 1"
