"""ONNX Runtime's GPU path: bound tensors for real on the CPU, its failures as a GPU's would read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.specs import Task
from service.backends import onnxruntime_cuda
from service.backends.base import LoadRequest, PipelinedBackend
from service.backends.node_assignment import AssignedNode
from service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend, Placement, _nodes
from service.errors import BackendError, DeviceLost, OutOfDeviceMemory
from tests.support.graphs import classifier_graph
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.versions import SIDE, manifest_for

ON_CPU = Placement("CPUExecutionProvider", "cpu", 0)


@pytest.fixture
def request_(tmp_path: Path) -> LoadRequest:
    file = tmp_path / "model.onnx"
    file.write_bytes(classifier_graph())
    manifest = manifest_for("digits", 1, Task.CLASSIFY)
    return LoadRequest(
        file, manifest.input, manifest.outputs, "cuda:0", 1, False, allowed_batch_sizes=(1, 2, 4), cuda_graphs=True
    )


def opened(request: LoadRequest, cuda: SimulatedCuda | None = None) -> OnnxRuntimeCudaBackend:
    return OnnxRuntimeCudaBackend(request, cuda=cuda or SimulatedCuda(), placement=ON_CPU)


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)


def test_it_is_pipelined_with_pinned_staging_memory_that_is_given_back(request_: LoadRequest) -> None:
    cuda = SimulatedCuda()
    backend = opened(request_, cuda)

    assert isinstance(backend, PipelinedBackend)
    assert backend.batches_in_flight == 1
    assert cuda.pinned_bytes == 4 * SIDE * SIDE * 3
    backend.staging(2)[...] = images(2)
    outputs, seconds = backend.finish(backend.start())
    assert len(outputs[0]) == 2
    assert seconds > 0
    backend.close()
    cuda.assert_clean()


def test_size_that_was_not_loaded_is_refused(request_: LoadRequest) -> None:
    with pytest.raises(BackendError, match="batch size 3 is not among those loaded: 1, 2, 4"):
        opened(request_).staging(3)


def test_nothing_staged_is_nothing_to_start(request_: LoadRequest) -> None:
    with pytest.raises(BackendError, match="nothing was staged"):
        opened(request_).start()


def test_assignment_of_a_real_session_is_read(request_: LoadRequest) -> None:
    nodes = _nodes(opened(request_)._session)

    assert {node.provider for node in nodes} == {"CPUExecutionProvider"}
    assert "TopK" in {node.operator for node in nodes}


def test_heavy_node_elsewhere_refuses_the_file(request_: LoadRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        onnxruntime_cuda, "_nodes", lambda _session: [AssignedNode("OtherExecutionProvider", "TopK", "/topk")]
    )

    with pytest.raises(BackendError, match=r"1 x TopK on OtherExecutionProvider .*Refusing the silent fallback"):
        opened(request_)


def test_real_placement_asks_for_graphs_and_for_fp32_that_is_fp32() -> None:
    placement = Placement("CUDAExecutionProvider", "cuda", 1)

    assert placement.options(with_graphs=True) == {"device_id": "1", "use_tf32": "0", "enable_cuda_graph": "1"}
    assert placement.options(with_graphs=False)["enable_cuda_graph"] == "0"


def failing(backend: OnnxRuntimeCudaBackend, text: str, times: int = 1) -> list[str]:
    """Makes the next runs fail as ONNX Runtime fails; the graph ids that were asked for are kept."""
    asked: list[str] = []
    run = backend._session.run_with_iobinding

    def run_with_iobinding(binding: Any, options: Any) -> None:
        asked.append(options.get_run_config_entry("gpu_graph_id"))
        if len(asked) <= times:
            raise RuntimeError(text)
        run(binding, options)

    backend._session.run_with_iobinding = run_with_iobinding
    return asked


def test_capture_that_fails_is_given_up_and_the_batch_runs(request_: LoadRequest) -> None:
    backend = opened(request_)
    failing(backend, "operation not permitted when stream is capturing")

    assert len(backend.infer(images(2))[0]) == 2
    assert backend.graphs == {2: "capture failed: onnxruntime failed: operation not permitted when stream is capturing"}


def test_each_size_has_a_graph_of_its_own(request_: LoadRequest) -> None:
    backend = opened(request_)
    asked = failing(backend, "", times=0)

    for size in (1, 4, 2, 4):
        backend.infer(images(size))

    assert asked == ["1", "4", "2", "4"]
    assert backend.graphs == dict.fromkeys((1, 2, 4), "captured")


def test_failure_of_a_size_that_ran_before_is_a_failure(request_: LoadRequest) -> None:
    backend = opened(request_)
    backend.infer(images(2))
    failing(backend, "no kernel")

    with pytest.raises(BackendError, match="onnxruntime failed: no kernel"):
        backend.infer(images(2))
    assert len(backend.infer(images(2))[0]) == 2


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", DeviceLost),
        ("Failed to allocate memory for requested buffer of size 12", OutOfDeviceMemory),
    ],
)
def test_failure_is_what_onnxruntime_quotes(request_: LoadRequest, text: str, kind: type[Exception]) -> None:
    backend = opened(request_)
    backend.infer(images(2))
    failing(backend, text)

    with pytest.raises(kind):
        backend.infer(images(2))


def test_graphs_that_the_session_refuses_are_done_without(
    request_: LoadRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = onnxruntime_cuda.open_session, []

    def open_session(request: LoadRequest, provider: str, options: Any, entries: Any) -> Any:
        asked.append(entries)
        if len(asked) == 1:
            raise BackendError("This session cannot use the graph capture feature as requested")
        return real(request, provider, options, entries)

    monkeypatch.setattr(onnxruntime_cuda, "open_session", open_session)
    backend = opened(request_)
    backend.infer(images(1))

    assert backend.graphs[1].startswith("ONNX Runtime refuses: This session cannot use the graph capture feature")


def test_sizes_that_nobody_named_are_bound_when_they_come(request_: LoadRequest) -> None:
    cuda = SimulatedCuda()
    fields = {name: getattr(request_, name) for name in LoadRequest.__slots__}
    backend = opened(LoadRequest(**{**fields, "allowed_batch_sizes": ()}), cuda)

    for size in (1, 7, 3):
        assert len(backend.infer(images(size))[0]) == size
    backend.close()
    cuda.assert_clean()
