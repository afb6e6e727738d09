"""Logs refused and failed requests with the id that the client got. Promises: at most so many of a kind a minute.

What goes beyond that is counted by the metrics, and by `more` in the next line of its kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from saccade.service.api.http.error_responses import status_of
from saccade.service.errors import SaccadeError

log = structlog.get_logger()

_PER_KIND = 10
_PERIOD_S = 60.0
_MAX_DETAIL = 300  # characters; a client's text may be in it


@dataclass(slots=True)
class _Kind:
    since_s: float
    logged: int = 0
    more: int = 0  # since the last line


class RefusalLog:
    """Samples per kind, in one process. Belongs to its event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._kinds: dict[str, _Kind] = {}  # by classes of errors and statuses, so they are few

    def error(self, error: SaccadeError, request_id: str, model: str = "", version: str = "") -> None:
        status = status_of(error)[0]
        self.note(type(error).__name__, status, str(error), request_id, model, version)

    def note(self, kind: str, status: int, detail: str, request_id: str, model: str = "", version: str = "") -> None:
        more = self._admitted(kind)
        if more is None:
            return
        fields = {"model": model, "version": version} if model else {}
        if more:
            fields["more"] = str(more)
        say = log.warning if status >= 500 else log.info
        say(
            "request_failed" if status >= 500 else "request_refused",
            status=status,
            kind=kind,
            request_id=request_id,
            detail=" ".join(detail.split())[:_MAX_DETAIL],
            **fields,
        )

    def _admitted(self, kind: str) -> int | None:
        """How many of the kind were left out before this one; None when this one is left out as well."""
        now_s = self._clock()
        known = self._kinds.setdefault(kind, _Kind(now_s))
        if now_s - known.since_s >= _PERIOD_S:
            known.since_s, known.logged = now_s, 0
        if known.logged >= _PER_KIND:
            known.more += 1
            return None
        known.logged += 1
        more, known.more = known.more, 0
        return more
