"""What descriptions of several routes share: parameters, headers, and the refusals of both protocols."""

from __future__ import annotations

from typing import Any

from saccade.service.api.http.error_responses import problem, titles_by_status

JsonObject = dict[str, Any]

_DETAILS = {
    400: "the request holds no image",
    401: "this server asks for a key: send Authorization: Bearer KEY",
    403: "the key is not known to this server",
    404: "no model 'digit'; there are: digits-classifier, digits-detector",
    413: "the body has more than 33554432 bytes (SACCADE_MAX_BODY_BYTES)",
    415: "content type 'text/plain' is not taken; allowed are: image/jpeg, image/png",
    422: "unknown parameter 'topk'; parameters are: top_k, score_threshold",
    429: "the wait for the device would be longer than the deadline; try again later",
    500: "an internal error; quote the request id when reporting it",
    503: "this server is shutting down; send the request to another replica",
    504: "the deadline of 50 ms cannot be met",
}
_RETRY_AFTER = {"Retry-After": {"description": "whole seconds", "schema": {"type": "integer", "minimum": 1}}}
_REQUEST_ID = {"X-Request-Id": {"description": "the client's own, else made here", "schema": {"type": "string"}}}


def reference(schema: str) -> JsonObject:
    return {"$ref": f"#/components/schemas/{schema}"}


def names_in(path: str) -> tuple[str, ...]:
    """Of its parameters."""
    return tuple(part[1:-1] for part in path.split("/") if part.startswith("{"))


def path_descriptions(names: tuple[str, ...]) -> list[JsonObject]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def described(name: str, place: str, schema: JsonObject, text: str) -> JsonObject:
    """A parameter that may be left out."""
    return {"name": name, "in": place, "required": False, "schema": schema, "description": text}


def answer_headers(more: JsonObject) -> JsonObject:
    return {**_REQUEST_ID, **more}


def problem_responses(*statuses: int) -> JsonObject:
    """By status."""
    return {str(status): _problem_response(status) for status in statuses}


def _problem_response(status: int) -> JsonObject:
    titles = titles_by_status()[status]
    example = problem(status, titles[0], _DETAILS[status], "5f0c2d7a9b0000000001")
    return {
        "description": " or ".join(titles),
        "headers": answer_headers(_RETRY_AFTER if status in (429, 503) else {}),
        "content": {"application/problem+json": {"schema": reference("Problem"), "example": example}},
    }


def error_responses(*statuses: int) -> JsonObject:
    """The Open Inference Protocol's, by status."""
    return {
        str(status): {
            "description": " or ".join(titles_by_status()[status]),
            "content": {
                "application/json": {"schema": reference("OipError"), "example": {"error": _DETAILS[status]}},
            },
        }
        for status in statuses
    }
