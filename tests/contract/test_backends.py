"""One suite for every backend: what the device loop relies on, whatever runs behind it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from saccade.models.contract.specs import Task, TensorSpec
from saccade.service.backends.base import Backend, LoadRequest, Outputs, PipelinedBackend, UInt8Array
from saccade.service.backends.fake_backend import POISON
from saccade.service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from saccade.service.backends.registry import load_backend
from saccade.service.errors import BackendError, RepositoryError
from tests.support.graphs import (
    classifier_graph,
    detector_graph,
    embedder_graph,
    image_graph,
    instances_graph,
    segmenter_graph,
)
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_onnxruntime import ON_CPU
from tests.support.simulated_plans import open_simulated
from tests.support.versions import SIDE, manifest_for

GRAPHS = {
    Task.CLASSIFY: classifier_graph,
    Task.DETECT: detector_graph,
    Task.SEGMENT: segmenter_graph,
    Task.INSTANCES: instances_graph,
    Task.EMBED: embedder_graph,
    Task.IMAGE: image_graph,
}
PROVIDERS = {
    "onnxruntime": "CPUExecutionProvider",
    "openvino": f"openvino {version('openvino')}",
    "fake": "FakeExecutionProvider",
    "onnxruntime-bound": "CPUExecutionProvider",  # the GPU's path, with sessions and tensors on the CPU
    "tensorrt": "tensorrt 10.16.1",  # on a simulated device, where every run may be as late as the rules allow
}


@dataclass(frozen=True)
class Subject:
    """A backend that can be opened on one task's deploy graph."""

    name: str
    request: LoadRequest

    def load(self, **changes: object) -> Backend:
        request = replace(self.request, **changes)  # type: ignore[arg-type]  # any field
        if self.name == "tensorrt":
            return open_simulated(request, request.file.parent / "engines", SimulatedCuda(eagerness=0.3))
        if self.name == "onnxruntime-bound":
            cuda = SimulatedCuda(eagerness=0.3, one_thread_at_a_time=False)
            return OnnxRuntimeCudaBackend(request, cuda=cuda, placement=ON_CPU)
        return load_backend(self.name, request)


def request_for(directory: Path, task: Task, content: bytes) -> LoadRequest:
    file = directory / "model.onnx"
    file.write_bytes(content)
    manifest = manifest_for("digits", 1, task)
    digest = hashlib.sha256(content).hexdigest()
    return LoadRequest(file, manifest.input, manifest.outputs, "cpu", 1, False, digest)


@pytest.fixture(params=list(Task), ids=str)
def task(request: pytest.FixtureRequest) -> Task:
    found: Task = request.param
    return found


@pytest.fixture(params=list(PROVIDERS))
def subject(request: pytest.FixtureRequest, tmp_path: Path, task: Task) -> Subject:
    return Subject(request.param, request_for(tmp_path, task, GRAPHS[task]()))


@pytest.fixture
def backend(subject: Subject) -> Iterator[Backend]:
    loaded = subject.load()
    yield loaded
    loaded.close()


def images(count: int, seed: int = 0) -> UInt8Array:
    """Images of different brightness; none starts with one of the fake backend's magic pixels."""
    made = np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE, 3), np.uint8)
    made[:, 0, 0] = np.linspace(20, 250, count, dtype=np.uint8)[:, np.newaxis]
    made[:, 1:] //= np.arange(1, count + 1, dtype=np.uint8)[:, np.newaxis, np.newaxis, np.newaxis]
    return made


def copied(outputs: Outputs) -> list[np.ndarray]:
    return [np.array(output) for output in outputs]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_outputs_have_the_declared_shapes_and_types(subject: Subject, backend: Backend, count: int) -> None:
    outputs = backend.infer(images(count))

    assert [output.shape for output in outputs] == [(count, *spec.shape) for spec in subject.request.outputs]
    assert [str(output.dtype) for output in outputs] == [spec.dtype for spec in subject.request.outputs]


def test_rows_are_in_request_order(backend: Backend) -> None:
    given, order = images(5), [3, 0, 4, 2, 1]
    straight = copied(backend.infer(given))

    shuffled = backend.infer(given[order])

    for one, other in zip(straight, shuffled, strict=True):
        assert np.array_equal(one[order], other)


def test_answer_is_the_same_alone_and_in_a_batch(backend: Backend) -> None:
    given = images(5)
    together = copied(backend.infer(given))

    for index in range(5):
        alone = backend.infer(given[index : index + 1])
        for one, other in zip(together, alone, strict=True):
            assert np.allclose(one[index], other[0], atol=1e-6)


def test_answers_tell_images_apart(backend: Backend) -> None:
    # or else the two tests above would prove nothing
    outputs = backend.infer(images(5))

    assert any(len(np.unique(output, axis=0)) > 1 for output in outputs)


def test_answer_is_the_same_every_time(backend: Backend) -> None:
    first = copied(backend.infer(images(3)))
    backend.infer(images(4, seed=1))

    for one, other in zip(first, backend.infer(images(3)), strict=True):
        assert np.array_equal(one, other)


def test_outputs_survive_the_next_call(backend: Backend) -> None:
    kept = backend.infer(images(3))
    before = copied(kept)
    backend.infer(images(3, seed=7))

    assert all(np.array_equal(one, other) for one, other in zip(kept, before, strict=True))


def test_input_is_left_as_it_was(backend: Backend) -> None:
    given = images(2)
    backend.infer(given)

    assert np.array_equal(given, images(2))


def test_provider_is_the_one_that_really_runs(subject: Subject, backend: Backend) -> None:
    assert backend.provider == PROVIDERS[subject.name]


def opens_the_file_itself(subject: Subject) -> Subject:
    """The plan's own bytes and key have tests of their own: tests/unit/service/backends/tensorrt/test_backend.py."""
    if subject.name == "tensorrt":
        pytest.skip("opens a plan and never the file that it was made from")
    return subject


def test_wrong_digest_is_refused(subject: Subject) -> None:
    with pytest.raises(RepositoryError, match="the file changed after its gate"):
        opens_the_file_itself(subject).load(sha256="0" * 64)


def test_missing_file_is_refused(subject: Subject, tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="cannot read"):
        opens_the_file_itself(subject).load(file=tmp_path / "absent.onnx")


def test_file_is_not_read_again_after_its_digest_was_checked(subject: Subject) -> None:
    backend = opens_the_file_itself(subject).load()
    subject.request.file.unlink()

    assert len(backend.infer(images(1))) == len(subject.request.outputs)
    backend.close()


def _poisoned() -> UInt8Array:
    given = images(2)
    given[1, 0, 0] = POISON
    return given


FAULTS: dict[str, Callable[[], UInt8Array]] = {
    "onnxruntime": lambda: images(2)[:, :-1],  # a height the graph does not take
    "openvino": lambda: images(2)[:, :-1],
    "fake": _poisoned,
    "onnxruntime-bound": lambda: images(2)[:, :-1],
    "tensorrt": lambda: images(2)[:, :-1],
}


def test_failed_run_is_a_backend_error_and_the_backend_stays_usable(subject: Subject, backend: Backend) -> None:
    before = copied(backend.infer(images(2)))

    with pytest.raises(BackendError):
        backend.infer(FAULTS[subject.name]())

    assert all(np.array_equal(one, other) for one, other in zip(before, backend.infer(images(2)), strict=True))


# What the device loop relies on where batches overlap


@pytest.fixture(params=["tensorrt", "onnxruntime-bound"])
def pipelined(request: pytest.FixtureRequest, tmp_path: Path, task: Task) -> Iterator[PipelinedBackend]:
    subject = Subject(request.param, request_for(tmp_path, task, GRAPHS[task]()))
    loaded = cast("PipelinedBackend", subject.load(batches_in_flight=3, allowed_batch_sizes=(1, 2, 3, 4, 5)))
    yield loaded
    loaded.close()


def started(backend: PipelinedBackend, given: UInt8Array) -> int:
    backend.staging(len(given))[...] = given
    return backend.start()


def test_batches_in_flight_are_as_many_as_asked_for(pipelined: PipelinedBackend) -> None:
    assert pipelined.batches_in_flight == 3


def test_staging_has_the_shape_of_the_batch(pipelined: PipelinedBackend) -> None:
    for count in (1, 4, 2):
        assert pipelined.staging(count).shape == (count, SIDE, SIDE, 3)


def test_batches_that_overlap_answer_as_each_alone_would(pipelined: PipelinedBackend) -> None:
    given = [images(count, seed) for seed, count in enumerate((3, 1, 5))]
    alone = [copied(pipelined.infer(each)) for each in given]

    in_flight = [started(pipelined, each) for each in given]

    for number, expected in zip(in_flight, alone, strict=True):
        outputs, seconds = pipelined.finish(number)
        assert seconds > 0
        assert all(np.array_equal(one, other) for one, other in zip(outputs, expected, strict=True))


def test_pixels_may_be_staged_while_a_batch_runs(pipelined: PipelinedBackend) -> None:
    first, second = images(4, seed=1), images(4, seed=2)
    expected = copied(pipelined.infer(first))
    number = started(pipelined, first)

    pipelined.staging(4)[...] = second

    assert all(np.array_equal(one, other) for one, other in zip(pipelined.finish(number)[0], expected, strict=True))


def test_size_that_was_not_loaded_is_refused_and_harms_nothing(pipelined: PipelinedBackend) -> None:
    with pytest.raises(BackendError, match="batch size 9"):
        pipelined.staging(9)

    assert len(pipelined.infer(images(1))[0]) == 1


# What only a real runtime can get wrong


@pytest.fixture
def onnx_subject(tmp_path: Path) -> Subject:
    return Subject("onnxruntime", request_for(tmp_path, Task.CLASSIFY, classifier_graph()))


def test_onnxruntime_refuses_a_file_with_other_tensors_than_the_manifest(tmp_path: Path) -> None:
    subject = Subject("onnxruntime", request_for(tmp_path, Task.CLASSIFY, segmenter_graph()))

    with pytest.raises(BackendError, match=r"model\.onnx has .*mask.*, the manifest declares .*scores"):
        subject.load()


@pytest.mark.parametrize(
    "changes",
    [
        {"outputs": (TensorSpec(name="scores", dtype="int32", shape=(10,)),)},
        {"outputs": (TensorSpec(name="logits", dtype="float32", shape=(10,)),)},
        {"input": TensorSpec(name="images", dtype="float32", shape=(SIDE, SIDE, 3))},
        {"input": TensorSpec(name="pixels", dtype="uint8", shape=(SIDE, SIDE, 3))},
    ],
    ids=["output type", "output name", "input type", "input name"],
)
def test_onnxruntime_refuses_a_signature_that_differs_from_the_manifest(
    onnx_subject: Subject, changes: dict[str, object]
) -> None:
    with pytest.raises(BackendError, match="the manifest declares"):
        onnx_subject.load(**changes)


def test_onnxruntime_takes_a_subset_of_the_files_outputs(onnx_subject: Subject) -> None:
    backend = onnx_subject.load(outputs=onnx_subject.request.outputs[1:])

    (class_ids,) = backend.infer(images(2))

    assert class_ids.dtype == np.int32
    backend.close()


def test_onnxruntime_refuses_cuda_when_its_provider_is_absent(onnx_subject: Subject) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has the CUDA provider")
    with pytest.raises(BackendError, match=r"'cuda:0' needs CUDAExecutionProvider; .*install the matching extra"):
        onnx_subject.load(device="cuda:0")


@pytest.mark.parametrize("content", [b"", b"not a model", bytes(1000)])
def test_onnxruntime_refuses_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    subject = Subject("onnxruntime", request_for(tmp_path, Task.CLASSIFY, content))

    with pytest.raises(BackendError, match=r"cannot load model\.onnx|the manifest declares"):
        subject.load()


def test_onnxruntime_computes_what_the_graph_says(onnx_subject: Subject) -> None:
    # given an image of even red 0.7: the graph scores class c with 1 - |0.7 - c / 10|
    backend = onnx_subject.load()
    given = np.full((1, SIDE, SIDE, 3), round(0.7 * 255), np.uint8)

    scores, class_ids = backend.infer(given)

    assert class_ids[0, 0] == 7
    assert scores[0, 0] == pytest.approx(1.0, abs=0.01)
    backend.close()
