"""Makes the spans of requests that have ended, from the times that they carry.

    POST /v1/models/{model}/predict
        decode          reading the picture and filling its slot, in this process
        queue           in the worker
        batch           on the device, linked to the requests of this process that shared it
            decode      of JPEGs on the device
            infer
        postprocess
        encode          the answer's bytes

Stages that a worker timed follow each other from when it was asked; what is left until its answer came was the way.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from saccade.service import __version__
from saccade.service.api.predictor import Ran
from saccade.service.api.tracing.request_trace import RequestTrace

_SCOPE = InstrumentationScope("saccade", __version__)
_UNSET = Status(StatusCode.UNSET)
_FAILED = Status(StatusCode.ERROR)
_IMAGE_SPANS = 5
_MAX_LINKS = 128  # OpenTelemetry's own limit

BatchKey = tuple[int, int]  # the instance, and the number of the batch in its worker


class SpanMaker:
    """Makes spans and gives them to a processor, such as OpenTelemetry's BatchSpanProcessor."""

    def __init__(self, resource: Resource, processor: SpanProcessor) -> None:
        self._resource = resource
        self._processor = processor
        self._ids = RandomIdGenerator()

    @staticmethod
    def count_of(trace: RequestTrace) -> int:
        """How many spans it will have, two more for each of the images that its worker decoded left out."""
        return 1 + bool(trace.images) + _IMAGE_SPANS * len(trace.images)

    def hand_on(self, traces: Sequence[RequestTrace]) -> None:
        """Makes the spans of these requests; those among them that shared a batch are linked."""
        since_epoch_s = time.time() - time.perf_counter()
        shared = _by_batch(traces)
        for trace in traces:
            for span in self._spans(trace, shared, since_epoch_s):
                self._processor.on_end(span)

    def close(self) -> None:
        """Sends what the processor holds. Blocks until then, or until it gives up."""
        self._processor.shutdown()

    def _spans(
        self, trace: RequestTrace, shared: dict[BatchKey, list[SpanContext]], since_epoch_s: float
    ) -> Iterable[ReadableSpan]:
        def span(name: str, start_s: float, end_s: float, parent: SpanContext, **more: Any) -> ReadableSpan:
            context = more.pop("context", None) or self._child_of(parent)
            start_ns = int((since_epoch_s + start_s) * 1e9)
            return ReadableSpan(
                name,
                context,
                parent,
                self._resource,
                start_time=start_ns,
                end_time=start_ns + max(0, int((end_s - start_s) * 1e9)),
                instrumentation_scope=_SCOPE,
                **more,
            )

        yield span(
            f"{trace.method} {trace.route}",
            trace.start_s,
            trace.end_s,
            trace.parent,  # type: ignore[arg-type]  # None for the first span of a trace
            context=trace.context,
            kind=SpanKind.SERVER,
            attributes=_attributes(trace),
            status=_FAILED if trace.status >= 500 else _UNSET,
        )
        root = trace.context
        for index, ran in enumerate(trace.images):
            if ran is None:
                continue
            which = {"saccade.image": index}
            done = ran.done
            batch_s = ran.filled_s + done.queue_s
            infer_s = batch_s + done.decode_s
            ran_s = infer_s + done.infer_s
            yield span("decode", ran.started_s, ran.filled_s, root, attributes=which)
            yield span("queue", ran.filled_s, batch_s, root, attributes=which)
            batch = self._child_of(root)
            yield span(
                "batch",
                batch_s,
                ran_s,
                root,
                context=batch,
                attributes={**which, "saccade.batch.size": done.batch_size, "saccade.batch.number": done.batch},
                links=_links(shared.get(_key(ran), ()), root),
            )
            if done.decode_s > 0:
                yield span("decode", batch_s, infer_s, batch, attributes={**which, "saccade.on_device": True})
            yield span("infer", infer_s, ran_s, batch, attributes=which)
            yield span("postprocess", ran.inferred_s, ran.ended_s, root, attributes=which)
        if trace.images:
            yield span("encode", *trace.encoding_s, root)

    def _child_of(self, parent: SpanContext) -> SpanContext:
        return SpanContext(parent.trace_id, self._ids.generate_span_id(), False, parent.trace_flags, parent.trace_state)


def _key(ran: Ran) -> BatchKey:
    return ran.instance_id, ran.done.batch


def _by_batch(traces: Iterable[RequestTrace]) -> dict[BatchKey, list[SpanContext]]:
    shared: defaultdict[BatchKey, list[SpanContext]] = defaultdict(list)
    for trace in traces:
        for key in dict.fromkeys(_key(ran) for ran in trace.images if ran is not None):
            shared[key].append(trace.context)
    return shared


def _links(contexts: Iterable[SpanContext], own: SpanContext) -> list[Link]:
    return [Link(context) for context in contexts if context is not own][:_MAX_LINKS]


def _attributes(trace: RequestTrace) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "http.request.method": trace.method,
        "http.route": trace.route,
        "url.path": trace.path,
        "http.response.status_code": trace.status,
        "saccade.request_id": trace.request_id,
        "saccade.model": trace.model,
        "saccade.version": trace.version,
        "saccade.variant": trace.variant,
        "error.type": trace.error,
    }
    return {name: value for name, value in found.items() if value}
