"""Reads the version, the stage times and the error title in an answer's body. Any bytes are accepted."""

from __future__ import annotations

import math
from functools import lru_cache

import msgspec

from saccade.service.bench.connections import Reply
from saccade.service.bench.records import STAGES, End, RequestEnd

Stages = tuple[float, ...]  # ms of each of STAGES, then the total; NaN where the answer does not say
UNKNOWN_STAGES: Stages = (math.nan,) * (len(STAGES) + 1)


class _Timings(msgspec.Struct):
    decode: float
    queue: float
    infer: float
    postprocess: float
    total: float


class _Answer(msgspec.Struct):
    """The counted fields of an answer; predictions are skipped, not parsed into objects."""

    version: str
    variant: str
    timings_ms: _Timings


class _Problem(msgspec.Struct):
    title: str


_ANSWER = msgspec.json.Decoder(_Answer)
_PROBLEM = msgspec.json.Decoder(_Problem)
_TITLE_CHARACTERS = 80


def outcome_of(reply: Reply) -> tuple[RequestEnd, Stages]:
    """How the request ended, and the server's stage times."""
    if reply.end is not End.ANSWERED:
        return RequestEnd(reply.end, title=reply.reason), UNKNOWN_STAGES
    if not 200 <= reply.status < 300:
        return RequestEnd(reply.end, reply.status, _title_of(reply.body)), UNKNOWN_STAGES
    try:
        answer = _ANSWER.decode(reply.body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return RequestEnd(reply.end, reply.status), UNKNOWN_STAGES
    times = answer.timings_ms
    stages = (times.decode, times.queue, times.infer, times.postprocess, times.total)
    return _answered(reply.status, answer.version, answer.variant), stages


@lru_cache(maxsize=256)  # a few outcomes come thousands of times a second
def _answered(status: int, version: str, variant: str) -> RequestEnd:
    return RequestEnd(End.ANSWERED, status, "", version, variant)


def _title_of(body: bytes) -> str:
    try:
        return _PROBLEM.decode(body).title[:_TITLE_CHARACTERS]
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ""
