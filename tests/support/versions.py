"""Writes published versions for tests, as the exporter would. The files are real; the figures are made up."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from saccade.models.contract.extras import ExtraKind, ExtraOutput
from saccade.models.contract.manifest import (
    UNJUDGED,
    FileEntry,
    GateCheck,
    GateDecision,
    LatencyFigure,
    Lineage,
    Manifest,
    MeasuredDevice,
    MetricFigure,
    Variant,
    manifest_bytes,
)
from saccade.models.contract.paired_speed import PairedSpeed
from saccade.models.contract.quality_ranges import MeasureRange, QualityRanges
from saccade.models.contract.specs import (
    MaskSpec,
    PreprocessSpec,
    Task,
    TaskSpec,
    TensorSpec,
    input_tensor,
    output_tensors,
)

SIDE = 32  # of the model input, pixels
EXPLANATION = ExtraOutput(
    kind=ExtraKind.EXPLAIN,
    output=TensorSpec(name="explanation", dtype="float32", shape=(4, 4)),
    method="class activation",
)
UNFAMILIARITY = ExtraOutput(
    kind=ExtraKind.TRUST, output=TensorSpec(name="unfamiliarity", dtype="float32", shape=()), method="gaussian"
)
DIGITS = tuple("0123456789")

_SPECS = {
    Task.CLASSIFY: TaskSpec(task=Task.CLASSIFY, top_k=10),
    Task.DETECT: TaskSpec(task=Task.DETECT, max_detections=8, score_threshold=0.25),
    Task.SEGMENT: TaskSpec(task=Task.SEGMENT, background_id=0),
    Task.INSTANCES: TaskSpec(
        task=Task.INSTANCES,
        max_detections=8,
        masks=MaskSpec(form="prototypes", channels=2, width=SIDE // 4, height=SIDE // 4),
    ),
    Task.EMBED: TaskSpec(task=Task.EMBED, dim=3),
    Task.IMAGE: TaskSpec(task=Task.IMAGE, picture="rgb"),
}
_METRICS = {
    Task.CLASSIFY: "top1",
    Task.DETECT: "map",
    Task.SEGMENT: "miou",
    Task.INSTANCES: "mask_map",
    Task.EMBED: "recall_at_1",
    Task.IMAGE: "ssim",
}


# Of pictures of at least 24 pixels with some edges, none nearly black or white.
PICTURES = QualityRanges(
    pictures=100,
    sharpness=MeasureRange(usual=40.0, lowest=10.0),
    exposure=MeasureRange(usual=1.0, lowest=0.9),
    size=MeasureRange(usual=48.0, lowest=24.0),
)


def manifest_for(
    model: str,
    version: int,
    task: Task = Task.CLASSIFY,
    *,
    content: bytes = b"weights",
    accepted: bool = True,
    allowed_batch_sizes: tuple[int, ...] = (1, 2, 4, 8),
    batchable: bool = True,
    judged: bool = True,
    spec: TaskSpec | None = None,
    preprocess: PreprocessSpec | None = None,
) -> Manifest:
    """A manifest with one variant, fp32 in model.onnx."""
    unjudged = GateCheck(name=UNJUDGED, passed=True, value="parity", limit=None, detail="no labels")
    fit = "stretch" if task is Task.CLASSIFY else "letterbox"
    preprocess = preprocess or PreprocessSpec.model_validate({"width": SIDE, "height": SIDE, "fit": fit})
    spec = spec or _SPECS[task]
    metric = MetricFigure(name=_METRICS[task], value=0.9, ci_low=0.88, ci_high=0.92, split="test", images=100)
    variant = Variant(
        name="fp32",
        precision="fp32",
        sparsity="dense",
        target="any",
        file="model.onnx",
        metric=metric,
        latency=(LatencyFigure(batch_size=1, p50_ms=1.0, p90_ms=1.1, p99_ms=1.2, images_per_s=1000.0),),
        measured_on=MeasuredDevice(kind="cpu", name="test", threads=2),
        detail={},
        gate=GateDecision(
            accepted=accepted,
            checks=(
                GateCheck(name="parity", passed=accepted, value=0.0, limit=1e-4, detail="relative L2"),
                *(() if judged else (unjudged,)),
            ),
        ),
    )
    return Manifest(
        model=model,
        version=version,
        created="2026-01-01T00:00:00Z",
        source="test",
        weights="random",
        task=spec,
        labels=("background", *DIGITS) if task is Task.SEGMENT else DIGITS,
        preprocess=preprocess,
        input=input_tensor(preprocess),
        outputs=output_tensors(spec, preprocess),
        batchable=batchable,
        not_batchable_reason="" if batchable else "rows of a batch change each other",
        allowed_batch_sizes=allowed_batch_sizes if batchable else (1,),
        reference_metric=metric,
        quality=PICTURES,
        judged=judged,
        variants=(variant,),
        files=(FileEntry(path="model.onnx", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()),),
        lineage=(Lineage(step="wrap", digest="0" * 64, tool="test"),),
    )


def with_extras(manifest: Manifest, *extras: ExtraOutput) -> Manifest:
    """A manifest all of whose variants compute these outputs when asked."""
    variants = [variant.model_copy(update={"extras": extras}) for variant in manifest.variants]
    return manifest.model_copy(update={"variants": tuple(variants)})


def with_variants(manifest: Manifest, **figures: tuple[float, float]) -> Manifest:
    """The same version in these variants: (metric, images/s on a CPU) by name, `_` for `-`. All open the same file."""
    (first,) = manifest.variants

    def variant(name: str, metric: float, images_per_s: float) -> Variant:
        (latency,) = first.latency
        return first.model_copy(
            update={
                "name": name.replace("_", "-"),
                "precision": "int8" if name.startswith("int8") else "fp16" if name.startswith("fp16") else "fp32",
                "metric": first.metric.model_copy(update={"value": metric}),
                "latency": (latency.model_copy(update={"images_per_s": images_per_s}),),
            }
        )

    variants = [variant(name, *pair) for name, pair in figures.items()]
    return manifest.model_copy(update={"variants": tuple(with_made_up_pairs(variants))})


def with_made_up_pairs(variants: Sequence[Variant]) -> list[Variant]:
    """The variants, each compared with all before it as their made-up images/s say, give or take a hundredth."""

    def pair(item: Variant, other: Variant) -> PairedSpeed:
        ratio = item.latency[0].images_per_s / other.latency[0].images_per_s
        return PairedSpeed(
            against=other.name,
            device_kind=item.measured_on.kind,
            ratio=ratio,
            ci_low=0.99 * ratio,
            ci_high=1.01 * ratio,
            rounds=20,
            batch_sizes=(1,),
        )

    return [
        item.model_copy(update={"paired_speeds": tuple(pair(item, other) for other in variants[:count])})
        for count, item in enumerate(variants)
    ]


def with_costs(manifest: Manifest, **image_ms: int) -> tuple[Manifest, dict[str, bytes]]:
    """Each of these variants in a file of its own, which the fake backend takes so long for; and the files."""
    files = {f"{name}.onnx": b"an image takes %d ms" % cost for name, cost in image_ms.items()}
    variants = tuple(
        item.model_copy(update={"file": f"{item.name.replace('-', '_')}.onnx"}) for item in manifest.variants
    )
    return with_files(manifest.model_copy(update={"variants": variants}), files), files


def with_files(manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """The same manifest over these files."""
    entries = tuple(
        FileEntry(path=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    )
    return manifest.model_copy(update={"files": entries})


def publish(
    repository: Path, manifest: Manifest, content: bytes = b"weights", files: Mapping[str, bytes] | None = None
) -> Path:
    """Writes a version directory in one rename, as the exporter does; `files` stand in for model.onnx."""
    building = repository / manifest.model / f".building-{manifest.version}"
    building.mkdir(parents=True)
    for name, data in (files or {"model.onnx": content}).items():
        (building / name).write_bytes(data)
    (building / "manifest.json").write_bytes(manifest_bytes(manifest))
    final = repository / manifest.model / str(manifest.version)
    building.rename(final)
    return final


def publish_fake(
    repository: Path, model: str, version: int, task: Task = Task.CLASSIFY, content: bytes = b"weights", **options: Any
) -> Path:
    """Publishes what the fake backend serves; `options` go to manifest_for."""
    return publish(repository, manifest_for(model, version, task, content=content, **options), content)


def remove(version_dir: Path) -> None:
    """Deletes a version in one rename, so that a server never sees half of it."""
    gone = version_dir.parent / f".gone-{version_dir.name}"
    version_dir.rename(gone)
    shutil.rmtree(gone)
