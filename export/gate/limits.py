"""Defines the recipe's section `gate`: every limit of the gate, and how far each may be loosened without notice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, model_validator

from saccade.export.variants import Precision, VariantKind
from saccade.models.contract.manifest import MetricName
from saccade.models.contract.specs import Frozen
from saccade.models.metrics.agreement import Agreement

Share = Annotated[float, Field(ge=0.0, le=1.0)]

# Least agreement with the eager network when the recipe names none. A variant that is as good as the network may still
# answer differently when both are unsure, and sparse weights do so more often. These limits therefore catch broken
# variants, and the metric's budget catches lost accuracy.
MIN_AGREEMENT: Mapping[Agreement, float] = {
    "top1": 0.97,
    "labels": 0.95,
    "box_f1": 0.85,
    "box_iou": 0.85,
    "mask_iou": 0.85,
    "pixels": 0.97,
    "boundary_iou": 0.60,
    "cosine": 0.98,
    "neighbours": 0.80,
    "levels": 0.80,
}
# Share of multiply-adds that a file must do in the precision of its name; small layers may use another.
MIN_PRECISION_SHARE: Mapping[Precision, float] = {"fp32": 0.99, "fp16": 0.95, "bf16": 0.95, "int8": 0.80, "fp8": 0.80}


# What a network must gain over the best guess, as a share of the distance from the guess to a perfect metric. A
# detector's guess reaches nearly zero, so a small gain says much; a classifier may guess nearly right from brightness
# alone.
MIN_SKILL: Mapping[MetricName, float] = {
    "top1": 0.05,
    "map": 0.01,
    "miou": 0.05,
    "label_map": 0.05,
    "mask_map": 0.01,
    "recall_at_1": 0.05,
    "ssim": 0.05,
    "depth_accuracy": 0.05,
}
# With fewer test images, intervals are so wide that a limit of this file is reached only by luck.
MIN_TEST_IMAGES: Mapping[MetricName, int] = {
    "top1": 100,
    "map": 50,
    "miou": 50,
    "label_map": 100,
    "mask_map": 50,
    "recall_at_1": 100,
    "ssim": 50,
    "depth_accuracy": 50,
}


_UPPER = ("max", "corruptions.max")  # how names of limits begin that a figure must not exceed
_LIBRARY_SHARE = 0.99
_CORRUPTED_PICTURES = 200
LEAST_SIDE = 32  # pixels; smaller pictures have no common corruptions
LibraryName = Literal["ultralytics", "timm", "transformers", "torchvision", "onnx"]


class LibraryAgreement(Frozen):
    """Another program's answers, which the converted float network must give too.

    They are read from `answers`, a file beside the recipe, or asked of the installed library that `with` names. They
    are compared with the float network that every variant is made from, so that the check stands or falls for all
    variants together; how far a variant is from that network is what `min_agreement` limits.
    """

    model_config = ConfigDict(validate_by_name=True)

    answers: str | None = None
    library: LibraryName | None = Field(default=None, alias="with")
    min_share: Share = _LIBRARY_SHARE  # share of their boxes, pictures or pixels that are ours too
    pictures: int = Field(default=100, ge=1)  # at most so many, the first by name

    @model_validator(mode="after")
    def _names_one_program(self) -> LibraryAgreement:
        if (self.answers is None) == (self.library is None):
            raise ValueError("say either `answers: old.json` or `with: LIBRARY`")
        return self


class CorruptionLimits(Frozen):
    """What a variant may lose on corrupted pictures, as a share of the metric on clean ones."""

    pictures: int = Field(default=_CORRUPTED_PICTURES, ge=20)  # of the test split at most; each is corrupted 45 times
    max_mean_drop: float = Field(default=0.03, ge=0)  # against the eager network on the same pictures, by all of them
    max_worst_drop: float = Field(default=0.10, ge=0)  # the same by the kind of corruption that may have lost most
    max_clean_drop: float | None = Field(default=None, ge=0)  # mean drop of the variant against itself on clean ones


class GateThresholds(Frozen):
    """What a variant must reach. Shares and drops are fractions: 0.005 is half a point."""

    # metric: answers are compared with labels. parity: without labels, answers are compared only with the eager
    # network's. The version is then called unjudged everywhere, and a server serves it only when its settings say so.
    mode: Literal["metric", "parity"] = "metric"
    min_metric: float = Field(default=0.0, ge=0, le=1)  # applies to the lower end of the interval
    min_skill: Share | None = None  # applies to the lower end of the interval; null: MIN_SKILL
    min_test_images: int | None = Field(default=None, ge=1)  # null: MIN_TEST_IMAGES
    max_metric_drop: float = Field(default=0.005, ge=0)  # applies to the upper end of the paired bootstrap interval
    max_metric_drop_by_variant: dict[VariantKind, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    max_class_drop: float = Field(default=0.06, ge=0)  # the same limit for the class that may have lost most
    max_slice_drop: float = Field(default=0.06, ge=0)  # the same for the slice of `data.slices` that may have lost most
    min_slice_metric: Share | None = None  # applies to the lower end of each slice's interval
    min_agreement: dict[Agreement, Share] = Field(
        default_factory=dict
    )  # names missing here have the limits of MIN_AGREEMENT
    max_parity_error: float = Field(default=1e-4, gt=0)  # relative L2 against the eager network, for fp32
    max_half_parity_error: float = Field(default=2e-2, gt=0)  # the same for fp16 and bf16
    max_mask_disagreement: Share = 1e-3  # share of pixels
    max_half_mask_disagreement: Share = 1e-2
    max_batch_error: float = Field(default=1e-4, ge=0)  # relative L2 between an image alone and in a batch
    # for variants for GPUs, whose rounding depends on the batch
    max_half_batch_error: float = Field(default=5e-3, ge=0)
    min_precision_share: dict[Precision, Share] = Field(default_factory=dict)  # missing keys: MIN_PRECISION_SHARE
    # ratio of images per second, 2:4 / dense; applies to the lower end of its interval
    min_sparse_gain: float = Field(default=1.03, gt=0)
    min_speed_ratio: float = Field(default=0.97, gt=0)  # ratio of images per second, deploy graph / bare graph
    speed_ratio_gates: bool = False  # false: reported only, because timing on a shared machine is unreliable
    max_p99_ms_batch_1: float | None = Field(default=None, gt=0)
    min_images_per_s: float | None = Field(default=None, gt=0)  # at the best batch size
    # memory of one process that opened the file and ran a batch
    max_memory_mb: float | None = Field(default=None, gt=0)
    max_latency_regression: float | None = Field(
        default=None, ge=0
    )  # share of p50 at batch 1, against the newest version
    max_metric_regression: float | None = Field(default=None, ge=0)  # drop against the newest published version
    # share of pixels within one level of the library's own
    min_preprocess_agreement: float = Field(default=0.999, ge=0, le=1)
    library_agreement: LibraryAgreement | None = None  # null: no other program is asked
    corruptions: CorruptionLimits | None = None  # null: they are not measured, which takes 45 evaluations per variant
    allow_random_weights: bool = False  # true: an untrained network may be published
    allow_loose_thresholds: bool = False  # true: limits beyond LOOSEST are accepted, and the report says so

    @model_validator(mode="after")
    def _judges_what_it_limits(self) -> GateThresholds:
        if self.mode == "parity" and self.min_metric > 0:
            raise ValueError("mode parity asks for no label, so min_metric is never compared: leave one of both out")
        if self.mode == "parity" and self.corruptions is not None:
            raise ValueError("mode parity measures no metric, so corruptions cannot be judged: leave one of both out")
        return self

    def ensure_can_judge_slices(self, *, has_slices: bool) -> None:
        """Raises ValueError for slices whose metric nobody measures, and for a limit of slices without any."""
        if has_slices and not self.needs_labels:
            raise ValueError("mode parity measures no metric, so data.slices cannot be judged: leave one of both out")
        if self.min_slice_metric is not None and not has_slices:
            raise ValueError("gate.min_slice_metric limits slices, and the recipe has none: write `slices` in `data`")

    @property
    def needs_labels(self) -> bool:
        return self.mode == "metric"

    def metric_drop_limit(self, variant: str) -> float:
        """Returns a variant's own limit, or the common one."""
        own: Mapping[str, float] = {name: limit for name, limit in self.max_metric_drop_by_variant.items()}
        return own.get(variant, self.max_metric_drop)

    def skill_limit(self, metric: MetricName) -> float:
        return MIN_SKILL[metric] if self.min_skill is None else self.min_skill

    def test_images_limit(self, metric: MetricName) -> int:
        return MIN_TEST_IMAGES[metric] if self.min_test_images is None else self.min_test_images

    def agreement_limits(self) -> dict[Agreement, float]:
        return {**MIN_AGREEMENT, **self.min_agreement}

    def precision_limit(self, precision: Precision) -> float:
        return {**MIN_PRECISION_SHARE, **self.min_precision_share}[precision]


# The loosest limits that still mean something for any network; a recipe may go further only where the report says so.
LOOSEST: Mapping[str, float] = {
    "max_metric_drop": 0.05,
    "max_class_drop": 0.25,
    "max_slice_drop": 0.25,
    "max_parity_error": 1e-2,
    "max_half_parity_error": 1e-1,
    "max_mask_disagreement": 5e-2,
    "max_half_mask_disagreement": 5e-2,
    "max_batch_error": 1e-2,
    "max_half_batch_error": 5e-2,
    "min_agreement": 0.5,
    "min_skill": 0.001,
    "min_test_images": 20,
    "min_precision_share": 0.5,
    "min_preprocess_agreement": 0.95,
    "min_sparse_gain": 1.0,
}


def fewer_test_images(images: int) -> str:
    """Says what to write where only so many test images are at hand; few say so little that the report marks them."""
    if images < 1:
        return "add some"
    switch = ", allow_loose_thresholds: true" if images < LOOSEST["min_test_images"] else ""
    marked = " and the report marks it as loose" if switch else ""
    return f"add some, or set `gate: {{min_test_images: {images}{switch}}}`{marked}"


def loose_limits(thresholds: GateThresholds) -> list[str]:
    """Names the limits beyond LOOSEST, each with both numbers."""
    return [
        f"{name} {value:g} (at {'most' if name.startswith('max') else 'least'} {limit:g})"
        for name, value, limit in _bounded(thresholds)
        if (value > limit if name.startswith(_UPPER) else value < limit)
    ]


def looser_limits(thresholds: GateThresholds, metric: MetricName) -> list[str]:
    """Names the limits that are looser than the defaults, each with both numbers; every report shows them."""
    usual = GateThresholds()
    found = [
        f"{name} {given:g} (default {default:g})"
        for name, given, default in _with_defaults(thresholds, usual, metric)
        if (given > default if name.startswith(_UPPER) else given < default)
    ]
    switches = [name for name in ("allow_random_weights", "allow_loose_thresholds") if getattr(thresholds, name)]
    return [*found, *switches]


def _with_defaults(
    thresholds: GateThresholds, usual: GateThresholds, metric: MetricName
) -> Iterator[tuple[str, float, float]]:
    """Yields name, value and default of every limit that has both."""
    for name in GateThresholds.model_fields:
        given, default = getattr(thresholds, name), getattr(usual, name)
        if isinstance(given, float) and isinstance(default, float):
            yield name, given, default
    for variant, budget in thresholds.max_metric_drop_by_variant.items():
        yield f"max_metric_drop_by_variant.{variant}", budget, usual.max_metric_drop
    for agreement, least in thresholds.min_agreement.items():
        yield f"min_agreement.{agreement}", least, MIN_AGREEMENT[agreement]
    for precision, share in thresholds.min_precision_share.items():
        yield f"min_precision_share.{precision}", share, MIN_PRECISION_SHARE[precision]
    if thresholds.library_agreement is not None:
        yield "library_agreement.min_share", thresholds.library_agreement.min_share, _LIBRARY_SHARE
    if thresholds.corruptions is not None:
        for name in ("max_mean_drop", "max_worst_drop"):
            usual_drop: float = CorruptionLimits.model_fields[name].default
            yield f"corruptions.{name}", getattr(thresholds.corruptions, name), usual_drop
    yield "min_skill", thresholds.skill_limit(metric), MIN_SKILL[metric]
    yield "min_test_images", thresholds.test_images_limit(metric), MIN_TEST_IMAGES[metric]


def changed_limits(found: GateThresholds, agreed: GateThresholds) -> list[str]:
    """Says how the thresholds that were used differ from the agreed ones."""
    left, right = found.model_dump(mode="json"), agreed.model_dump(mode="json")
    return [f"{name} {left[name]} instead of {right[name]}" for name in left if left[name] != right[name]]


def _bounded(thresholds: GateThresholds) -> Iterator[tuple[str, float, float]]:
    """Yields name, value and loosest sensible value of every limit that has one."""
    for name, limit in LOOSEST.items():
        value = getattr(thresholds, name)
        if value is None:
            continue
        if isinstance(value, dict):
            yield from ((f"{name}.{key}", each, limit) for key, each in value.items())
        else:
            yield name, value, limit
    for variant, value in thresholds.max_metric_drop_by_variant.items():
        yield f"max_metric_drop_by_variant.{variant}", value, LOOSEST["max_metric_drop"]
    if thresholds.library_agreement is not None:
        yield "library_agreement.min_share", thresholds.library_agreement.min_share, LOOSEST["min_agreement"]
    if thresholds.corruptions is not None:
        yield "corruptions.max_mean_drop", thresholds.corruptions.max_mean_drop, LOOSEST["max_slice_drop"]
        yield "corruptions.max_worst_drop", thresholds.corruptions.max_worst_drop, LOOSEST["max_slice_drop"]
