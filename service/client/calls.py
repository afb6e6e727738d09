"""What is sent, what an answer means, and when it is worth sending again. Pure: no connection, no clock of its own."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from urllib.parse import quote

import httpx

from saccade.service.client.answers import AnyPrediction, Model, Served, model_from, prediction_from
from saccade.service.client.errors import ClientError, NoAnswer, Problem, UnexpectedAnswer, problem_from

_RAW = "application/octet-stream"  # the bytes decide what the picture is
_RETRIED = frozenset({429, 503})
# Titles of what is wrong with one picture, not with the request.
_OF_ONE_PICTURE = frozenset({"Image cannot be used", "Unsupported media type", "Inference failed"})
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 30.0  # a server that asks for a longer one is not waited for
_TIMEOUT_S = 70.0  # more than the longest deadline that a server grants by default
_MARGIN_S = 2.0  # beyond the deadline: the server's 504 says more than a broken connection

Outcome: TypeAlias = "AnyPrediction | Problem"


@dataclass(frozen=True, slots=True)
class Target:
    """Which version is asked; by default the one that the server chooses."""

    model: str
    version: str | int | None = None
    label: str | None = None

    @property
    def path(self) -> str:
        """Raises ValueError."""
        if self.version is not None and self.label is not None:
            raise ValueError("give version or label, not both")
        model = f"/v1/models/{quote(self.model, safe='')}"
        if self.version is not None:
            return f"{model}/versions/{quote(str(self.version), safe='')}/predict"
        if self.label is not None:
            return f"{model}/labels/{quote(self.label, safe='')}/predict"
        return f"{model}/predict"


@dataclass(frozen=True, slots=True)
class Call:
    """One request. What is sent again is made of the same bytes."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    images: Sequence[bytes] = ()
    deadline_s: float | None = None  # for all tries together

    def arguments(self, left_s: float | None) -> dict[str, Any]:
        """For httpx; `left_s` until the deadline."""
        query, timeout_s = dict(self.query), _TIMEOUT_S
        if left_s is not None:
            query["deadline_ms"] = f"{1000 * left_s:.1f}"
            timeout_s = left_s + _MARGIN_S
        headers = dict(self.headers)
        body: dict[str, Any] = {}
        if len(self.images) == 1:
            headers["Content-Type"] = _RAW
            body["content"] = self.images[0]
        elif self.images:
            body["files"] = [("image", (str(index), image, _RAW)) for index, image in enumerate(self.images)]
        return {
            "method": self.method,
            "url": self.path,
            "params": query,
            "headers": headers,
            "timeout": timeout_s,
            **body,
        }


def predict_call(
    images: Sequence[bytes],
    target: Target,
    *,
    deadline_ms: float | None,
    priority: str | None,
    routing_key: str | None,
    parameters: Mapping[str, Any],
) -> Call:
    """Raises ValueError."""
    if not images:
        raise ValueError("no picture is given")
    named = {"X-Priority": priority, "X-Routing-Key": routing_key}
    return Call(
        "POST",
        target.path,
        {name: _text(value) for name, value in parameters.items() if value is not None},
        {name: value for name, value in named.items() if value is not None},
        images,
        None if deadline_ms is None else deadline_ms / 1000,
    )


def model_call(name: str | None = None) -> Call:
    """Asks about one model, or all."""
    return Call("GET", "/v1/models" if name is None else f"/v1/models/{quote(name, safe='')}")


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# Sending again


@dataclass(slots=True)
class Tries:
    """Says how long to wait before the next try. `now_s` is any clock that runs evenly."""

    retries: int
    deadline_s: float | None
    start_s: float
    made: int = 0

    def left_s(self, now_s: float) -> float | None:
        """Until the deadline; None without one."""
        return None if self.deadline_s is None else max(0.0, self.start_s + self.deadline_s - now_s)

    def pause_s(self, error: ClientError, now_s: float) -> float | None:
        """None: no other try, because of its kind, its number or the deadline."""
        self.made += 1
        if self.made > self.retries or not _is_worth_retrying(error):
            return None
        asked_s = error.retry_after_s if isinstance(error, Problem) else None
        longest_s = _FIRST_PAUSE_S * 2 ** (self.made - 1)
        # Without the server's word clients that failed together come back apart.
        pause_s = random.uniform(longest_s / 2, longest_s) if asked_s is None else asked_s
        left_s = self.left_s(now_s)
        is_too_long = pause_s > _LONGEST_PAUSE_S or (left_s is not None and pause_s >= left_s)
        return None if is_too_long else pause_s


def _is_worth_retrying(error: ClientError) -> bool:
    match error:
        case Problem(status=status):
            return status in _RETRIED
        case NoAnswer(was_sent=was_sent):
            return not was_sent
    return False


def broken(error: httpx.HTTPError, url: httpx.URL) -> NoAnswer:
    """What a failed connection means."""
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout):
        found = NoAnswer(f"cannot reach {url}: {error or type(error).__name__}", was_sent=False)
    else:
        what = "no answer in time" if isinstance(error, httpx.TimeoutException) else "the connection broke"
        found = NoAnswer(f"{what} from {url}: {error or type(error).__name__}", was_sent=True)
    found.__cause__ = error
    return found


# Answers


def refusal(response: httpx.Response) -> Problem | None:
    """None for a success."""
    if response.is_success:
        return None
    retry_after_s = _seconds(response.headers.get("Retry-After"))
    try:
        return problem_from(_object(response), retry_after_s)
    except (KeyError, TypeError, UnexpectedAnswer):  # a proxy's own page, or no saccade server
        document = {
            "status": response.status_code,
            "title": response.reason_phrase,
            "detail": f"{response.url} does not say more; is it a saccade server?",
        }
        return problem_from(document, retry_after_s)


def outcomes_from(response: httpx.Response) -> list[Outcome]:
    """One per picture, in order. Raises UnexpectedAnswer."""
    document = _object(response)
    level = response.headers.get("X-Saccade-Rung")
    try:
        served = Served(
            document["model"],
            document["version"],
            document["variant"],
            document["request_id"],
            document["timings_ms"],
            None if level is None else int(level),
        )
        return [
            problem_from(item["error"]) if "error" in item else prediction_from(item, served)
            for item in document["predictions"]
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise _unexpected(response) from error


def models_from(response: httpx.Response) -> list[Model]:
    """Of the answer to `model_call`, one or all. Raises UnexpectedAnswer."""
    document = _object(response)
    try:
        return [model_from(item) for item in document.get("models", [document])]
    except (KeyError, TypeError) as error:
        raise _unexpected(response) from error


def is_of_one_picture(error: ClientError) -> bool:
    """Whether the next picture may be answered all the same."""
    return isinstance(error, Problem) and error.title in _OF_ONE_PICTURE


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        document = json.loads(response.content)
    except ValueError as error:
        raise _unexpected(response) from error
    if not isinstance(document, dict):
        raise _unexpected(response)
    return document


def _unexpected(response: httpx.Response) -> UnexpectedAnswer:
    return UnexpectedAnswer(
        f"{response.url} answered {response.status_code}, but not as saccade does; is it a saccade server?"
    )


def _seconds(text: str | None) -> float | None:
    """None also for a date, which needs the server's clock."""
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if seconds >= 0 and math.isfinite(seconds) else None
