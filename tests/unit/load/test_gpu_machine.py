"""What a machine lacks is told by name, whichever way a piece fails to import."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.gpu_machine import (
    GPU,
    ONNXRUNTIME_CUDA,
    SERVER,
    TENSORRT,
    TENSORRT_RTX,
    TORCH_CUDA,
    first_gpu,
    gpu_machine,
    imported,
)

Import = Callable[[str], ModuleType]


class Enumeration(int):
    """As cuda-python's results: numbers with names."""

    name = "CUDA_ERROR_INSUFFICIENT_DRIVER"


def driver(**answers: Any) -> SimpleNamespace:
    """cuda-python's driver on a machine with an H200, unless answers say otherwise."""
    attributes = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR="major", CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR="minor"
    )
    good: dict[str, Any] = {
        "cuInit": lambda flags: (0,),
        "cuDriverGetVersion": lambda: (0, 13010),
        "cuDeviceGetCount": lambda: (0, 1),
        "cuDeviceGet": lambda index: (0, index),
        "cuDeviceGetAttribute": lambda kind, device: (0, {"major": 9, "minor": 0}[kind]),
        "cuDeviceGetName": lambda length, device: (0, b"NVIDIA H200\0\0"),
        "cuDeviceTotalMem": lambda device: (0, 141 << 30),
        "CUdevice_attribute": attributes,
    }
    return SimpleNamespace(**(good | answers))


def torch_with(is_available: bool) -> SimpleNamespace:
    cuda = SimpleNamespace(is_available=lambda: is_available)
    return SimpleNamespace(__version__="2.11", version=SimpleNamespace(cuda="13.0"), cuda=cuda)


def onnxruntime_with(*providers: str) -> SimpleNamespace:
    return SimpleNamespace(__version__="1.31", get_available_providers=lambda: list(providers))


def machine_of(modules: dict[str, Any]) -> Import:
    """Imports these; an exception among them is what importing raises, anything else is not installed."""

    def load(name: str) -> Any:
        found = modules.get(name)
        if isinstance(found, BaseException):
            raise found
        if found is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found

    return load


WHOLE: dict[str, Any] = {
    "cuda.bindings.driver": driver(),
    "torch": torch_with(is_available=True),
    "tensorrt": SimpleNamespace(__version__="10.16.1"),
    "onnxruntime": onnxruntime_with("CUDAExecutionProvider", "CPUExecutionProvider"),
}


def test_gpu_is_described_by_its_driver() -> None:
    machine = gpu_machine(machine_of(WHOLE))

    assert (machine.gpu_name, machine.capability) == ("NVIDIA H200", "SM90")
    assert machine.has(GPU, TENSORRT, ONNXRUNTIME_CUDA, TORCH_CUDA)
    assert machine.tensorrts == (TENSORRT,)
    assert machine.versions()[TENSORRT] == "10.16.1"
    assert machine.versions()[GPU] == "driver for CUDA 13.1"


@pytest.mark.parametrize(
    ("change", "component", "words"),
    [
        ({"tensorrt": None}, TENSORRT, "the module tensorrt is not installed"),
        (
            {"tensorrt": OSError("libnvinfer.so.10: cannot open")},
            TENSORRT,
            "does not import: OSError: libnvinfer.so.10",
        ),
        ({"tensorrt": RuntimeError("")}, TENSORRT, "does not import: RuntimeError"),
        ({"onnxruntime": onnxruntime_with("CPUExecutionProvider")}, ONNXRUNTIME_CUDA, "install onnxruntime-gpu"),
        ({"onnxruntime": ImportError("libcudart")}, ONNXRUNTIME_CUDA, "ImportError: libcudart"),
        ({"torch": torch_with(is_available=False)}, TORCH_CUDA, "sees no GPU"),
        ({"cuda.bindings.driver": None}, GPU, "is not installed"),
        ({"cuda.bindings.driver": driver(cuInit=lambda flags: (Enumeration(35),))}, GPU, "INSUFFICIENT_DRIVER"),
        ({"cuda.bindings.driver": driver(cuDeviceGetCount=lambda: (0, 0))}, GPU, "sees no GPU"),
        ({}, SERVER, "the module fastapi is not installed"),
    ],
)
def test_what_is_missing_is_named_with_its_reason(change: dict[str, Any], component: str, words: str) -> None:
    machine = gpu_machine(machine_of(WHOLE | change))

    assert words in machine.missing((component,))
    assert component in machine.missing((component,))
    assert component in machine.absent()


def test_driver_that_raises_instead_of_answering_is_a_missing_driver() -> None:
    def init(flags: int) -> tuple[int]:
        raise RuntimeError("libcuda.so.1 is not there\nmore lines")

    found = first_gpu(machine_of({"cuda.bindings.driver": driver(cuInit=init)}))

    assert found.component.missing == "no usable NVIDIA driver (RuntimeError: libcuda.so.1 is not there)"


def test_everything_that_lacks_is_told_at_once() -> None:
    text = gpu_machine(machine_of({})).missing((GPU, TENSORRT, TENSORRT_RTX))

    assert [part.partition(":")[0] for part in text.split("; ")] == [GPU, TENSORRT, TENSORRT_RTX]


def test_module_that_lacks_another_names_that_one() -> None:
    missing = ModuleNotFoundError("No module named 'cuda'", name="cuda")

    assert imported("tensorrt", machine_of({"tensorrt": missing})) == (None, "the module cuda is not installed")
