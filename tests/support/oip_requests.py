"""Requests of the Open Inference Protocol as its clients write them, and what their answers hold."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np

from tests.support.server import Server
from tests.support.versions import SIDE

MODEL = "/v2/models/classifier"
INFER = MODEL + "/infer"
IMAGE_BYTES = SIDE * SIDE * 3
LENGTH = "Inference-Header-Content-Length"


def pixels(*reds: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    images = np.full((len(reds), SIDE, SIDE, 3), 100, np.uint8)
    images[:, 0, 0, 0] = reds
    return images


def binary_body(document: dict[str, Any], *tensors: bytes) -> tuple[bytes, dict[str, str]]:
    header = json.dumps(document).encode()
    return header + b"".join(tensors), {LENGTH: str(len(header))}


def pixel_input(images: np.ndarray[Any, Any], **changes: Any) -> dict[str, Any]:
    return {
        "name": "images",
        "datatype": "UINT8",
        "shape": list(images.shape),
        "parameters": {"binary_data_size": images.nbytes},
        **changes,
    }


def infer(server: Server, body: bytes, headers: dict[str, str] | None = None, path: str = INFER) -> httpx.Response:
    return server.client.post(path, content=body, headers=headers or {})


def outputs_of(response: httpx.Response) -> dict[str, dict[str, Any]]:
    assert response.status_code == 200, response.text
    size = response.headers.get(LENGTH)
    document = json.loads(response.content[: int(size)] if size else response.content)
    return {output["name"]: output for output in document["outputs"]}


def reds_of(response: httpx.Response) -> list[int]:
    """Of JSON scores: the fake backend's are all the first pixel's red."""
    output = outputs_of(response)["scores"]
    return [round(value * 255) for value in np.array(output["data"]).reshape(output["shape"])[:, 0]]
