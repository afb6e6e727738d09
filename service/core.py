"""The service's nouns. Promises: plain frozen values, no I/O, nothing of ours imported but the contract's specs."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class VersionState(StrEnum):
    """Where a version is on its way to traffic, as `/v1/models` and the metrics spell it."""

    BUILDING = "building"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"


class Outcome(StrEnum):
    """How a request ended; every request has exactly one."""

    OK = "ok"
    BAD_REQUEST = "bad_request"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    CLIENT_LEFT = "client_left"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class VersionKey:
    model: str
    version: int


class StageTimes(msgspec.Struct, frozen=True):
    """Seconds one image spent in each stage."""

    decode_s: float
    queue_s: float
    infer_s: float
    postprocess_s: float
