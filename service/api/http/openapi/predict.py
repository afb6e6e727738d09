"""Describes the predict paths. Promises: the parameters are those of the JSON body, in the query too."""

from __future__ import annotations

from typing import Any

from saccade.service.api.http.image_bodies import RAW_TYPES
from saccade.service.api.http.openapi.parts import (
    JsonObject,
    answer_headers,
    described,
    path_descriptions,
    problem_responses,
    reference,
)
from saccade.service.api.http.picture_bodies import PICTURE_TYPES
from saccade.service.api.http.schemas import PredictParameters

_STATUSES = (400, 401, 403, 404, 413, 415, 422, 429, 500, 503, 504)
_BINARY = {"type": "string", "format": "binary"}
_RED_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4wcAAAAJcAMlDyBJGAAAAAElFTkSuQmCC"  # a PNG
_HEADERS: tuple[tuple[str, JsonObject, str], ...] = (
    (
        "X-Priority",
        {"type": "string", "enum": ["high", "normal", "low"]},
        "order among requests that are due within a second of each other; low is refused first",
    ),
    (
        "X-Routing-Key",
        {"type": "string"},
        "requests of one key stay with stable or with the canary; without it each request is on its own",
    ),
    ("X-Request-Id", {"type": "string"}, "comes back with the answer; up to 128 printable characters"),
)


def predict_operation(path_parameters: tuple[str, ...]) -> JsonObject:
    """The operation of a predict path with these parameters in it."""
    raw: JsonObject = {"schema": _BINARY}
    request = {"images": [{"b64": _RED_PIXEL}], "parameters": {"deadline_ms": 1000}}
    return {
        "summary": "Predict",
        "description": "One image as it is, or several as a form or JSON. Answers are in the order of the images.",
        "operationId": "predict_" + "_".join(path_parameters),
        "x-codeSamples": _code_samples(path_parameters),
        "tags": ["predict"],
        "parameters": [
            *path_descriptions(path_parameters),
            *_query_parameters(),
            *(described(name, "header", schema, text) for name, schema, text in _HEADERS),
        ],
        "requestBody": {
            "required": True,
            "content": {
                **dict.fromkeys(RAW_TYPES, raw),
                "multipart/form-data": {"schema": _form()},
                "application/json": {"schema": reference("PredictRequest"), "example": request},
            },
        },
        "responses": {
            "200": {
                "description": "Predictions, one per image",
                "headers": answer_headers(_answer_headers()),
                "content": {
                    "application/json": {"schema": reference("PredictAnswer"), "examples": _examples()},
                    # task image, where Accept names one of them first
                    **{kind.decode(): {"schema": _BINARY} for kind in PICTURE_TYPES},
                },
            },
            **problem_responses(*_STATUSES),
        },
    }


def _code_samples(path_parameters: tuple[str, ...]) -> list[JsonObject]:
    """As tools that show OpenAPI documents read them."""
    place = "".join(f"/{name}s/{name.upper()}" for name in path_parameters)
    named = ", ".join(f'{name}="{name.upper()}"' for name in path_parameters)
    program = f"""from saccade.client import Client

with Client("http://127.0.0.1:8000") as client:
    answer = client.predict("photo.jpg", {named})
    answer.draw("photo.jpg").save("answer.png")
"""
    command = f"curl --data-binary @photo.jpg http://127.0.0.1:8000/v1{place}/predict"
    return [
        {"lang": "Shell", "label": "curl", "source": command},
        {"lang": "Python", "label": "Python", "source": program},
    ]


def _query_parameters() -> list[JsonObject]:
    found = []
    for name, schema in PredictParameters.model_json_schema()["properties"].items():
        (kind,) = [choice for choice in schema["anyOf"] if choice != {"type": "null"}]
        found.append(described(name, "query", kind, schema["description"]))
    return found


def _form() -> JsonObject:
    images = {"type": "array", "minItems": 1, "items": _BINARY, "description": "parts may be named file as well"}
    return {"type": "object", "properties": {"image": images}, "required": ["image"]}


def _answer_headers() -> JsonObject:
    return {
        "Server-Timing": {"description": "the stages' durations in milliseconds", "schema": {"type": "string"}},
        "X-Saccade-Rung": {
            "description": "with a ladder: which of its variants answered; 0 is the best",
            "schema": {"type": "integer", "minimum": 0},
        },
    }


def _examples() -> JsonObject:
    """One per task."""
    seven: JsonObject = {"label": "7", "class_id": 7, "score": 0.98}
    rle = {"size": [4, 6], "counts": "92207"}
    predictions: dict[str, JsonObject] = {
        "classify": {"classes": [seven, {"label": "1", "class_id": 1, "score": 0.01}]},
        "detect": {"detections": [{**seven, "box": [1.0, 0.5, 4.5, 3.5]}]},
        "segment": {"segments": [{"label": "7", "class_id": 7, "area": 4, "rle": rle}]},
        "segment-instances": {"detections": [{**seven, "box": [1.0, 0.5, 4.5, 3.5], "area": 4, "rle": rle}]},
        "embed": {"embedding": {"dim": 2, "dtype": "float32", "values": [0.6, -0.8]}},
        "image": {"image": {"width": 12, "height": 8, "format": "png", "base64": _RED_PIXEL}},
    }
    return {task: {"value": _answer(prediction)} for task, prediction in predictions.items()}


def _answer(prediction: JsonObject) -> dict[str, Any]:
    return {
        "model": "digits",
        "version": "2",
        "variant": "int8-cpu",
        "request_id": "5f0c2d7a9b0000000001",
        "predictions": [{"width": 6, "height": 4, **prediction}],
        "timings_ms": {"decode": 0.7, "queue": 1.2, "infer": 8.1, "postprocess": 0.2, "total": 10.4},
    }
