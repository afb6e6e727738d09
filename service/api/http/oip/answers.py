"""Inference answers of the protocol. Promises: pure; tensors in the order asked for, rows in the order of images."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import Geometry, boxes_to_source, unmoved
from saccade.service.api.http.oip.tensors import DATATYPES, InferRequest, WantedOutput
from saccade.service.core import VersionKey
from saccade.service.vision.answers import ensure_usable
from saccade.service.vision.extras import ensure_finite
from saccade.service.vision.parameters import Parameters

Rows = dict[str, NDArray[Any]]  # one image's outputs by name
Header = tuple[bytes, bytes]
_COMPRESSED_BYTES = range(1024, 256 * 1024)  # smaller ones gain nothing, larger ones would hold the event loop
_LEVEL = 1
_WBITS = {b"gzip": 31, b"deflate": 15}


def rows_of(outputs: Sequence[NDArray[Any]], place: Geometry, manifest: Manifest, parameters: Parameters) -> Rows:
    """Copies, since the slot is used again. Boxes are moved to the pixels of the picture that was sent.

    Raises NotFinite or NoDirection, in binary as in JSON: no client takes such numbers for an answer.
    """
    extras = [extra.output for extra in parameters.extras]
    ensure_usable(outputs[: len(manifest.answer)], manifest)
    ensure_finite(outputs[len(manifest.answer) :], parameters.extras)
    rows = {spec.name: np.array(array) for spec, array in zip((*manifest.answer, *extras), outputs, strict=True)}
    if "boxes" in rows and place != unmoved(manifest.preprocess):
        rows["boxes"] = boxes_to_source(rows["boxes"], place)
    return rows


def answer_of(
    request: InferRequest,
    rows: Sequence[Rows],
    warnings: Sequence[str],
    key: VersionKey,
    labels: Sequence[str],
    accepted: bytes,
) -> tuple[bytes, bytes, list[Header]]:
    """(body, content type, more headers); `warnings` as `rows`, empty ones too; `accepted` is Accept-Encoding."""
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for wanted in request.outputs:
        output, content = _output(wanted, rows, labels)
        outputs.append(output)
        if content is not None:
            binary.append(content)
    document: dict[str, Any] = {"model_name": key.model, "model_version": str(key.version)}
    if request.request_id:
        document["id"] = request.request_id
    if any(warnings):
        document["parameters"] = {"warning": _warning(warnings)}
    header = orjson.dumps({**document, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    if not binary:
        body, content_type, headers = header, b"application/json", []
    else:
        body, content_type = b"".join((header, *binary)), b"application/octet-stream"
        headers = [(b"inference-header-content-length", b"%d" % len(header))]
    encoding = _encoding(accepted) if len(body) in _COMPRESSED_BYTES else None
    if encoding is None:
        return body, content_type, headers
    compressor = zlib.compressobj(_LEVEL, wbits=_WBITS[encoding])
    headers.append((b"content-encoding", encoding))
    return compressor.compress(body) + compressor.flush(), content_type, headers


def _output(wanted: WantedOutput, rows: Sequence[Rows], labels: Sequence[str]) -> tuple[dict[str, Any], bytes | None]:
    if wanted.classes:
        return _classes(wanted, rows, labels)
    tensor = np.stack([row[wanted.name] for row in rows])
    if tensor.ndim == 1:
        tensor = tensor[:, np.newaxis]
    output: dict[str, Any] = {
        "name": wanted.name,
        "datatype": DATATYPES[tensor.dtype.name],
        "shape": list(tensor.shape),
    }
    if not wanted.is_binary:
        return {**output, "data": tensor.reshape(-1)}, None
    content = tensor.tobytes()
    return {**output, "parameters": {"binary_data_size": len(content)}}, content


def _classes(wanted: WantedOutput, rows: Sequence[Rows], labels: Sequence[str]) -> tuple[dict[str, Any], bytes | None]:
    """The classification extension: `value:index:label`, best first."""
    texts = [
        f"{score:f}:{class_id}:{labels[class_id]}"
        for row in rows
        for score, class_id in zip(
            row["scores"][: wanted.classes].tolist(), row["class_ids"][: wanted.classes].tolist(), strict=True
        )
    ]
    output: dict[str, Any] = {
        "name": wanted.name,
        "datatype": "BYTES",
        "shape": [len(rows), len(texts) // len(rows)],
    }
    if not wanted.is_binary:
        return {**output, "data": texts}, None
    encoded = [text.encode() for text in texts]
    content = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
    return {**output, "parameters": {"binary_data_size": len(content)}}, content


def _warning(warnings: Sequence[str]) -> str:
    """One text, since values of the protocol's parameters are no lists; of a batch it says which images it means."""
    if len(warnings) == 1:
        return warnings[0]
    return "; ".join(f"image {index}: {text}" for index, text in enumerate(warnings) if text)


def _encoding(accepted: bytes) -> bytes | None:
    offered = {part.partition(b";")[0].strip() for part in accepted.lower().split(b",") if b"q=0" not in part}
    return next((name for name in _WBITS if name in offered), None)
