"""Writes a published version as a Triton model repository. Promises: the files that passed the gate, byte for byte.

Triton gets the deploy graph and its configuration. What a server of ours does around the graph is not in it, and
`README.md` beside the configuration says so.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from saccade.export.errors import ExportError, RecipeError
from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.specs import TensorSpec
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.repository.without_extras import without_extras

_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32", "int32": "TYPE_INT32"}
_KINDS = {"any": "KIND_AUTO", "cpu": "KIND_CPU", "gpu": "KIND_GPU"}  # by a variant's target
_LABELS = "labels.txt"


def triton_variant(manifest: Manifest, name: str | None) -> Variant:
    """The named variant, else the first accepted one that ONNX Runtime can open. Raises RecipeError."""
    usable = [variant for variant in manifest.accepted_variants() if variant.target in _KINDS]
    chosen = [variant for variant in usable if name in (None, variant.name)]
    if not chosen:
        there = ", ".join(variant.name for variant in usable) or "none"
        raise RecipeError(
            f"no variant {name or 'for ONNX Runtime'!r} of {manifest.model}/{manifest.version} can be given to Triton; "
            f"accepted and not made for TensorRT: {there}"
        )
    return chosen[0]


def triton_config(manifest: Manifest, variant: Variant) -> str:
    """The text of config.pbtxt. Sizes of batches are those that the gate has seen."""
    largest = max(manifest.allowed_batch_sizes)
    blocks = [
        f"name: {_text(manifest.model)}",
        'backend: "onnxruntime"',
        f"default_model_filename: {_text(variant.file)}",
        f"max_batch_size: {largest}",
        _tensor("input", manifest.input, "  format: FORMAT_NHWC\n"),
        *(_tensor("output", spec) for spec in manifest.outputs),
        f"instance_group [\n{{\n  count: 1\n  kind: {_KINDS[variant.target]}\n}}\n]",
    ]
    if largest > 1:
        sizes = ", ".join(map(str, manifest.allowed_batch_sizes))
        blocks.append(f"dynamic_batching {{\n  preferred_batch_size: [ {sizes} ]\n}}")
    blocks += [
        _parameter("saccade_variant", variant.name),
        _parameter("saccade_preprocess", json.dumps(manifest.preprocess.model_dump(mode="json"), sort_keys=True)),
    ]
    return "\n".join(blocks) + "\n"


def triton_note(version: VerifiedVersion, variant: Variant) -> str:
    """What reaches Triton and what does not, for the person who runs it."""
    manifest = version.manifest
    outputs = ", ".join(spec.name for spec in manifest.outputs)
    return f"""# {manifest.model}/{manifest.version} for Triton

Variant {variant.name}, from the manifest with SHA-256 {version.manifest_sha256}. The gate measured this graph in
saccade's own server, not in Triton. Outputs that only some requests ask for, as explanations are, were taken out of it.

Here: the deploy graph, from uint8 pixels `{manifest.input.name}` {list(manifest.input.shape)} to {outputs}, with
normalisation, decoding of boxes and suppression inside; batches of {", ".join(map(str, manifest.allowed_batch_sizes))}.

Not here, and left to the client or to a Python or DALI model in front:

- reading JPEG, PNG, WebP or BMP, turning by EXIF, and refusing what is damaged or too large;
- resizing (parameter saccade_preprocess in config.pbtxt): other rules, antialiasing above all, give other answers;
- moving boxes and masks back to the pixels of the picture: they are in pixels of the network's input;
- rows behind `counts`, and below a score threshold, are not cut off;
- labels: `class_ids` count lines of {_LABELS} from 0. The configuration names no label_filename, because Triton would
  take the position in sorted `scores` for the class.
- refusing requests that cannot be answered in time, other variants under load, rollouts, signatures, replays at start.
"""


def write_triton_repository(version: VerifiedVersion, variant: Variant, root: Path) -> Path:
    """Writes `root`/MODEL in one rename and returns it. Raises RecipeError when it is there, ExportError."""
    manifest = version.manifest
    target = root / manifest.model
    if target.exists():
        raise RecipeError(f"{target} is there already: remove it, or choose another directory with --into")
    building = root / f".{manifest.model}.partial"
    try:
        shutil.rmtree(building, ignore_errors=True)
        graphs = building / str(manifest.version)
        graphs.mkdir(parents=True)
        for name in (variant.file, *variant.external_data):
            (graphs / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(version.path / name, graphs / name)
        graph = graphs / variant.file
        graph.write_bytes(without_extras(graph.read_bytes(), variant.extras))
        texts = {
            "config.pbtxt": triton_config(manifest, variant),
            _LABELS: "".join(f"{label}\n" for label in manifest.labels),
            "README.md": triton_note(version, variant),
        }
        for name, text in texts.items():
            (building / name).write_text(text, "utf-8")
        building.rename(target)
    except OSError as error:
        shutil.rmtree(building, ignore_errors=True)
        raise ExportError(f"cannot write {target}: {error.strerror}") from error
    return target


def _tensor(kind: str, spec: TensorSpec, more: str = "") -> str:
    dims: Sequence[int] = spec.shape or (1,)
    # One number per image has no dimension of its own in the graph, and Triton knows no tensor without one.
    reshape = "" if spec.shape else "  reshape: { shape: [ ] }\n"
    listed = ", ".join(map(str, dims))
    return (
        f"{kind} [\n{{\n  name: {_text(spec.name)}\n  data_type: {_TYPES[spec.dtype]}\n{more}"
        f"  dims: [ {listed} ]\n{reshape}}}\n]"
    )


def _parameter(key: str, value: str) -> str:
    return f"parameters {{\n  key: {_text(key)}\n  value: {{ string_value: {_text(value)} }}\n}}"


def _text(value: str) -> str:
    """A string of protobuf's text format, whose escapes are C's: octal for bytes that are not plain."""
    written = (chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\' else f"\\{byte:03o}" for byte in value.encode())
    return f'"{"".join(written)}"'
