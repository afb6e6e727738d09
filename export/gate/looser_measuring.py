"""Names what a recipe measures less thoroughly than by default, because limits then say less than their numbers."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.export.gate.limits import CorruptionLimits, LibraryAgreement
from saccade.export.recipe import CalibrationSpec, QualifySpec, Recipe

_COUNTS = (
    "bootstrap_resamples",
    "latency_repeats",
    "latency_budget_s",
    "compare_repeats",
    "compare_budget_s",
    "evidence_mib",
)  # the less of them, the less is known of what the gate limits
_BATCH_SIZES = ("parity_batch_sizes", "compare_batch_sizes")


def looser_measuring(recipe: Recipe) -> tuple[str, ...]:
    """Names keys outside of the gate that let more pass, each with both values; every report shows them."""
    return tuple(_looser(recipe))


def _looser(recipe: Recipe) -> Iterator[str]:
    usual, given = QualifySpec(), recipe.qualify
    for name in _COUNTS:
        if getattr(given, name) < getattr(usual, name):
            yield f"qualify.{name} {getattr(given, name):g} (default {getattr(usual, name):g})"
    for name in _BATCH_SIZES:
        sizes, default = getattr(given, name), getattr(usual, name)
        if len(sizes) < len(default) or max(sizes, default=0) < max(default):
            yield f"qualify.{name} {_listed(sizes)} (default {_listed(default)})"
    least = CalibrationSpec().min_images
    if recipe.calibration.min_images < least:
        yield f"calibration.min_images {recipe.calibration.min_images} (default {least})"
    pictures = LibraryAgreement.model_fields["pictures"].default
    library = recipe.gate.library_agreement
    if library is not None and library.pictures < pictures:
        yield f"gate.library_agreement.pictures {library.pictures} (default {pictures})"
    corruptions, usual_pictures = recipe.gate.corruptions, CorruptionLimits().pictures
    if corruptions is not None and corruptions.pictures < usual_pictures:
        yield f"gate.corruptions.pictures {corruptions.pictures} (default {usual_pictures})"


def _listed(sizes: tuple[int, ...]) -> str:
    return ", ".join(str(size) for size in sizes) or "none"
