"""Wraps an endpoint in the trace of each request. Promises: log lines of a traced request have its trace_id."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars

from saccade.service.api.tracing.request_trace import TRACE_SCOPE

if TYPE_CHECKING:
    from saccade.service.api.tracing.recorder import TraceRecorder


class TracedEndpoint:
    """The endpoint `inner`; its answers to traced requests name their span in the header `traceresponse`."""

    def __init__(self, inner: ASGIApp, recorder: TraceRecorder, verb: str) -> None:
        """`verb` is the last part of the endpoint's paths."""
        self._inner = inner
        self._recorder = recorder
        self._verb = verb

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        trace = self._recorder.begin(scope["headers"], time.perf_counter())
        if trace is None:
            await self._inner(scope, receive, send)
            return
        trace_id, span_id = f"{trace.context.trace_id:032x}", f"{trace.context.span_id:016x}"
        trace.method, trace.path = scope["method"], scope["path"]
        trace.route = _route_of(scope, self._verb)
        named = (b"traceresponse", f"00-{trace_id}-{span_id}-01".encode())

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                trace.status = message["status"]
                trace.request_id = dict(message["headers"]).get(b"x-request-id", b"").decode("latin-1")
                message = {**message, "headers": [*message["headers"], named]}
            await send(message)

        try:
            with bound_contextvars(trace_id=trace_id):
                await self._inner({**scope, TRACE_SCOPE: trace}, receive, watched)
        finally:
            self._recorder.end(trace)


def _route_of(scope: Scope, verb: str) -> str:
    """The path with placeholders, since a client chooses the names."""
    names = scope["path_params"]
    within = next((f"/{part}s/{{{part}}}" for part in ("version", "label") if names.get(part) is not None), "")
    return f"{'/v2' if verb == 'infer' else '/v1'}/models/{{model}}{within}/{verb}"
