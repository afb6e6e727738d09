"""Logs refused and failed requests with the id that the client got. Promises: at most so many of a kind a minute.

What goes beyond that is counted by the metrics, and by `more` in the next line of its kind.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import structlog

from saccade.service.api.http.error_responses import status_of
from saccade.service.errors import SaccadeError
from saccade.service.logs import Sampler

log = structlog.get_logger()

_PER_KIND = 10
_OF_CLIENTS = (501, 505)  # they asked for what HTTP/1.1 does not have here
_MAX_DETAIL = 300  # characters; a client's text may be in it


class RefusalLog:
    """Samples per kind, in one process. Belongs to its event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._sampler = Sampler(_PER_KIND, clock)  # kinds are classes of errors, and statuses

    def error(self, error: SaccadeError, request_id: str, model: str = "", version: str = "") -> None:
        status = status_of(error)[0]
        self.note(type(error).__name__, status, str(error), request_id, model, version)

    def note(self, kind: str, status: int, detail: str, request_id: str, model: str = "", version: str = "") -> None:
        more = self._sampler.admitted(kind)
        if more is None:
            return
        fields = {"model": model, "version": version} if model else {}
        if more:
            fields["more"] = str(more)
        is_failed = status >= 500 and status not in _OF_CLIENTS
        say = log.warning if is_failed else log.info
        say(
            "request_failed" if is_failed else "request_refused",
            status=status,
            kind=kind,
            request_id=request_id,
            detail=" ".join(detail.split())[:_MAX_DETAIL],
            **fields,
        )
