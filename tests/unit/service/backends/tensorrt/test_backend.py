"""The TensorRT backend on a simulated device: right answers in every order of events, named refusals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.models.contract.plans import PLAN_FILE, PLAN_RECORD
from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.base import LoadRequest, UInt8Array
from saccade.service.backends.tensorrt import module
from saccade.service.backends.tensorrt_backend import TensorRtBackend, device_index
from saccade.service.errors import BackendError, DeviceLost, OutOfDeviceMemory, PlanRefused, RuntimeMissing
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_plans import SIZES, key_of, put_plan, request_for_plan, tensor_of
from tests.support.simulated_tensorrt import Design, Diagnostics, EngineValidity, SimulatedTensorRt, Tensor

IMAGES = TensorSpec(name="images", dtype="uint8", shape=(2, 2, 3))
OUTPUTS = (
    TensorSpec(name="sums", dtype="int32", shape=()),
    TensorSpec(name="pixels", dtype="float32", shape=(3,)),
)
REQUEST = LoadRequest(Path("model.onnx"), IMAGES, OUTPUTS, "cuda:0", 1, False, "a" * 64)


def answers(images: np.ndarray) -> list[np.ndarray]:
    return [images.reshape(len(images), -1).sum(1, np.int32), images[:, 0, 0].astype(np.float32)]


def design(**changes: Any) -> Design:
    tensors = (tensor_of(IMAGES, is_input=True), *map(tensor_of, OUTPUTS))
    return Design(**{"tensors": tensors, "function": answers, **changes})


@dataclass
class Machine:
    """A simulated device with its TensorRT."""

    directory: Path
    cuda: SimulatedCuda
    tensorrt: SimulatedTensorRt

    def put(self, made: Design, **key: Any) -> Path:
        return put_plan(self.directory, key_of(REQUEST, self.tensorrt, **key), self.tensorrt.plan_of(made))

    def open(self, made: Design | None = None, **changes: Any) -> TensorRtBackend:
        return self.open_at(self.put(design() if made is None else made), **changes)

    def open_at(self, place: Path, **changes: Any) -> TensorRtBackend:
        return TensorRtBackend(request_for_plan(REQUEST, place, **changes), tensorrt=self.tensorrt, cuda=self.cuda)

    def refused(self, place: Path, **changes: Any) -> str:
        """What the refusal says; the plan was not opened and nothing is left."""
        with pytest.raises(PlanRefused) as caught:
            self.open_at(place, **changes)
        assert self.tensorrt.opened == []
        self.cuda.assert_clean()
        return str(caught.value)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    cuda = SimulatedCuda()
    return Machine(tmp_path, cuda, SimulatedTensorRt(cuda))


def batch(size: int, seed: int = 0) -> UInt8Array:
    return np.random.default_rng((size, seed)).integers(0, 256, (size, *IMAGES.shape), np.uint8)


def same(found: Any, images: UInt8Array) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(found, answers(images), strict=True))


def rtx(cuda: SimulatedCuda) -> SimulatedTensorRt:
    return SimulatedTensorRt(cuda, name="tensorrt_rtx", version="1.7.1.116", is_rtx=True)


# Answers


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("contexts", [1, 2])
def test_answers_are_right_in_every_order_the_device_may_choose(tmp_path: Path, seed: int, contexts: int) -> None:
    # given a device that runs work as late as it may, at random, or as early as it may
    cuda = SimulatedCuda(seed, eagerness=(0.0, 0.5, 0.9)[seed % 3])
    tensorrt = rtx(cuda) if seed % 2 else SimulatedTensorRt(cuda)
    depth = 2 + seed % 3
    backend = Machine(tmp_path, cuda, tensorrt).open(batches_in_flight=depth, execution_contexts=contexts)
    in_flight: list[tuple[int, UInt8Array]] = []

    def finish_oldest() -> None:
        started, images = in_flight.pop(0)
        found, seconds = backend.finish(started)
        assert same(found, images)
        assert seconds > 0

    for number, size in enumerate((1, 4, 2, 5, 5, 3, 1, 2, 4)):
        images = batch(size, number)
        backend.staging(size)[...] = images
        in_flight.append((backend.start(), images))
        if len(in_flight) == depth:
            finish_oldest()
    while in_flight:
        finish_oldest()

    backend.close()
    cuda.assert_clean()


def test_batches_may_be_finished_in_another_order(machine: Machine) -> None:
    backend = machine.open()
    pairs = []
    for number in range(2):
        images = batch(3, number)
        backend.staging(3)[...] = images
        pairs.append((backend.start(), images))

    for started, images in reversed(pairs):
        assert same(backend.finish(started)[0], images)


def test_answers_are_the_callers_to_keep(machine: Machine) -> None:
    backend = machine.open(batches_in_flight=1)
    kept = backend.infer(batch(2))
    backend.infer(batch(2, seed=1))

    assert same(kept, batch(2))


def test_version_is_loaded_in_one_thread_and_run_in_another(machine: Machine) -> None:
    backend = machine.open()
    found: list[Any] = []

    thread = threading.Thread(target=lambda: found.extend(backend.infer(batch(2))))
    thread.start()
    thread.join()
    backend.close()

    assert same(found, batch(2))
    machine.cuda.assert_clean()


def test_provider_names_the_runtime_and_its_version(machine: Machine) -> None:
    assert machine.open().provider == "tensorrt 10.16.1"


@pytest.mark.parametrize("seed", range(8))
def test_outputs_that_nobody_asked_for_get_memory_of_their_own(tmp_path: Path, seed: int) -> None:
    # given outputs that only other clients of the file read, and two batches that run at the same time
    extra = (Tensor("features", "HALF", (-1, 7)), Tensor("more", "INT64", (-1,)))

    def more(images: np.ndarray) -> list[np.ndarray]:
        return [*answers(images), np.ones((len(images), 7)), np.ones(len(images))]

    cuda = SimulatedCuda(seed, eagerness=0.2)
    machine = Machine(tmp_path, cuda, SimulatedTensorRt(cuda))
    backend = machine.open(design(tensors=(*design().tensors, *extra), function=more), execution_contexts=2)
    started = []
    for number in range(2):
        backend.staging(5)[...] = batch(5, number)
        started.append(backend.start())

    for number, each in enumerate(started):
        assert same(backend.finish(each)[0], batch(5, number))
    backend.close()
    cuda.assert_clean()


# CUDA graphs


def test_every_size_is_captured_when_it_first_runs_and_launched_from_then_on(machine: Machine) -> None:
    backend = machine.open()
    assert backend.graphs == {}
    for _ in range(2):  # each of two lanes
        for size in SIZES:
            backend.infer(batch(size))
    machine.cuda.calls.clear()

    assert same(backend.infer(batch(3, seed=9)), batch(3, seed=9))
    assert backend.graphs == dict.fromkeys(SIZES, "captured")
    assert machine.cuda.calls.count("launch") == 1
    assert "launch_kernel" not in machine.cuda.calls


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"made": design(is_capturable=False)}, "TensorRT says that this engine cannot be captured"),
        ({"cuda_graphs": False}, "SACCADE_CUDA_GRAPHS is false"),
        ({"made": design(loses_capture=True)}, "capture failed: TensorRT failed to run batch size 2: operation not"),
    ],
    ids=["not capturable", "not wanted", "fails"],
)
def test_what_is_not_captured_runs_all_the_same_and_says_why(
    machine: Machine, changes: dict[str, Any], reason: str
) -> None:
    backend = machine.open(**changes)

    for seed in range(3):
        assert same(backend.infer(batch(2, seed)), batch(2, seed))
    assert backend.graphs[2].startswith(reason)
    backend.close()
    machine.cuda.assert_clean()


def test_capture_that_cuda_ends_with_an_error_is_given_up(machine: Machine) -> None:
    backend = machine.open()
    machine.cuda.fail_once("end_capture", "cudaErrorStreamCaptureInvalidated")

    assert same(backend.infer(batch(2)), batch(2))
    assert backend.graphs[2].startswith("capture failed: end_capture: cudaErrorStreamCaptureInvalidated")


# Outputs whose shape the data decides


def _sized(width_of: Callable[[int], int] = lambda _size: 3) -> Design:
    tensors = (*design().tensors[:2], Tensor("pixels", "FLOAT", (-1, -1)))

    def function(images: np.ndarray) -> list[np.ndarray]:
        sums, pixels = answers(images)
        return [sums, np.pad(pixels, ((0, 0), (0, width_of(len(images)) - 3)))]

    return design(tensors=tensors, function=function)


def test_output_that_the_data_sizes_is_read_from_where_tensorrt_put_it(machine: Machine) -> None:
    backend = machine.open(_sized())

    for seed in range(3):
        assert same(backend.infer(batch(4, seed)), batch(4, seed))
    assert backend.graphs[4] == "the data decides the shape of pixels"
    backend.close()
    machine.cuda.assert_clean()


def test_output_that_outgrows_its_memory_and_its_manifest_is_refused_and_freed(machine: Machine) -> None:
    backend = machine.open(_sized(lambda size: 9 if size == 5 else 3))

    with pytest.raises(BackendError, match=r"'pixels' came out as \(5, 9\), the manifest declares \(5, 3\)"):
        backend.infer(batch(5))
    assert same(backend.infer(batch(4)), batch(4))
    backend.close()
    machine.cuda.assert_clean()


# Refusals, before TensorRT sees a byte


def test_plan_of_another_gpu_and_another_tensorrt_is_refused_with_the_command(machine: Machine) -> None:
    place = machine.put(design(), capabilities=("SM89",), runtime_version="10.14.0")

    assert machine.refused(place) == (
        "the plan of digits/1 fp16 cannot be used: built by tensorrt 10.14.0, this machine has 10.16.1; built for SM89,"
        " this machine has SM90 (Simulated H200). build it again: saccade-export build digits/1 --variant fp16 "
        "--capability SM90"
    )


def test_plan_of_another_runtime_is_refused(machine: Machine) -> None:
    said = machine.refused(machine.put(design(), runtime="tensorrt_rtx"))

    assert "built by tensorrt_rtx, this machine has tensorrt. build it again" in said


def test_plan_whose_file_changed_is_refused(machine: Machine) -> None:
    said = machine.refused(machine.put(design()), sha256="b" * 64)

    assert "made from the file aaaaaaaaaaaa…, the variant's is bbbbbbbbbbbb…" in said


def test_plan_of_other_weights_is_refused(machine: Machine) -> None:
    place = machine.put(design(), external_sha256=(("model.data", "c" * 64), ("other.data", "d" * 64)))

    said = machine.refused(place, external_data=((Path("model.data"), "e" * 64), (Path("other.data"), "d" * 64)))

    assert "made from other weights: model.data." in said


def test_plan_without_a_wanted_batch_size_is_refused(machine: Machine) -> None:
    said = machine.refused(machine.put(design(), allowed_batch_sizes=(1, 2)), allowed_batch_sizes=(1, 2, 4, 8))

    assert "lacks batch size 4, 8; it has 1, 2" in said


def test_truncated_plan_is_refused(machine: Machine) -> None:
    place = machine.put(design())
    (place / PLAN_FILE).write_bytes((place / PLAN_FILE).read_bytes()[:-1])

    assert "it was cut off or replaced; build it again: saccade-export build digits/1" in machine.refused(place)


def test_replaced_plan_is_refused(machine: Machine) -> None:
    place = machine.put(design())
    content = (place / PLAN_FILE).read_bytes()
    (place / PLAN_FILE).write_bytes(content[::-1])

    assert "not the bytes that were built" in machine.refused(place)


@pytest.mark.parametrize("fault", ["no directory", "no plan", "damaged record", "no plan asked for"])
def test_incomplete_plan_is_refused(machine: Machine, fault: str) -> None:
    place = machine.put(design())
    if fault == "no plan":
        (place / PLAN_FILE).unlink()
    elif fault == "damaged record":
        (place / PLAN_RECORD).write_bytes(b"{")
    elif fault == "no directory":
        place = place.parent / "absent"

    said = machine.refused(place, **({"plan_dir": None} if fault == "no plan asked for" else {}))

    if fault == "no plan asked for":
        assert "saccade-export build" in said
    else:
        assert "saccade-export build digits/1 --variant fp16 --capability SM90" in said


def test_missing_tensorrt_is_named_with_what_to_install(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "get_args", lambda _names: ())
    monkeypatch.setattr(module.importlib, "import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    request = request_for_plan(REQUEST, machine.put(design()))

    with pytest.raises(RuntimeMissing, match=r"needs tensorrt 10\.16\.1 and no TensorRT is installed: pip install"):
        TensorRtBackend(request, cuda=machine.cuda)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:x"])
def test_device_that_is_no_gpu_is_refused(device: str) -> None:
    with pytest.raises(BackendError, match="TensorRT runs on a GPU"):
        device_index(device)
    assert device_index("cuda:12") == 12


# Refusals by TensorRT


def test_plan_that_tensorrt_cannot_open_is_refused_in_its_own_words(machine: Machine) -> None:
    place = put_plan(machine.directory, key_of(REQUEST, machine.tensorrt), b"nothing that it knows")

    with pytest.raises(PlanRefused, match=r"cannot open the plan: Serialization assertion magicTag failed; build it"):
        machine.open_at(place)
    machine.cuda.assert_clean()


@pytest.mark.parametrize(
    ("validity", "kind", "says"),
    [
        ((EngineValidity.INVALID, Diagnostics.VERSION_MISMATCH), PlanRefused, "invalid: version mismatch; build it"),
        ((EngineValidity.INVALID, Diagnostics.OLD_CUDA_DRIVER), RuntimeMissing, "old cuda driver; update the driver"),
        ((EngineValidity.INVALID, Diagnostics.INSUFFICIENT_GPU_MEMORY), OutOfDeviceMemory, "more memory than this GPU"),
    ],
)
def test_runtime_that_judges_a_plan_by_its_header_is_asked_first(
    tmp_path: Path, validity: tuple[EngineValidity, int], kind: type[Exception], says: str
) -> None:
    cuda = SimulatedCuda()
    machine = Machine(tmp_path, cuda, rtx(cuda))
    machine.tensorrt.validity = validity

    with pytest.raises(kind, match=says):
        machine.open()
    assert machine.tensorrt.opened == []


def test_plan_that_is_merely_not_the_best_is_opened(tmp_path: Path) -> None:
    cuda = SimulatedCuda()
    machine = Machine(tmp_path, cuda, rtx(cuda))
    machine.tensorrt.validity = (EngineValidity.SUBOPTIMAL, 0)

    assert same(machine.open().infer(batch(1)), batch(1))


@pytest.mark.parametrize(
    "tensor",
    [
        Tensor("pixels", "FLOAT", (-1, 4)),
        Tensor("pixels", "HALF", (-1, 3)),
        Tensor("others", "FLOAT", (-1, 3)),
    ],
    ids=["shape", "type", "name"],
)
def test_plan_with_other_tensors_than_the_manifest_is_refused(machine: Machine, tensor: Tensor) -> None:
    made = design(tensors=(*design().tensors[:2], tensor))

    with pytest.raises(PlanRefused, match=r"the plan has images uint8\[2, 2, 3\] -> .*, the manifest declares images"):
        machine.open(made)
    machine.cuda.assert_clean()


# Memory


def test_too_little_memory_is_refused_with_figures_before_anything_is_allocated(machine: Machine) -> None:
    with pytest.raises(OutOfDeviceMemory, match=r"model\.onnx as a plan .* are free: unload a version"):
        machine.open(design(scratch_bytes=1 << 40))
    assert "allocate" not in machine.cuda.calls
    machine.cuda.assert_clean()


@pytest.mark.parametrize("limit_bytes", [1, 300])
def test_memory_that_runs_out_half_way_is_given_back(machine: Machine, limit_bytes: int) -> None:
    machine.cuda.refuse_allocations_over(limit_bytes)

    with pytest.raises(OutOfDeviceMemory):
        machine.open()
    machine.cuda.assert_clean()


def test_context_without_memory_is_named(machine: Machine) -> None:
    with pytest.raises(OutOfDeviceMemory, match=r"makes no execution context: .*OutOfMemory"):
        machine.open(design(has_no_memory=True))
    machine.cuda.assert_clean()


def test_memory_is_what_was_planned(machine: Machine) -> None:
    backend = machine.open(batches_in_flight=3, execution_contexts=2)

    assert machine.cuda.used_bytes == backend.buffers.device_bytes
    assert machine.cuda.pinned_bytes == backend.buffers.pinned_bytes
    for size in SIZES * 2:
        backend.infer(batch(size))
    assert machine.cuda.used_bytes == backend.buffers.device_bytes


# Failures while it serves


def test_failed_run_leaves_the_backend_usable(machine: Machine) -> None:
    backend = machine.open(design(fails_on=lambda size: size == 4))

    for _ in range(5):
        with pytest.raises(BackendError, match="failed to run batch size 4: no kernel for batch 4"):
            backend.infer(batch(4))
    assert same(backend.infer(batch(5)), batch(5))
    backend.close()
    machine.cuda.assert_clean()


@pytest.mark.parametrize("call", ["copy_to_device", "record", "wait", "copy_to_host", "synchronize_event", "elapsed_s"])
def test_any_call_may_fail_once(machine: Machine, call: str) -> None:
    backend = machine.open()
    backend.infer(batch(2))
    backend.staging(3)[...] = batch(3)
    other = backend.start()  # a batch in flight beside it
    machine.cuda.fail_once(call)

    with pytest.raises(BackendError, match="cudaErrorUnknown"):
        backend.infer(batch(2))

    assert same(backend.finish(other)[0], batch(3))
    assert same(backend.infer(batch(2, seed=5)), batch(2, seed=5))
    backend.close()
    machine.cuda.assert_clean()


@pytest.mark.parametrize("number", [1, 4, 8, 12])
def test_sticky_error_is_a_lost_device_wherever_it_shows(machine: Machine, number: int) -> None:
    backend = machine.open()
    backend.infer(batch(2))
    machine.cuda.lose_at_call(number)

    def serve() -> None:
        for _ in range(3):
            backend.infer(batch(2))

    with pytest.raises(DeviceLost, match="cudaErrorIllegalAddress"):
        serve()


def test_kernel_that_breaks_the_device_is_noticed_at_finish(tmp_path: Path) -> None:
    cuda = SimulatedCuda(eagerness=0.0)
    backend = Machine(tmp_path, cuda, SimulatedTensorRt(cuda)).open()
    backend.infer(batch(2))
    cuda.poison_next_run()
    backend.staging(2)[...] = batch(2)
    started = backend.start()

    with pytest.raises(DeviceLost):
        backend.finish(started)


def test_run_that_tensorrt_refuses_on_a_lost_device_is_a_lost_device(tmp_path: Path) -> None:
    # given a device whose sticky error only waiting shows, while TensorRT says no more than "no"
    cuda = SimulatedCuda(eagerness=0.0)
    tensorrt = SimulatedTensorRt(cuda)
    made = design()
    backend = Machine(tmp_path, cuda, tensorrt).open(made, cuda_graphs=False)
    backend.infer(batch(2))
    backend.infer(batch(2))
    made.fails_on = lambda _size: True
    cuda.poison_next_run()
    backend.staging(2)[...] = batch(2)

    with pytest.raises(DeviceLost):
        backend.start()


def test_batch_size_that_was_not_loaded_is_refused(machine: Machine) -> None:
    backend = machine.open(allowed_batch_sizes=(1, 4))

    with pytest.raises(BackendError, match="batch size 2 is not among those loaded: 1, 4"):
        backend.staging(2)


def test_misuse_is_an_error_of_ours(machine: Machine) -> None:
    backend = machine.open()
    with pytest.raises(BackendError, match="nothing was staged"):
        backend.start()
    with pytest.raises(BackendError, match=r"images are \(3, 2, 3\), the model takes \(2, 2, 3\)"):
        backend.infer(np.zeros((1, 3, 2, 3), np.uint8))
    for _ in range(2):
        backend.staging(1)[...] = 0
        backend.start()
    with pytest.raises(BackendError, match="2 batches are in flight"):
        backend.staging(1)


def test_close_waits_for_what_is_in_flight(tmp_path: Path) -> None:
    cuda = SimulatedCuda(eagerness=0.0)
    backend = Machine(tmp_path, cuda, SimulatedTensorRt(cuda)).open()
    for _ in range(2):
        backend.staging(5)[...] = batch(5)
        backend.start()

    backend.close()

    cuda.assert_clean()


def test_request_without_sizes_takes_those_of_the_plan(machine: Machine) -> None:
    backend = machine.open(allowed_batch_sizes=())

    assert same(backend.infer(batch(5)), batch(5))


def test_digest_of_the_file_is_not_asked_for_while_exporting(machine: Machine) -> None:
    place = machine.put(design())
    request = replace(request_for_plan(REQUEST, place), sha256=None)

    backend = TensorRtBackend(request, tensorrt=machine.tensorrt, cuda=machine.cuda)

    assert same(backend.infer(batch(1)), batch(1))
