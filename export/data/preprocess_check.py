"""Step `preprocess`: compares the server's pixels with the library's own, when the source has a transform."""

from __future__ import annotations

from pathlib import Path

from saccade.export.artifact import Artifact, Detail
from saccade.export.data.fidelity import FidelityReport, measure_fidelity
from saccade.export.sources import library_transform
from saccade.export.sources.specs import source_name
from saccade.export.steps import StepContext

FIDELITY_FILE = "fidelity.json"


def run_preprocess(context: StepContext) -> Detail:
    """Writes `fidelity.json` when the source brings a transform of its own."""
    recipe = context.recipe
    transform = library_transform(context.loaded.network_request())
    if transform is None:
        return {"compared_with": "nothing: the source has no transform of its own"}
    report = measure_fidelity(recipe.preprocess, recipe.normalisation, transform, source_name(recipe.source))
    (context.out / FIDELITY_FILE).write_text(report.model_dump_json(indent=2))
    return {
        "compared_with": report.transform,
        "images": report.images,
        "share_within_one_level": report.share_within_one_level,
        "max_difference": report.max_difference,
    }


def read_fidelity(artifact: Artifact) -> FidelityReport | None:
    """Reads the comparison; None when the source had no transform to compare with."""
    path: Path = artifact.file(FIDELITY_FILE)
    return FidelityReport.model_validate_json(path.read_bytes()) if path.exists() else None
