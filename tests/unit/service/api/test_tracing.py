"""Spans of requests: what they say, whose they are, which requests have them, and what they may cost."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from saccade.service.api.predictor import ImageAnswer, Ran
from saccade.service.api.tracing.request_trace import TRACE_SCOPE, RequestTrace
from saccade.service.api.tracing.setup import recorder_from
from saccade.service.core import StageTimes, VersionKey
from saccade.service.errors import BadImage
from saccade.service.ipc.messages import DONE_OK, Done

pytest.importorskip("opentelemetry.sdk.trace", reason="the tracing extra is not installed")

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from saccade.service.api.http.traced_endpoint import TracedEndpoint
from saccade.service.api.tracing import recorder as recording
from saccade.service.api.tracing.recorder import Budget, TraceRecorder
from saccade.service.api.tracing.spans import SpanMaker

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = {b"traceparent": f"00-{TRACE}-{SPAN}-01".encode()}
KEY = VersionKey("digits", 3)


class Traced:
    """A recorder whose spans stay in memory."""

    def __init__(self, sampler: Sampler = DEFAULT_ON, budget: Budget | None = None) -> None:
        self.exporter = InMemorySpanExporter()
        self.counted: list[tuple[int, int]] = []
        maker = SpanMaker(Resource({"service.name": "saccade"}), SimpleSpanProcessor(self.exporter))
        self.recorder = TraceRecorder(sampler, maker, lambda *counts: self.counted.append(counts), budget)

    async def spans(self) -> Sequence[ReadableSpan]:
        """All of them, at the end."""
        await self.recorder.close()
        return self.exporter.get_finished_spans()


def answer(instance: int = 7, batch: int = 1, decode_s: float = 0.0) -> ImageAnswer:
    """Decoded within 2 s, queued for 3 s, run for 4 s, back after 1 s, rendered within half a second."""
    done = Done(1, DONE_OK, 3.0, 4.0, 2, decode_s=decode_s, batch=batch)
    times = StageTimes(2.0, 3.0, 4.0, 0.5)
    ran = Ran(11.0, 13.0, 21.0 + decode_s, 21.5 + decode_s, instance, done)
    return ImageAnswer({}, None, times, "fp32", ran=ran)


def begun(recorder: TraceRecorder, headers: dict[bytes, bytes] | None = None) -> RequestTrace:
    trace = recorder.begin((headers or {}).items(), 10.0)
    assert trace is not None
    trace.method, trace.route, trace.status, trace.request_id = "POST", "/v1/models/{model}/predict", 200, "id-7"
    return trace


def ended(traced: Traced, *answers: ImageAnswer) -> RequestTrace:
    trace = begun(traced.recorder)
    trace.answered(KEY, answers, 22.0, 22.25)
    traced.recorder.end(trace)
    return trace


def seconds(span: ReadableSpan) -> float:
    assert span.start_time is not None
    assert span.end_time is not None
    return round((span.end_time - span.start_time) / 1e9, 3)


def starts(spans: Sequence[ReadableSpan]) -> dict[str, float]:
    """Seconds since the server's span began, by name."""
    first = spans[0].start_time or 0
    return {span.name: round(((span.start_time or 0) - first) / 1e9, 3) for span in spans[1:]}


async def test_stages_of_a_request_lie_in_its_span_one_after_the_other() -> None:
    traced = Traced()
    ended(traced, answer())

    spans = await traced.spans()

    server, *stages = spans
    assert (server.name, server.kind) == ("POST /v1/models/{model}/predict", SpanKind.SERVER)
    assert starts(spans) == {"decode": 1, "queue": 3, "batch": 6, "infer": 6, "postprocess": 11, "encode": 12}
    assert {span.name: seconds(span) for span in stages} == {
        "decode": 2,
        "queue": 3,
        "batch": 4,
        "infer": 4,
        "postprocess": 0.5,
        "encode": 0.25,
    }
    parents = {span.name: span.parent and span.parent.span_id for span in spans}
    ids = {span.name: span.context.span_id for span in spans}
    assert parents.pop("infer") == ids["batch"]
    assert parents.pop(server.name) is None
    assert set(parents.values()) == {ids[server.name]}
    assert {span.context.trace_id for span in spans} == {server.context.trace_id}
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/v1/models/{model}/predict",
        "http.response.status_code": 200,
        "saccade.request_id": "id-7",
        "saccade.model": "digits",
        "saccade.version": "3",
        "saccade.variant": "fp32",
    }


async def test_jpegs_decoded_on_the_device_are_part_of_the_batch() -> None:
    traced = Traced()
    ended(traced, answer(decode_s=1.5))

    spans = await traced.spans()

    assert [span.name for span in spans[1:]] == ["decode", "queue", "batch", "decode", "infer", "postprocess", "encode"]
    on_device, infer = spans[4], spans[5]
    assert on_device.parent == infer.parent == spans[3].context
    assert (seconds(on_device), seconds(infer), seconds(spans[3])) == (1.5, 4, 5.5)


async def test_requests_that_shared_a_batch_are_linked_and_no_others() -> None:
    traced = Traced()
    first, second = ended(traced, answer(batch=1)), ended(traced, answer(batch=1))
    ended(traced, answer(batch=2))
    ended(traced, answer(instance=8, batch=1))

    batches = [span for span in await traced.spans() if span.name == "batch"]

    linked = [[link.context.span_id for link in span.links] for span in batches]
    assert linked == [[second.context.span_id], [first.context.span_id], [], []]


async def test_images_of_one_request_have_their_own_stages() -> None:
    traced = Traced()
    lost = ImageAnswer(None, BadImage("no picture"), StageTimes(0.0, 0.0, 0.0, 0.0), "fp32")
    ended(traced, answer(), lost, answer(batch=2))

    decodes = [span for span in await traced.spans() if span.name == "decode"]

    assert [dict(span.attributes or {})["saccade.image"] for span in decodes] == [0, 2]


async def test_refused_request_has_a_span_that_says_why() -> None:
    traced = Traced()
    trace = begun(traced.recorder)
    trace.status = 503
    trace.failed(KEY, BadImage("no picture"))
    traced.recorder.end(trace)

    (server,) = await traced.spans()

    assert dict(server.attributes or {})["error.type"] == "BadImage"
    assert server.status.status_code is StatusCode.ERROR


# Whose trace it is


async def test_client_s_trace_is_continued() -> None:
    traced = Traced()
    traced.recorder.end(begun(traced.recorder, {**SAMPLED, b"tracestate": b"vendor=1"}))

    (server,) = await traced.spans()

    assert f"{server.context.trace_id:032x}" == TRACE
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == SPAN
    assert server.context.trace_state.get("vendor") == "1"


@pytest.mark.parametrize("given", [b"", b"00-0-0-01", f"00-{'0' * 32}-{SPAN}-01".encode(), b"\xff" * 55])
def test_header_that_is_no_context_begins_a_new_trace(given: bytes) -> None:
    assert begun(Traced().recorder, {b"traceparent": given}).parent is None


def test_what_the_client_or_the_sampler_leaves_out_is_not_traced() -> None:
    unsampled = {b"traceparent": f"00-{TRACE}-{SPAN}-00".encode()}

    assert Traced().recorder.begin(unsampled.items(), 1.0) is None
    assert Traced(ALWAYS_OFF).recorder.begin((), 1.0) is None


# What it may cost


async def test_requests_beyond_the_budget_are_left_out_and_counted() -> None:
    now_s = 0.0
    traced = Traced(budget=Budget(per_s=7.0, clock=lambda: now_s))  # a request a second, three at once

    def recorded(count: int) -> int:
        traces = [traced.recorder.begin((), 1.0) for _ in range(count)]
        for trace in traces:
            if trace is not None:
                trace.answered(KEY, [answer()], 1.0, 1.0)
                traced.recorder.end(trace)
        return sum(trace is not None for trace in traces)

    assert recorded(8) == 3
    now_s = 1.0
    assert recorded(2) == 1
    await traced.spans()
    assert traced.counted == [(4, 6)]


async def test_collector_that_does_not_answer_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_FLUSH_WITHIN_S", 0.01)
    answered = threading.Event()

    class Stuck(SpanProcessor):
        def shutdown(self) -> None:
            answered.wait()

    with capture_logs() as lines:
        await TraceRecorder(DEFAULT_ON, SpanMaker(Resource({}), Stuck()), lambda *counts: None).close()
    answered.set()

    assert [line["event"] for line in lines] == ["traces_lost"]


async def test_spans_leave_while_the_server_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_PERIOD_S", 0.001)
    monkeypatch.setattr(recording, "_TOGETHER_S", 0.0)
    traced, sent = Traced(), asyncio.Event()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(traced.exporter, "export", lambda spans: loop.call_soon_threadsafe(sent.set))
    running = asyncio.create_task(traced.recorder.run())

    ended(traced, answer())

    await asyncio.wait_for(sent.wait(), 10.0)
    running.cancel()


async def test_spans_that_cannot_be_made_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "_PERIOD_S", 0.001)
    monkeypatch.setattr(recording, "_TOGETHER_S", 0.0)
    failed, loop = asyncio.Event(), asyncio.get_running_loop()

    class Broken(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            loop.call_soon_threadsafe(failed.set)
            raise RuntimeError("broken")

    recorder = TraceRecorder(DEFAULT_ON, SpanMaker(Resource({}), Broken()), lambda *counts: None)
    with capture_logs() as lines:
        running = asyncio.create_task(recorder.run())
        for _ in range(2):
            failed.clear()
            recorder.end(begun(recorder))
            await asyncio.wait_for(failed.wait(), 10.0)
        running.cancel()

    assert lines[0]["event"] == "traces_failed"


# Around an endpoint


async def asked(traced: Traced, headers: dict[bytes, bytes], names: dict[str, str | None], verb: str) -> dict[str, Any]:
    """What an endpoint that answers 204 sees and what leaves it, with one line in the log."""
    import structlog

    found: dict[str, Any] = {}

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        found["trace"] = scope.get(TRACE_SCOPE)
        found["logged"] = structlog.contextvars.get_contextvars()
        await send({"type": "http.response.start", "status": 204, "headers": [(b"x-request-id", b"id-7")]})

    async def send(message: Any) -> None:
        found["headers"] = dict(message["headers"])

    scope = {"type": "http", "method": "POST", "path": "/there", "headers": [*headers.items()], "path_params": names}
    await TracedEndpoint(inner, traced.recorder, verb)(scope, lambda: None, send)  # type: ignore[arg-type, return-value]  # nothing is received
    return found


@pytest.mark.parametrize(
    ("names", "verb", "route"),
    [
        ({"model": "m", "version": None, "label": None}, "predict", "/v1/models/{model}/predict"),
        ({"model": "m", "version": "1", "label": None}, "predict", "/v1/models/{model}/versions/{version}/predict"),
        ({"model": "m", "version": None, "label": "l"}, "predict", "/v1/models/{model}/labels/{label}/predict"),
        ({"model": "m", "version": "1"}, "infer", "/v2/models/{model}/versions/{version}/infer"),
    ],
)
async def test_answer_and_log_lines_name_the_trace(names: dict[str, str | None], verb: str, route: str) -> None:
    traced = Traced()

    found = await asked(traced, SAMPLED, names, verb)

    (server,) = await traced.spans()
    assert found["headers"][b"traceresponse"].decode() == f"00-{TRACE}-{server.context.span_id:016x}-01"
    assert found["logged"]["trace_id"] == TRACE
    assert server.name == f"POST {route}"
    assert dict(server.attributes or {})["saccade.request_id"] == "id-7"


async def test_request_without_a_trace_passes_as_it_is() -> None:
    found = await asked(Traced(ALWAYS_OFF), {}, {"model": "m"}, "predict")

    assert found["trace"] is None
    assert found["headers"] == {b"x-request-id": b"id-7"}
    assert "trace_id" not in found["logged"]


# Whether there are any


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "vision"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_there_are_no_traces_unless_an_endpoint_is_named(environment: dict[str, str]) -> None:
    with capture_logs() as lines:
        assert recorder_from(environment, lambda *counts: None) is None
    assert lines == []


def test_protocol_that_is_not_there_is_told() -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    with capture_logs() as lines:
        assert recorder_from(environment, lambda *counts: None) is None
    assert [(line["event"], line["log_level"]) for line in lines] == [("tracing_unavailable", "warning")]


def test_missing_extra_is_told_and_the_server_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with capture_logs() as lines:
        made = recorder_from({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector"}, lambda *counts: None)
    assert made is None
    assert "saccade-serving[tracing]" in lines[0]["change"]


def test_contradicting_variables_are_told_and_the_server_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with capture_logs() as lines:
        made = recorder_from({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector"}, lambda *counts: None)
    assert made is None
    assert "max_queue_size" in lines[0]["reason"]


def test_what_is_noted_holds_no_answers() -> None:
    trace = begun(Traced().recorder)
    trace.answered(KEY, [msgspec.structs.replace(answer(), prediction=object())], 1.0, 2.0)

    assert all(isinstance(image, Ran) for image in trace.images)
