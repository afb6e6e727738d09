"""Joins the descriptions of all routes into one document. Promises: what it says of a route, the route does."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from saccade.service.api.http.key_gate import asks_for_key
from saccade.service.api.http.oip.schemas import IndexRequest, InferAnswer, InferRequest, OipError
from saccade.service.api.http.openapi.infer import infer_operation
from saccade.service.api.http.openapi.parts import JsonObject, error_responses, names_in, problem_responses
from saccade.service.api.http.openapi.predict import predict_operation
from saccade.service.api.http.schemas import PredictAnswer, PredictRequest, Problem

_SCHEMAS: tuple[tuple[type[BaseModel], JsonSchemaMode], ...] = (
    (PredictRequest, "validation"),
    (PredictAnswer, "serialization"),
    (Problem, "serialization"),
    (InferRequest, "validation"),
    (InferAnswer, "serialization"),
    (IndexRequest, "validation"),
    (OipError, "serialization"),
)
_ONLY_OF_FASTAPI = ("HTTPValidationError", "ValidationError")  # the routes take any text and answer 404


def openapi_document(
    app: FastAPI,
    predict_paths: Sequence[str],
    infer_paths: Sequence[str],
    *,
    has_keys: bool,
    open_without_key: frozenset[str] = frozenset(),
) -> JsonObject:
    """FastAPI's document and what it does not know; `has_keys`: paths that `KeyGate` guards need one."""
    document: JsonObject = FastAPI.openapi(app)
    paths: dict[str, JsonObject] = document["paths"]
    for path in predict_paths:
        paths[path] = {"post": predict_operation(names_in(path))}
    for path in infer_paths:
        paths[path] = {"post": infer_operation(names_in(path))}
    for path, item in paths.items():
        for method, operation in item.items():
            _complete(operation, path, has_keys, asks_for_key(method.upper(), path, open_without_key))
        if "get" in item:
            item["head"] = _head_of(item["get"])
    components: dict[str, Any] = document["components"]
    _, schemas = models_json_schema(_SCHEMAS, ref_template="#/components/schemas/{model}")
    components["schemas"].update(schemas["$defs"])
    for name in _ONLY_OF_FASTAPI:
        components["schemas"].pop(name, None)
    components["securitySchemes"] = {
        "key": {"type": "http", "scheme": "bearer", "description": "one of SACCADE_API_KEYS_FILE; open without"}
    }
    return document


def _complete(operation: JsonObject, path: str, has_keys: bool, is_guarded: bool) -> None:
    responses = operation["responses"]
    refusals = error_responses if path.startswith("/v2") else problem_responses
    if "HTTPValidationError" in str(responses.get("422")):
        del responses["422"]
    for status, described in {**refusals(500), **(refusals(404) if "{" in path else {})}.items():
        responses.setdefault(status, described)
    if is_guarded:
        for status, described in refusals(401, 403).items():
            responses.setdefault(status, described)
        operation["security"] = [{"key": []}] if has_keys else [{}, {"key": []}]
    operation["responses"] = dict(sorted(responses.items()))


def _head_of(get: JsonObject) -> JsonObject:
    """The same without bodies."""
    head = copy.deepcopy(get)
    head["operationId"] += "_head"
    for response in head["responses"].values():
        response.pop("content", None)
    return head
