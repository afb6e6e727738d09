"""What is said of a recipe's data beside complaints: whether there is enough of it, and what it can resolve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from saccade.export.data.data_report import SplitFacts, pictures_word
from saccade.export.data.familiar_pictures import why_no_trust
from saccade.export.data.resolution import resolution_sentence
from saccade.export.gate.limits import fewer_test_images, loose_limits
from saccade.export.recipe import LoadedRecipe
from saccade.export.variants import TRAITS
from saccade.models.contract.manifest import MetricName
from saccade.models.contract.specs import Task, input_tensor, output_tensors
from saccade.service.ipc.tensor_slots import layout_of
from saccade.service.settings import Settings

NO_TRUST = "answers will have no score of trust"
ALL_DENIED = "every variant will be denied"
_METRICS: Mapping[Task, MetricName] = {
    Task.CLASSIFY: "top1",
    Task.DETECT: "map",
    Task.SEGMENT: "miou",
    Task.INSTANCES: "mask_map",
    Task.EMBED: "recall_at_1",
    Task.IMAGE: "ssim",
}


def calibration_notes(loaded: LoadedRecipe, splits: Sequence[SplitFacts]) -> Iterator[str]:
    """Notes calibration sets with too few different pictures; formats below 32 bits need them for activation ranges."""
    recipe = loaded.recipe
    needed = recipe.calibration.min_images
    calibrated = () if loaded.quantized else recipe.variants
    reduced = [variant for variant in calibrated if TRAITS[variant].is_calibrated]
    for split in splits:
        different = split.different
        if split.name == "calibration" and reduced and 0 < different < needed:
            yield (
                f"{', '.join(reduced)} will be refused: calibration has {pictures_word(different)} and {needed} are "
                f"asked for: add some, or set `calibration: {{min_images: {different}}}`"
            )


def metric_of(loaded: LoadedRecipe) -> MetricName:
    task = loaded.recipe.task
    return "label_map" if task.multi_label else _METRICS[task.task]


def test_notes(loaded: LoadedRecipe, splits: Sequence[SplitFacts]) -> Iterator[str]:
    """Notes a test split below the gate's least number, which denies every variant after minutes of work."""
    recipe = loaded.recipe
    needed = recipe.gate.test_images_limit(metric_of(loaded))
    used = next((split.different for split in splits if split.name == "test"), 0)
    if recipe.gate.needs_labels and 0 < used < needed:
        yield (f"{ALL_DENIED}: test has {pictures_word(used)} and {needed} are asked for: {fewer_test_images(used)}")


def trust_notes(loaded: LoadedRecipe, splits: Sequence[SplitFacts]) -> Iterator[str]:
    """Notes data that is too little for a score of unfamiliarity, of which clients would hear at their requests."""
    reason = why_no_trust(loaded, splits)
    if reason:
        yield f"{NO_TRUST}: {reason}"


def size_notes(loaded: LoadedRecipe) -> Iterator[str]:
    """Notes tiles and inputs that a server refuses to load by its default."""
    recipe, usual = loaded.recipe, Settings.model_fields["max_slot_bytes"].default
    answer = output_tensors(recipe.task, recipe.preprocess)
    needed = layout_of(input_tensor(recipe.preprocess), answer).size_bytes
    if needed > usual:
        yield (
            f"servers refuse it until they have SACCADE_MAX_SLOT_BYTES={needed} or more: an image and its answer take "
            f"{needed:,} bytes, and a slot has {usual:,}: or make the input of `preprocess` smaller"
        )


def loose_notes(loaded: LoadedRecipe) -> Iterator[str]:
    """Notes limits beyond what says something, which deny every variant unless the recipe allows them."""
    gate = loaded.recipe.gate
    loose = [] if gate.allow_loose_thresholds else loose_limits(gate)
    if loose:
        yield (
            f"{ALL_DENIED}: limits so loose that they say nothing: {', '.join(loose)}: tighten them, "
            "or set `gate: {allow_loose_thresholds: true}`"
        )


def resolution_of(loaded: LoadedRecipe, splits: Sequence[SplitFacts]) -> str:
    if loaded.recipe.task.multi_label:
        return ""  # how far such a metric varies depends on how rare the labels are
    if not any(any(split.images_with) for split in splits):
        return ""  # nothing is measured without labels
    used = next((split.used for split in splits if split.name == "test"), 0)
    return resolution_sentence(loaded.recipe.task.task, used, loaded.recipe.gate.max_metric_drop) if used else ""
