"""A real server's traces at a real collector: /v1, /v2 and gRPC, requests of one batch, the flush at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.images import red_png
from tests.support.oip_requests import INFER, binary_body, pixel_input, pixels
from tests.support.ports import free_port
from tests.support.requests import Background, Gate, held_device, wait_queued
from tests.support.server import Server, running_server
from tests.support.trace_collector import running_collector

pytest.importorskip("opentelemetry.sdk.trace", reason="the tracing extra is not installed")
triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient[grpc] is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

STAGES = {"decode", "queue", "batch", "infer", "postprocess", "encode"}


def parent(number: int) -> dict[str, str]:
    """The header of a client's trace of this number."""
    return {"traceparent": f"00-{number:032x}-00f067aa0ba902b7-01"}


def infer_by_grpc(port: int, number: int) -> None:
    given = triton.InferInput("images", list(pixels(9).shape), "UINT8")
    given.set_data_from_numpy(np.ascontiguousarray(pixels(9)))
    with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
        client.infer("classifier", [given], headers=parent(number))


def infer(server: Server, number: int) -> None:
    body, headers = binary_body({"inputs": [pixel_input(pixels(9))]}, pixels(9).tobytes())
    assert server.client.post(INFER, content=body, headers={**headers, **parent(number)}).status_code == 200


def by_trace(spans: list[Any]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for span in spans:
        found.setdefault(int.from_bytes(span.trace_id, "big"), {})[span.name] = span
    return found


def test_every_protocol_is_traced_and_nothing_is_lost_at_the_end(
    three_models: Path, gate: Gate, tmp_path: Path
) -> None:
    port = free_port()
    with running_collector() as collector:
        with (
            running_server(three_models, tmp_path, environment=collector.environment, grpc_port=port) as server,
            Background() as background,
        ):
            server.predict("classifier", red_png(1), headers=parent(1))
            infer(server, 2)
            infer_by_grpc(port, 3)
            server.predict("classifier", b"no picture", headers=parent(4))
            with held_device(server, background, gate, "detector"):
                for _ in range(2):  # which wait for the device, and then share a batch
                    background.start(lambda: server.predict("classifier", red_png(1), headers=parent(5)))
                wait_queued(server, "classifier", 2)
        spans = collector.spans()
        (refused,) = server.events("request_refused")
    traces = by_trace(spans)
    v1, v2, v2_by_grpc, bad = (traces[number] for number in (1, 2, 3, 4))
    assert {*v1} == STAGES | {"POST /v1/models/{model}/predict"}
    assert {*v2} == {*v2_by_grpc} == STAGES | {"POST /v2/models/{model}/infer"}
    assert {*bad} == {"POST /v1/models/{model}/predict"}
    assert refused["trace_id"] == f"{4:032x}"
    servers = {span.span_id for span in spans if span.name == "POST /v1/models/{model}/predict"}
    shared = [span for span in spans if span.name == "batch" and span.links]
    assert len(shared) == 2
    assert {link.span_id for span in shared for link in span.links} <= servers
