"""Plans that the TensorRT backend refuses by name, and memory: nothing is left behind by what cannot be opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.models.contract.plans import PLAN_FILE, PLAN_RECORD
from saccade.service.backends.tensorrt import module
from saccade.service.backends.tensorrt_backend import TensorRtBackend, device_index
from saccade.service.errors import BackendError, OutOfDeviceMemory, PlanRefused, RuntimeMissing
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_plans import SIZES, key_of, put_plan, request_for_plan
from tests.support.simulated_tensorrt import Diagnostics, EngineValidity, Tensor
from tests.unit.service.backends.tensorrt.machines import (
    REQUEST,
    Machine,
    batch,
    design,
    rtx,
    same,
)

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
    buffers = backend.buffers
    assert machine.cuda.pinned_bytes == 3 * (buffers.input_bytes + buffers.output_bytes)
    for size in SIZES * 2:
        backend.infer(batch(size))
    assert machine.cuda.used_bytes == backend.buffers.device_bytes
