"""Collects for the report what earlier steps wrote; what a step did not write is absent."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

import orjson

from saccade.export.artifact import Artifact, Detail
from saccade.export.precision.files import CALIBRATION_FILE
from saccade.export.reports.compression_report import (
    PruningReport,
    QuantizedLayer,
    SparsityReport,
    read_pruning,
    read_quantized_layers,
    read_sparsity,
)
from saccade.export.reports.export_report import VariantReport
from saccade.export.reports.sections.mistakes import example_file
from saccade.export.steps import StepContext, qualified_name
from saccade.export.variants import forms_of


def command_of(context: StepContext) -> str:
    """Returns the command that makes this report again, with the paths as they were given."""
    work = context.out.parent.parent  # steps write to <work>/<model>/<step>
    words = ("saccade-export", "run", context.loaded.given, "--repository", context.repository, "--work", work)
    loaded = context.loaded
    chosen = [word for name in loaded.recipe.variants if loaded.left_out for word in ("--variant", name)]
    return shlex.join(str(word) for word in (*words, *chosen))


def split_digests(inputs: Mapping[str, Artifact]) -> dict[str, str]:
    """Returns the SHA-256 of the images of each split that a step used."""
    digests: dict[str, str] = {}
    for name, made in inputs.items():
        for split in ("calibration", "tuning", "test", "train"):
            digest = made.detail.get(f"{split}_sha256")
            if isinstance(digest, str):
                digests.setdefault(split, digest)
        table = made.file(CALIBRATION_FILE)
        if name.startswith("precision.") and table.exists():
            digests.setdefault("tuning", orjson.loads(table.read_bytes())["tuning_sha256"])
    return dict(sorted(digests.items()))


def form_details(context: StepContext) -> dict[str, Detail]:
    """Returns how each form of the weights other than the dense one was made."""
    return {
        form: context.inputs[qualified_name("compress", form)].detail
        for form in forms_of(context.recipe.variants)
        if qualified_name("compress", form) in context.inputs and form != "dense"
    }


def sparsity_of(context: StepContext) -> SparsityReport | None:
    made = context.inputs.get(qualified_name("compress", "sparse24"))
    return None if made is None else read_sparsity(made.directory)


def pruning_of(context: StepContext) -> PruningReport | None:
    made = context.inputs.get(qualified_name("compress", "pruned"))
    return None if made is None else read_pruning(made.directory)


def quantized_layers(context: StepContext) -> dict[str, tuple[QuantizedLayer, ...]]:
    """Returns the layers of every variant whose step wrote them."""
    found = {
        name: read_quantized_layers(context.inputs[qualified_name("precision", name)].directory)
        for name in context.recipe.variants
    }
    return {name: layers for name, layers in found.items() if layers}


def example_pictures(context: StepContext, variants: tuple[VariantReport, ...]) -> dict[str, Path]:
    """Returns the path of each picture of differing answers, by its name in the report."""
    made = {name: context.inputs[qualified_name("qualify", name)] for name in context.recipe.variants}
    by_variant: dict[str, Artifact] = {name: artifact for name, artifact in made.items()}
    return {
        example_file(variant.qualify.variant, example.file): by_variant[variant.qualify.variant].file(example.file)
        for variant in variants
        if variant.qualify.disagreements is not None
        for example in variant.qualify.disagreements.examples
    }
