"""Decides which requests are traced, and hands their spans on once a second. Promises: a bounded share of time.

Making and encoding a span takes 80 microseconds of CPU, and a request has seven: more than a small network's request
takes itself. So a process records so many spans a second and no more, whatever the sampler says; the rest is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import structlog
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from saccade.service.api.tracing.request_trace import RequestTrace
from saccade.service.api.tracing.spans import SpanMaker

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.sampling import Sampler

log = structlog.get_logger()

SPANS_PER_S = 70.0  # ten requests of one image; 0.6 % of a core
_BURST_S = 3.0  # so many seconds' spans may come at once
_USUAL_SPANS = 7  # of a request of one image
_PERIOD_S = 1.0
_TOGETHER_S = 0.1  # requests of one batch end within this time of each other, and their spans are made together
_FLUSH_WITHIN_S = 2.0  # at the end; a collector that does not answer must not hold up a drain
_NAME = "predict"


class Budget:
    """So many spans a second. Belongs to one thread."""

    def __init__(self, per_s: float = SPANS_PER_S, clock: Callable[[], float] = time.perf_counter) -> None:
        self._per_s = per_s
        self._clock = clock
        self._left = self._most = per_s * _BURST_S
        self._filled_s = clock()

    def has_room(self) -> bool:
        if self._left >= _USUAL_SPANS:
            return True
        now_s = self._clock()
        self._left = min(self._most, self._left + (now_s - self._filled_s) * self._per_s)
        self._filled_s = now_s
        return self._left >= _USUAL_SPANS

    def take(self, spans: int) -> None:
        """Takes spans that were or will be made; a request of many images may take more than are left."""
        self._left -= spans


class TraceRecorder:
    """The traces of one API process. Belongs to its event loop."""

    def __init__(
        self,
        sampler: Sampler,
        maker: SpanMaker,
        count: Callable[[int, int], None],
        budget: Budget | None = None,
    ) -> None:
        """`count` is told how many requests were recorded, and how many were left out because of the budget."""
        self._sampler = sampler
        self._maker = maker
        self._count = count
        self._budget = budget or Budget()
        self._propagator = TraceContextTextMapPropagator()
        self._ids = RandomIdGenerator()
        self._ended: list[RequestTrace] = []
        self._left_out = 0

    def begin(self, headers: Iterable[tuple[bytes, bytes]], start_s: float) -> RequestTrace | None:
        """The trace of a request that came with these headers; None where it has none."""
        if not self._budget.has_room():
            self._left_out += 1
            return None
        came_with = self._context_of(dict(headers))
        parent = None if came_with is None else get_current_span(came_with).get_span_context()
        if parent is not None and not parent.is_valid:
            parent = None
        trace_id = self._ids.generate_trace_id() if parent is None else parent.trace_id
        decision = self._sampler.should_sample(came_with, trace_id, _NAME, SpanKind.SERVER)
        if decision.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        self._budget.take(_USUAL_SPANS)
        flags = TraceFlags(TraceFlags.SAMPLED)
        context = SpanContext(trace_id, self._ids.generate_span_id(), False, flags, decision.trace_state)
        return RequestTrace(context, parent, start_s)

    def end(self, trace: RequestTrace) -> None:
        """Keeps a finished request until its spans are made."""
        trace.end_s = time.perf_counter()
        self._budget.take(self._maker.count_of(trace) - _USUAL_SPANS)
        self._ended.append(trace)

    async def run(self) -> None:
        """Makes spans of what has ended, once a second and in a thread, until it is cancelled."""
        while True:
            await asyncio.sleep(_PERIOD_S)
            ended = self._taken(time.perf_counter() - _TOGETHER_S)
            try:
                await asyncio.to_thread(self._maker.hand_on, ended)
            except Exception:  # requests are served without their spans
                log.exception("traces_failed", requests=len(ended))

    async def close(self) -> None:
        """Sends what is left, as far as that is possible within two seconds."""
        done, loop = asyncio.Event(), asyncio.get_running_loop()
        ended = self._taken(math.inf)

        def finish() -> None:
            self._maker.hand_on(ended)
            self._maker.close()
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
                loop.call_soon_threadsafe(done.set)

        # A daemon, since the pool of `to_thread` would be waited for at the end of the loop.
        threading.Thread(target=finish, name="traces", daemon=True).start()
        try:
            await asyncio.wait_for(done.wait(), _FLUSH_WITHIN_S)
        except TimeoutError:
            log.warning("traces_lost", within_s=_FLUSH_WITHIN_S)

    def _taken(self, before_s: float) -> list[RequestTrace]:
        """What had ended before this time."""
        ended = [trace for trace in self._ended if trace.end_s < before_s]
        self._ended = self._ended[len(ended) :]  # they ended in this order
        left_out, self._left_out = self._left_out, 0
        if ended or left_out:
            self._count(len(ended), left_out)
        return ended

    def _context_of(self, headers: Mapping[bytes, bytes]) -> Context | None:
        given = headers.get(b"traceparent")
        if given is None:
            return None
        carrier = {"traceparent": given.decode("latin-1")}
        if b"tracestate" in headers:
            carrier["tracestate"] = headers[b"tracestate"].decode("latin-1")
        return self._propagator.extract(carrier)
