"""Describes the infer paths of the Open Inference Protocol."""

from __future__ import annotations

from saccade.service.api.http.openapi.parts import (
    JsonObject,
    answer_headers,
    described,
    error_responses,
    path_descriptions,
    reference,
)

_STATUSES = (400, 401, 403, 404, 413, 415, 500, 503)
_LENGTH = "Inference-Header-Content-Length"
_BINARY = {"schema": {"type": "string", "format": "binary"}}


def infer_operation(path_parameters: tuple[str, ...]) -> JsonObject:
    """The operation of an infer path with these parameters in it."""
    length: JsonObject = {"type": "integer", "minimum": 0}
    request = {
        "inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 69}}],
        "outputs": [{"name": "scores", "parameters": {"classification": 3}}],
    }
    return {
        "summary": "Infer",
        "description": f"Tensors as JSON, or behind the JSON as they are; one encoded picture alone with {_LENGTH}: 0.",
        "operationId": "infer_" + "_".join(path_parameters),
        "tags": ["open inference protocol"],
        "parameters": [
            *path_descriptions(path_parameters),
            described(_LENGTH, "header", length, "bytes of JSON; without it all of the body is JSON"),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference("InferRequest"), "example": request},
                "application/octet-stream": _BINARY,
            },
        },
        "responses": {
            "200": {
                "description": "The outputs of all images",
                "headers": answer_headers({_LENGTH: {"description": "only with binary outputs", "schema": length}}),
                "content": {
                    "application/json": {"schema": reference("InferAnswer")},
                    "application/octet-stream": _BINARY,
                },
            },
            **error_responses(*_STATUSES),
        },
    }
