"""Values that all rooms of the service share: states, outcomes, keys and times. They are frozen and do no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec


class VersionState(StrEnum):
    """The state of a version between discovery and unloading, as `/v1/models` and the metrics spell it."""

    BUILDING = "building"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    FAILED = "failed"
    UNLOADING = "unloading"
    QUARANTINED = "quarantined"  # it killed workers or failed requests; not loaded again until it is asked for


GIVEN_UP = (VersionState.FAILED, VersionState.QUARANTINED)
"""States in which a server loads a version no more by itself."""


class Outcome(StrEnum):
    """How a request ended; every request has exactly one outcome."""

    OK = "ok"
    BAD_REQUEST = "bad_request"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    DEADLINE = "deadline"
    CLIENT_LEFT = "client_left"
    ERROR = "error"


STABLE = "stable"  # the label of the version that answers by default
SHORTEST_OBJECTIVE_MS, LONGEST_OBJECTIVE_MS = 1.0, 3_600_000.0  # nothing can be answered in less than the first
OBJECTIVE_RANGE = f"a number between {SHORTEST_OBJECTIVE_MS:.0f} and {LONGEST_OBJECTIVE_MS:.0f} ms"


@dataclass(frozen=True, slots=True)
class VersionKey:
    model: str
    version: int

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of an event in the log that is about this version."""
        return {"model": self.model, "version": self.version}


class StageTimes(msgspec.Struct, frozen=True):
    """The seconds that one image spent in each stage."""

    decode_s: float
    queue_s: float
    infer_s: float
    postprocess_s: float
