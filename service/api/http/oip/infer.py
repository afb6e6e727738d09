"""POST /v2/models/{model}[/versions/{version}]/infer. Promises: predict's path, limits and counts; Triton's codes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson
from starlette.types import Scope, Send

from saccade.service.api.asking import extras_of
from saccade.service.api.catalog import ServingTarget
from saccade.service.api.http.answer_writing import refusal_headers, send_answer, server_timing, timings_of
from saccade.service.api.http.error_responses import problem_of
from saccade.service.api.http.oip.answers import answer_of, rows_of
from saccade.service.api.http.oip.tensors import InferRequest, ModelTensors, infer_request
from saccade.service.api.http.request_head import Headers
from saccade.service.api.http.vision_routes import (
    PredictCall,
    PredictEndpoint,
    Rendered,
)
from saccade.service.api.predictor import ImageAnswer
from saccade.service.api.priority import Priority
from saccade.service.errors import DeadlineExceeded, NotFound, Overloaded, SaccadeError, Unprocessable
from saccade.service.vision.parameters import NOTHING_GIVEN, GivenParameters, Parameters, given_for

_INLINE_BYTES = 256 * 1024  # of a request; larger JSON leaves the event loop
_PRIORITIES = {0: None, 1: Priority.HIGH, 2: Priority.NORMAL}  # beyond: low
# Where Triton's code is another one than ours.
_STATUSES: tuple[tuple[type[SaccadeError], int], ...] = (
    (Unprocessable, 400),
    (Overloaded, 503),
    (DeadlineExceeded, 503),
)


class _InferCall(PredictCall, frozen=True):
    request: InferRequest | None = None
    accepted: bytes = b""


class InferEndpoint(PredictEndpoint):
    """Predict in another language: other bodies, other answers, the same life of a request."""

    def _query(self, scope: Scope) -> GivenParameters:
        return NOTHING_GIVEN  # parameters are in the body

    def _media_type(self, headers: Headers) -> str:
        return ""  # clients name none, or any

    async def _read(
        self,
        content: bytes,
        media_type: str,
        headers: Headers,
        query: GivenParameters,
        turns: Sequence[ServingTarget],
    ) -> tuple[InferRequest, GivenParameters]:
        tensors = tensors_of(turns, self._limits.max_images)
        json_bytes = headers.get(b"inference-header-content-length")
        is_small = len(content) <= _INLINE_BYTES or (json_bytes is not None and len(json_bytes) < len("100000"))
        if is_small:
            request = infer_request(content, json_bytes, tensors)
        else:
            request = await asyncio.to_thread(infer_request, content, json_bytes, tensors)
        given = NOTHING_GIVEN if request.timeout_ms is None else GivenParameters(deadline_ms=request.timeout_ms)
        if tensors.extras:
            given = msgspec.structs.replace(given, **_asked(request, tensors))
        return request, given

    def _call(
        self, read: InferRequest, parameters: Parameters, headers: Headers, target: ServingTarget, priority: Priority
    ) -> PredictCall:
        named = _PRIORITIES.get(read.priority, Priority.LOW)
        accepted = headers.get(b"accept-encoding", b"")
        return _InferCall(read.images, parameters, named or priority, rows_of, False, read, accepted)

    def _rendered(
        self, call: PredictCall, target: ServingTarget, request_id: str, answers: list[ImageAnswer], total_s: float
    ) -> Rendered:
        assert isinstance(call, _InferCall)
        assert call.request is not None
        for answer in answers:
            if answer.error is not None:  # a tensor has no place for it
                raise answer.error
        rows = [answer.prediction for answer in answers]
        warnings = [answer.warning for answer in answers]
        labels = target.manifest.labels
        body, content_type, headers = answer_of(call.request, rows, warnings, target.key, labels, call.accepted)
        return Rendered(content_type, body, server_timing(timings_of(answers, total_s)), headers)

    async def _refuse(self, send: Send, error: SaccadeError, request_id: str, must_close: bool) -> None:
        status, document = refusal_of(error, request_id)
        headers = refusal_headers(error, must_close)
        await send_answer(send, status, b"application/json", orjson.dumps(document), request_id, None, headers)


def tensors_of(turns: Sequence[ServingTarget], max_images: int) -> ModelTensors:
    """What requests are checked against: the first version, and the extra outputs of all that may answer."""
    manifest = turns[0].manifest
    largest = max(max_images, *manifest.allowed_batch_sizes)
    extras = {extra.output.name: extra for target in turns for extra in extras_of(target)}
    return ModelTensors(turns[0].key.model, manifest.input, manifest.answer, largest, tuple(extras.values()))


def _asked(request: InferRequest, tensors: ModelTensors) -> dict[str, Any]:
    names = {wanted.name for wanted in request.outputs}
    return given_for(extra.kind for extra in tensors.extras if extra.output.name in names)


def refusal_of(error: SaccadeError, request_id: str) -> tuple[int, dict[str, str]]:
    """Status and body as the protocol has them."""
    problem = problem_of(error, request_id)
    status = next((code for kind, code in _STATUSES if isinstance(error, kind)), problem["status"])
    words = "Request for unknown model: " if isinstance(error, NotFound) else ""  # which clients look for
    return status, {"error": words + problem["detail"]}
