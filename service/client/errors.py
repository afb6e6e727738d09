"""What the client raises. Bad arguments are ValueError, files that cannot be read OSError, as everywhere.

ClientError
├── NoAnswer                no connection, or it broke or took too long; `was_sent` says whether a request went out
├── UnexpectedAnswer        something answered, but not as saccade does
└── Problem                 the server's problem document
    ├── MalformedRequest    400, 405, 413, 415: the request itself
    ├── KeyRefused          401, 403
    ├── NotFound            404: no such model, version or label; the text names those that exist
    ├── Unprocessable       422: the picture or a parameter cannot be used
    ├── Overloaded          429, after all tries
    ├── NotAvailable        503, after all tries
    ├── DeadlineExceeded    504
    └── ServerFailed        500 and whatever else is not the caller's
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Root of what the client raises."""


class NoAnswer(ClientError):
    def __init__(self, message: str, *, was_sent: bool) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class UnexpectedAnswer(ClientError):
    pass


class Problem(ClientError):
    """A refusal in the server's own words; `retry_after_s` where it named one, `document` all that it said."""

    def __init__(self, document: Mapping[str, Any], retry_after_s: float | None = None) -> None:
        """Raises KeyError without status, title and detail."""
        self.document = document
        self.status: int = document["status"]
        self.title: str = document["title"]
        self.detail: str = document["detail"]
        self.request_id: str = document.get("request_id", "")
        self.retry_after_s = retry_after_s
        request = f" (request {self.request_id})" if self.request_id else ""
        super().__init__(f"{self.status} {self.title}: {self.detail}{request}")


class MalformedRequest(Problem):
    pass


class KeyRefused(Problem):
    pass


class NotFound(Problem):
    pass


class Unprocessable(Problem):
    pass


class Overloaded(Problem):
    pass


class NotAvailable(Problem):
    pass


class DeadlineExceeded(Problem):
    pass


class ServerFailed(Problem):
    pass


_BY_STATUS: dict[int, type[Problem]] = {
    401: KeyRefused,
    403: KeyRefused,
    404: NotFound,
    422: Unprocessable,
    429: Overloaded,
    503: NotAvailable,
    504: DeadlineExceeded,
}


def problem_from(document: Mapping[str, Any], retry_after_s: float | None = None) -> Problem:
    """The error of a problem document. Raises KeyError for what is none."""
    status = document["status"]
    kind = _BY_STATUS.get(status, MalformedRequest if status < 500 else ServerFailed)
    return kind(document, retry_after_s)
