"""Writes a request's answer: its document, its headers, and the bytes of both."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
from starlette.types import Send

from saccade.service.api.catalog import ServingTarget
from saccade.service.api.http.content_encoding import ENCODINGS
from saccade.service.api.http.error_responses import problem_of, retry_after
from saccade.service.api.predictor import ImageAnswer
from saccade.service.core import StageTimes
from saccade.service.errors import Draining, SaccadeError, UnsupportedEncoding
from saccade.service.ipc.api_keys import Unauthorized

_SERVER_TIMING = ", ".join(
    f"{stage};dur=%({stage}).3f" for stage in ("decode", "queue", "infer", "postprocess", "total")
)


def document_of(
    target: ServingTarget, request_id: str, answers: list[ImageAnswer], total_s: float
) -> tuple[bytes, str]:
    """The answer document and the Server-Timing header."""
    timings_ms = timings_of(answers, total_s)
    document = orjson.dumps(
        {
            "model": target.key.model,
            "version": str(target.key.version),
            "variant": answers[0].variant,  # one instance answers all images of a request
            "request_id": request_id,
            "predictions": [_prediction_or_error(answer, request_id) for answer in answers],
            "timings_ms": timings_ms,
        }
    )
    return document, server_timing(timings_ms)


def timings_of(answers: list[ImageAnswer], total_s: float) -> dict[str, float]:
    """Milliseconds by stage; with several images each stage shows the slowest."""
    slowest = answers[0].times
    if len(answers) > 1:
        slowest = StageTimes(*map(max, *(msgspec.structs.astuple(answer.times) for answer in answers)))
    return {
        "decode": round(slowest.decode_s * 1000, 3),
        "queue": round(slowest.queue_s * 1000, 3),
        "infer": round(slowest.infer_s * 1000, 3),
        "postprocess": round(slowest.postprocess_s * 1000, 3),
        "total": round(total_s * 1000, 3),
    }


def server_timing(timings_ms: dict[str, float]) -> str:
    """The header of that name."""
    return _SERVER_TIMING % timings_ms


def _prediction_or_error(answer: ImageAnswer, request_id: str) -> Any:
    if answer.error is not None:
        return {"error": problem_of(answer.error, request_id)}
    written: bytes = answer.prediction
    if answer.warning:
        written = b'%b,"warning":%b}' % (written.removesuffix(b"}"), orjson.dumps(answer.warning))
    if answer.quality is not None:
        document = orjson.dumps(answer.quality._asdict())
        written = b'%b,"quality":%b}' % (written.removesuffix(b"}"), document)
    return orjson.Fragment(written)


def refusal_headers(error: SaccadeError, must_close: bool) -> list[tuple[bytes, bytes]]:
    """Beside those that every answer has."""
    headers = []
    retry = retry_after(error)
    if retry is not None:
        headers.append((b"retry-after", retry.encode()))
    if isinstance(error, UnsupportedEncoding):
        headers.append((b"accept-encoding", ", ".join(ENCODINGS).encode()))
    if isinstance(error, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    if must_close or isinstance(error, Draining):
        headers.append((b"connection", b"close"))
    return headers


def answer_headers(
    content_type: bytes, body: bytes, request_id: str, extra: list[tuple[bytes, bytes]]
) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", content_type),
        (b"content-length", str(len(body)).encode()),
        (b"x-request-id", request_id.encode()),
        *extra,
    ]


async def send_answer(
    send: Send,
    status: int,
    content_type: bytes,
    body: bytes,
    request_id: str,
    server_timing: str | None,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    headers = answer_headers(content_type, body, request_id, extra or [])
    if server_timing is not None:
        headers.append((b"server-timing", server_timing.encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
