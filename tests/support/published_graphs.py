"""Publishes a small network in variants for TensorRT. The files are real; figures and gates are made up."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from saccade.export.precision.quantization.calibrate import activations
from saccade.export.precision.quantization.calibration import observe
from saccade.export.precision.quantization.placement_trt import placement_for_tensorrt
from saccade.export.precision.quantization.qdq_trt import INT8_FORMAT, quantized_for_tensorrt
from saccade.export.precision.quantization.thresholds import minmax_range
from saccade.models.contract.manifest import FileEntry, GateCheck, GateDecision, manifest_bytes, read_manifest
from tests.support.residual_network import SIDE, residual_network
from tests.support.versions import manifest_for

Verdict = Literal["accepted", "pending", "denied"]
_FORMS = {
    "fp32": ("fp32", "dense", "any"),
    "int8-cpu": ("int8", "dense", "cpu"),
    "int8-trt": ("int8", "dense", "trt"),
    "int8-trt-sparse24": ("int8", "two_four", "trt"),
}
SPARSE_LAYER = "second"


@functools.cache
def graph(variant: str) -> bytes:
    model = residual_network(sparse_layer=SPARSE_LAYER if variant.endswith("sparse24") else None)
    if variant.startswith("int8"):
        images = np.random.default_rng(1).integers(0, 256, (6, SIDE, SIDE, 3), np.uint8)
        ranges = {name: minmax_range(each) for name, each in observe(model, activations(model), images).items()}
        model = quantized_for_tensorrt(model, placement_for_tensorrt(model), ranges, INT8_FORMAT)
    return model.SerializeToString()


def move_weights_out(directory: Path, variant: str = "int8-trt") -> None:
    """Rewrites a published variant so that its weights lie beside the graph, in weights.bin."""
    manifest = read_manifest(directory)[0]
    file = directory / f"{variant}.onnx"
    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=64)
    names = (*(entry.path for entry in manifest.files), "weights.bin")
    changed = manifest.model_copy(
        update={
            "files": tuple(_entry(name, (directory / name).read_bytes()) for name in names),
            "variants": tuple(
                each.model_copy(update={"external_data": ("weights.bin",)}) if each.name == variant else each
                for each in manifest.variants
            ),
        }
    )
    (directory / "manifest.json").write_bytes(manifest_bytes(changed))


def publish_graphs(
    repository: Path,
    verdicts: Mapping[str, Verdict],
    version: int = 1,
    *,
    allowed_batch_sizes: tuple[int, ...] = (1, 2, 4),
    replaced: Mapping[str, onnx.ModelProto] | None = None,
) -> Path:
    """`digits/<version>` with these variants; `replaced` are other graphs than the residual network's."""
    contents = {name: graph(name) for name in verdicts}
    contents |= {name: model.SerializeToString() for name, model in (replaced or {}).items()}
    manifest = manifest_for("digits", version, allowed_batch_sizes=allowed_batch_sizes)
    template = manifest.variants[0]
    variants = tuple(
        template.model_copy(
            update={
                "name": name,
                "file": f"{name}.onnx",
                "gate": _gate(verdict),
                **dict(zip(("precision", "sparsity", "target"), _FORMS[name], strict=True)),
            }
        )
        for name, verdict in verdicts.items()
    )
    files = tuple(_entry(f"{name}.onnx", content) for name, content in contents.items())
    directory = repository / "digits" / str(version)
    directory.mkdir(parents=True)
    for name, content in contents.items():
        (directory / f"{name}.onnx").write_bytes(content)
    changed = manifest.model_copy(update={"variants": variants, "files": files})
    (directory / "manifest.json").write_bytes(manifest_bytes(changed))
    return directory


def _entry(path: str, content: bytes) -> FileEntry:
    return FileEntry(path=path, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _gate(verdict: Verdict) -> GateDecision:
    is_accepted = verdict == "accepted"
    check = GateCheck(
        name="parity", passed=is_accepted, pending=verdict == "pending", value=0.0, limit=1.0, detail="made up"
    )
    return GateDecision(accepted=is_accepted, checks=(check,))
