"""ONNX Runtime's failures on a GPU: what is given up, what fails alone, and when the device is lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from saccade.service.backends.base import LoadRequest
from saccade.service.backends.onnxruntime_session import BoundSession
from saccade.service.errors import BackendError, DeviceLost, OutOfDeviceMemory
from tests.support.simulated_onnxruntime import SimulatedRuntime, images, on_device, warm


def failing(monkeypatch: pytest.MonkeyPatch, text: str, times: int = 1) -> None:
    """The next runs of any session fail in these words."""
    left = [times]
    run = BoundSession.run

    def fails(self: BoundSession, *arguments: Any, **named: Any) -> None:
        if left[0] > 0:
            left[0] -= 1
            raise BackendError(f"onnxruntime failed: {text}")
        run(self, *arguments, **named)

    monkeypatch.setattr(BoundSession, "run", fails)


def test_capture_that_fails_is_given_up_and_the_batch_runs(
    request_: LoadRequest, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened(request_)
    failing(monkeypatch, "operation not permitted when stream is capturing")

    assert len(backend.infer(images(2))[0]) == 2
    assert backend.graphs == {2: "capture failed: onnxruntime failed: operation not permitted when stream is capturing"}


def test_capture_that_breaks_leaves_a_stream_that_can_be_used(request_: LoadRequest, runtime: SimulatedRuntime) -> None:
    backend = on_device(request_, runtime)
    runtime.broken_captures.append("operation would make the legacy stream depend on a capturing blocking stream")

    warm(backend)

    assert backend.graphs[1].startswith("capture failed: onnxruntime failed: operation would make the legacy stream")
    backend.close()
    runtime.cuda.assert_clean()


def test_no_other_thread_calls_while_a_size_runs_for_the_first_time(
    request_: LoadRequest, opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = opened(request_)
    backend.staging(2)[...] = images(2)

    number = backend.start()

    assert backend._started[number].queued.done()
    backend.finish(number)


def test_form_that_fails_in_its_first_run_is_given_up_after_the_graphs(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter([1.0, 2.0])
    monkeypatch.setattr(BoundSession, "images_per_s", lambda self, lane, size: next(speeds))
    backend = on_device(request_, runtime)
    failing(monkeypatch, "no engine for this shape", times=2)

    assert len(backend.infer(images(2))[0]) == 2
    assert backend.form.name == "plain"
    assert backend.graphs[2].startswith("capture failed")
    backend.close()
    runtime.cuda.assert_clean()


def test_form_that_fails_where_there_is_no_graph_costs_no_graphs(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    speeds = iter([1.0, 2.0])
    monkeypatch.setattr(BoundSession, "images_per_s", lambda self, lane, size: next(speeds))
    backend = on_device(request_, runtime)
    failing(monkeypatch, "no engine for this shape")

    assert len(backend.infer(images(16))[0]) == 16
    backend.infer(images(2))

    assert backend.form.name == "plain"
    assert backend.graphs[2] == "captured"
    backend.close()


def test_run_that_fails_on_a_healthy_device_fails_alone(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_device(request_, runtime)
    warm(backend)
    expected = backend.infer(images(2))
    failing(monkeypatch, "words that nobody has read before")
    numbers = []
    for _ in range(2):
        backend.staging(2)[...] = images(2)
        numbers.append(backend.start())

    with pytest.raises(BackendError, match="words that nobody has read before"):
        backend.finish(numbers[0])

    found, _ = backend.finish(numbers[1])
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))
    backend.close()
    runtime.cuda.assert_clean()


def test_run_that_fails_in_unknown_words_on_a_lost_device_is_a_lost_device(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = on_device(request_, runtime)
    warm(backend)

    def breaks(self: BoundSession, *arguments: Any, **named: Any) -> None:
        runtime.cuda.lose_at_call(1)
        raise BackendError("onnxruntime failed: words that nobody has read before")

    monkeypatch.setattr(BoundSession, "run", breaks)
    backend.staging(2)[...] = images(2)
    number = backend.start()

    with pytest.raises(DeviceLost, match="cudaErrorIllegalAddress"):
        backend.finish(number)
    backend._runner.shutdown()


def test_kernel_that_breaks_the_device_later_is_a_lost_device(request_: LoadRequest, runtime: SimulatedRuntime) -> None:
    backend = on_device(request_, runtime)
    warm(backend)
    backend.staging(2)[...] = images(2)
    runtime.cuda.poison_next_run()

    with pytest.raises(DeviceLost):
        backend.finish(backend.start())
    backend._runner.shutdown()


def test_device_that_is_lost_while_forms_are_tried_ends_the_load(
    request_: LoadRequest, runtime: SimulatedRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: BoundSession, *arguments: Any, **named: Any) -> None:
        runtime.cuda.lose_at_call(1)
        raise BackendError("onnxruntime failed: words that nobody has read before")

    monkeypatch.setattr(BoundSession, "run", breaks)

    with pytest.raises(DeviceLost):
        on_device(request_, runtime)


def test_memory_that_runs_out_is_named(request_: LoadRequest, opened: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = opened(request_)
    backend.infer(images(2))
    failing(monkeypatch, "Failed to allocate memory for requested buffer of size 12")

    with pytest.raises(OutOfDeviceMemory, match="lower max_batch_size"):
        backend.infer(images(2))
