"""ONNX Runtime's GPU path: what is asked of the provider, how batches overlap, which form serves."""

from __future__ import annotations

import itertools
import os
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import structlog

from saccade.service.backends import onnxruntime_cuda, onnxruntime_session
from saccade.service.backends.base import LoadRequest, PipelinedBackend
from saccade.service.backends.node_assignment import AssignedNode
from saccade.service.backends.onnxruntime_forms import NHWC_FUSED, PLAIN
from saccade.service.backends.onnxruntime_session import BoundSession, SessionDevice, assigned_nodes
from saccade.service.errors import BackendError
from tests.support.simulated_onnxruntime import SIZES, SimulatedRuntime, images, on_device, simulated, warm


def test_it_is_pipelined_and_gives_everything_back(request_: LoadRequest, opened: Any) -> None:
    cuda = simulated()
    backend = opened(request_, cuda)

    assert isinstance(backend, PipelinedBackend)
    assert backend.batches_in_flight == 2
    backend.staging(2)[...] = images(2)
    outputs, seconds = backend.finish(backend.start())
    assert len(outputs[0]) == 2
    assert seconds > 0
    backend.close()
    cuda.assert_clean()


@pytest.mark.parametrize("seed", range(8))
def test_batches_that_overlap_answer_as_each_alone_would(
    request_: LoadRequest, runtime: SimulatedRuntime, opened: Any, seed: int
) -> None:
    runtime.cuda = simulated(seed, eagerness=seed / 10)
    backend, plain = on_device(request_, runtime), opened(request_)
    sizes = [4, 1, 2, 16, 4, 2, 1, 1, 4]
    alone = [plain.infer(images(size, index)) for index, size in enumerate(sizes)]

    found, started = [], []
    for index, size in enumerate(sizes):
        if len(started) == backend.batches_in_flight:
            found.append(backend.finish(started.pop(0))[0])
        backend.staging(size)[...] = images(size, index)
        started.append(backend.start())
    found += [backend.finish(number)[0] for number in started]

    for outputs, expected in zip(found, alone, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(outputs, expected, strict=True))
    backend.close()
    runtime.cuda.assert_clean()


def test_run_is_not_waited_for_once_its_size_has_run(request_: LoadRequest, runtime: SimulatedRuntime) -> None:
    backend = on_device(request_, runtime)
    warm(backend)
    runtime.runs.clear()

    backend.infer(images(4))
    backend.infer(images(16))

    assert [run["disable_synchronize_execution_providers"] for run in runtime.runs] == ["1", "1"]
    backend.close()


def test_each_lane_has_a_graph_of_its_own_and_large_batches_have_none(
    request_: LoadRequest, runtime: SimulatedRuntime
) -> None:
    backend = on_device(request_, runtime)
    warm(backend)
    runtime.runs.clear()

    for size in (2, 16):
        for _ in range(2):
            backend.staging(size)[...] = images(size)
            backend.start()
        for number in list(backend._started):
            backend.finish(number)

    assert [run.get("gpu_graph_id") for run in runtime.runs] == ["1", "2", None, None]
    assert backend.graphs[2] == "captured"
    assert "gains nothing" in backend.graphs[16]
    backend.close()


def test_session_that_does_not_take_the_stream_is_waited_for(request_: LoadRequest, opened: Any) -> None:
    # On the processor no session takes a stream; the device is as late as it may be.
    backend, calm = opened(request_, simulated(eagerness=0.0)), opened(request_, simulated(eagerness=1.0))

    for size in (4, 2, 4):
        for one, other in zip(backend.infer(images(size)), calm.infer(images(size)), strict=True):
            assert np.array_equal(one, other)


def test_only_one_batch_more_than_there_are_lanes_is_refused(request_: LoadRequest, opened: Any) -> None:
    backend = opened(request_)
    for _ in range(2):
        backend.staging(1)[...] = images(1)
        backend.start()

    with pytest.raises(BackendError, match="2 batches are in flight"):
        backend.staging(1)


def test_size_that_was_not_loaded_is_refused(request_: LoadRequest, opened: Any) -> None:
    with pytest.raises(BackendError, match="batch size 3 is not among those loaded: 1, 2, 4, 16"):
        opened(request_).staging(3)


def test_nothing_staged_is_nothing_to_start(request_: LoadRequest, opened: Any) -> None:
    with pytest.raises(BackendError, match="nothing was staged"):
        opened(request_).start()


def test_sizes_that_nobody_named_are_taken_as_they_come(request_: LoadRequest, opened: Any) -> None:
    cuda = simulated()
    backend = opened(replace(request_, allowed_batch_sizes=()), cuda)

    for size in (1, 7, 3):
        assert len(backend.infer(images(size))[0]) == size
    backend.close()
    cuda.assert_clean()


def test_assignment_of_a_real_session_is_read(request_: LoadRequest, opened: Any) -> None:
    nodes = assigned_nodes(opened(request_)._sessions[1]._session)

    assert {node.provider for node in nodes} == {"CPUExecutionProvider"}
    assert "TopK" in {node.operator for node in nodes}


def test_heavy_node_elsewhere_refuses_the_file(
    request_: LoadRequest, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = simulated()
    monkeypatch.setattr(
        onnxruntime_session, "assigned_nodes", lambda _session: [AssignedNode("OtherExecutionProvider", "TopK", "/k")]
    )

    with pytest.raises(BackendError, match=r"1 x TopK on OtherExecutionProvider .*Refusing the silent fallback"):
        opened(request_, cuda)
    cuda.assert_clean()


# How the provider is asked


def test_fp32_is_asked_to_be_fp32_and_half_precision_may_use_tensor_cores() -> None:
    placement = SessionDevice("CUDAExecutionProvider", "cuda", 1)

    assert placement.options(PLAIN, "fp32", 77, with_graphs=True) == {
        "device_id": "1",
        "user_compute_stream": "77",
        "use_tf32": "0",
        "enable_cuda_graph": "1",
        "cudnn_conv_algo_search": "HEURISTIC",
    }
    half = placement.options(NHWC_FUSED, "fp16", 77, with_graphs=False)
    assert (half["use_tf32"], half["prefer_nhwc"], half["fuse_conv_bias"]) == ("1", "1", "1")
    assert half["enable_cuda_graph"] == "0"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_fp32_arithmetic_is_never_opened_in_a_form_that_may_fall_back_to_tf32(
    request_: LoadRequest, runtime: SimulatedRuntime, precision: str
) -> None:
    backend = on_device(replace(request_, precision=precision), runtime)

    assert backend.form.name == "plain"
    assert all(options["use_tf32"] == "0" and "fuse_conv_bias" not in options for options in runtime.opened)
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
    backend.close()


@pytest.mark.parametrize(("fused_speed", "wins"), [(300.0, "nhwc_fused"), (90.0, "plain")])
def test_fastest_form_serves_every_size(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch, fused_speed: float, wins: str
) -> None:
    speeds = iter([100.0, fused_speed])
    monkeypatch.setattr(BoundSession, "images_per_s", lambda self, lane, size: next(speeds))

    with structlog.testing.capture_logs() as logs:
        backend = on_device(request_, runtime)

    assert backend.form.name == wins
    kept = runtime.opened[-len(SIZES) + 1 :]
    assert {"prefer_nhwc" in options for options in kept} == {wins == "nhwc_fused"}
    chosen = next(entry for entry in logs if entry["event"] == "onnxruntime_form_chosen")
    assert chosen["images_per_s"] == {"plain": 100.0, "nhwc_fused": fused_speed}
    assert len(backend.infer(images(4))[0]) == 4
    backend.close()
    runtime.cuda.assert_clean()


def test_library_says_nothing_of_plans_that_it_does_not_find(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    said: list[int] = []
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", said.append)

    on_device(request_, runtime).close()

    assert set(said) == {4}, "only what is fatal"


def test_cuda_libraries_are_loaded_from_their_wheels_before_a_session_opens(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    given: list[str] = []

    def preload_dlls(directory: str) -> None:
        given.append(directory)
        print("Failed to load libcufft.so.12: no such file")  # as the library tells it

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload_dlls)

    with structlog.testing.capture_logs() as logs:
        on_device(request_, runtime).close()

    assert given == [""], "the wheels' folders first, then the system's"
    (told,) = [entry for entry in logs if entry["event"] == "cuda_libraries_missing"]
    assert told["said"] == "Failed to load libcufft.so.12: no such file"


def test_library_may_say_why_its_provider_does_not_load(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    said: list[int] = []
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", said.append)
    runtime.refused["user_compute_stream"] = "asked for CUDAExecutionProvider, onnxruntime chose CPUExecutionProvider"

    with pytest.raises(BackendError, match="onnxruntime chose CPUExecutionProvider"):
        on_device(request_, runtime)

    assert said == []


def test_session_that_loses_its_stream_is_said_once(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime_session, "_stream_of", lambda options, provider: "0")

    with structlog.testing.capture_logs() as logs:
        backend = on_device(request_, runtime)

    assert [entry["event"] for entry in logs].count("onnxruntime_stream_refused") == 1
    assert len(backend.infer(images(4))[0]) == 4
    backend.close()


@pytest.mark.parametrize(("largest_bytes", "at_once"), [(2**20, len(SIZES)), (0, 1)], ids=["small file", "large file"])
def test_sessions_of_a_small_file_are_opened_at_the_same_time(
    request_: LoadRequest,
    runtime: SimulatedRuntime,
    monkeypatch: pytest.MonkeyPatch,
    largest_bytes: int,
    at_once: int,
) -> None:
    monkeypatch.setattr(onnxruntime_cuda, "_LARGEST_AT_ONCE", largest_bytes)
    all_inside, inside, most, opening = threading.Barrier(at_once), [0], [0], onnxruntime_session.open_session

    def open_with_others(*arguments: Any, **named: Any) -> Any:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        all_inside.wait(timeout=30)
        inside[0] -= 1
        return opening(*arguments, **named)

    monkeypatch.setattr(onnxruntime_session, "open_session", open_with_others)
    backend = on_device(replace(request_, precision="fp32"), runtime)  # which has one form, so nothing is tried

    warm(backend)
    backend.close()
    assert most == [at_once]
    assert len(runtime.opened) == len(SIZES)
    runtime.cuda.assert_clean()


def test_size_that_does_not_open_beside_others_refuses_the_file(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    opening, number = onnxruntime_session.open_session, itertools.count(1)

    def third_fails(*arguments: Any, **named: Any) -> Any:
        if next(number) == 3:
            raise BackendError("no such kernel")
        return opening(*arguments, **named)

    monkeypatch.setattr(onnxruntime_session, "open_session", third_fails)

    with pytest.raises(BackendError, match="no such kernel"):
        on_device(replace(request_, precision="fp32"), runtime)
    runtime.cuda.assert_clean()


def test_forms_are_measured_with_real_runs(request_: LoadRequest, runtime: SimulatedRuntime) -> None:
    with structlog.testing.capture_logs() as logs:
        on_device(request_, runtime).close()

    chosen = next(entry for entry in logs if entry["event"] == "onnxruntime_form_chosen")
    assert chosen["batch_size"] == 16
    assert all(speed > 0 for speed in chosen["images_per_s"].values())
    runtime.cuda.assert_clean()


def test_form_that_does_not_open_is_done_without_and_said(request_: LoadRequest, runtime: SimulatedRuntime) -> None:
    runtime.refused["prefer_nhwc"] = "no NHWC operators in this build"

    with structlog.testing.capture_logs() as logs:
        backend = on_device(request_, runtime)

    assert backend.form.name == "plain"
    chosen = next(entry for entry in logs if entry["event"] == "onnxruntime_form_chosen")
    assert chosen["failed"] == {"nhwc_fused": "no NHWC operators in this build"}
    assert len(backend.infer(images(2))[0]) == 2
    backend.close()


def test_graphs_that_the_session_refuses_are_done_without(request_: LoadRequest, runtime: SimulatedRuntime) -> None:
    runtime.refused["enable_cuda_graph"] = "This session cannot use the graph capture feature as requested"

    backend = on_device(request_, runtime)
    backend.infer(images(1))

    assert backend.graphs[1].startswith("ONNX Runtime refuses: This session cannot use the graph capture feature")
    backend.close()
