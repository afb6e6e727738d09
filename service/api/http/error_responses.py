"""The one table from errors to HTTP. Promises: RFC 9457 problems; what is ours never shows its trace."""

from __future__ import annotations

import math
from typing import Any

import orjson
from starlette.responses import Response

from saccade.service.core import Outcome
from saccade.service.errors import (
    BadParameter,
    BadRequest,
    ClientLeft,
    DeadlineExceeded,
    Draining,
    InferenceFailed,
    NotFound,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    PictureTooLarge,
    SaccadeError,
    Unavailable,
    Unprocessable,
    UnsupportedMedia,
)
from saccade.service.ipc.api_keys import Forbidden, Unauthorized

PROBLEM_TYPE = b"application/problem+json"

# (error, status, title, outcome); the first match counts, so subclasses stand before their parents.
_TABLE: tuple[tuple[type[SaccadeError], int, str, Outcome], ...] = (
    (Unauthorized, 401, "Key required", Outcome.BAD_REQUEST),
    (Forbidden, 403, "Key refused", Outcome.BAD_REQUEST),
    (UnsupportedMedia, 415, "Unsupported media type", Outcome.BAD_REQUEST),
    (PayloadTooLarge, 413, "Payload too large", Outcome.BAD_REQUEST),
    (PictureTooLarge, 413, "Payload too large", Outcome.BAD_REQUEST),
    (BadParameter, 422, "Bad parameter", Outcome.BAD_REQUEST),
    (Unprocessable, 422, "Image cannot be used", Outcome.BAD_REQUEST),
    (BadRequest, 400, "Malformed request", Outcome.BAD_REQUEST),
    (NotFound, 404, "Not found", Outcome.BAD_REQUEST),
    (Overloaded, 429, "Overloaded", Outcome.OVERLOADED),
    (Unavailable, 503, "Not available", Outcome.UNAVAILABLE),
    (DeadlineExceeded, 504, "Deadline exceeded", Outcome.DEADLINE),
    (ClientLeft, 499, "Client closed request", Outcome.CLIENT_LEFT),  # counted; nobody is there to read it
    (InferenceFailed, 500, "Inference failed", Outcome.ERROR),
)
_OURS = (500, "Internal error", Outcome.ERROR)
_ROWS: dict[type[SaccadeError], tuple[int, str, Outcome]] = {}  # what the table says of each class, once found


def status_of(error: SaccadeError) -> tuple[int, str, Outcome]:
    """HTTP status, title and outcome of an error."""
    kind = type(error)
    if kind not in _ROWS:
        _ROWS[kind] = next((row[1:] for row in _TABLE if isinstance(error, row[0])), _OURS)
    return _ROWS[kind]


def titles_by_status() -> dict[int, list[str]]:
    """What each status may be titled."""
    found: dict[int, list[str]] = {}
    for _, status, title, _ in (*_TABLE, (SaccadeError, *_OURS)):
        found.setdefault(status, []).append(title)
    return found


def problem_of(error: SaccadeError, request_id: str) -> dict[str, Any]:
    """The problem document. `detail` of an error without a line in the table stays inside."""
    status, title, _ = status_of(error)
    detail = "an internal error; quote the request id when reporting it" if title == _OURS[1] else str(error)
    return problem(status, title, detail, request_id)


def problem(status: int, title: str, detail: str, request_id: str) -> dict[str, Any]:
    slug = title.lower().replace(" ", "-")
    return {
        "type": f"urn:saccade:problem:{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }


def problem_response(document: dict[str, Any]) -> Response:
    """The problem as an answer of FastAPI's; predict and infer write theirs themselves."""
    headers = {"X-Request-Id": document["request_id"]}
    return Response(orjson.dumps(document), document["status"], headers, PROBLEM_TYPE.decode())


def retry_after(error: SaccadeError) -> str | None:
    """Value of the Retry-After header, whole seconds, at least one."""
    if isinstance(error, Overloaded | Unavailable):
        return str(max(1, math.ceil(error.retry_after_s)))
    return None


def shed_reason(error: SaccadeError) -> str | None:
    """Why a request was refused for want of room or readiness, as metrics name it; None for other errors."""
    match error:
        case Overloaded():
            return error.what
        case DeadlineExceeded():
            return "deadline"
        case Draining():
            return "draining"
        case NotReady():
            return "not_ready"
        case _:
            return None
