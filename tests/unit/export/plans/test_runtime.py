"""Which TensorRT, which GPU, and what to build for. Promises: what cannot be built for is named with what can."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from saccade.export.errors import DeviceError, DeviceMissing, GraphError, RecipeError
from saccade.export.plans.runtime import (
    DEFAULT_CAPABILITIES,
    PresentGpu,
    builds_ahead,
    choose_capabilities,
    find_tensorrt,
    known_capabilities,
    present_gpu,
    required_tensorrt,
    target_capabilities,
)

H200 = PresentGpu("NVIDIA H200", "SM90")
L4 = PresentGpu("NVIDIA L4", "SM89")


def runtime(name: str, *capabilities: str) -> Any:
    """With capabilities it builds ahead of time, as TensorRT for RTX does."""
    module = ModuleType(name)
    config = type("IBuilderConfig", (), {"num_compute_capabilities": 0} if capabilities else {})
    members = {each: number for number, each in enumerate(capabilities)}
    vars(module).update(
        IBuilderConfig=config, ComputeCapability=SimpleNamespace(__members__=members, **members), __version__="10.16"
    )
    return module


TENSORRT = runtime("tensorrt")
RTX = runtime("tensorrt_rtx", "NONE", "CURRENT", "SM120", *DEFAULT_CAPABILITIES)


def test_gpu_present_is_built_for_unless_something_is_asked() -> None:
    assert target_capabilities(TENSORRT, (), H200) == ("SM90",)
    assert target_capabilities(TENSORRT, ("SM90",), H200) == ("SM90",)
    assert target_capabilities(RTX, (), L4) == ("SM89",)
    assert target_capabilities(RTX, ("SM120", "SM80", "SM120"), L4) == ("SM120", "SM80")


def test_without_a_gpu_the_common_ones_are_built_ahead_of_time() -> None:
    assert target_capabilities(RTX, (), None) == DEFAULT_CAPABILITIES


def test_tensorrt_needs_the_gpu_and_says_what_does_not() -> None:
    with pytest.raises(DeviceMissing, match=r"builds for the GPU at hand.*tensorrt_rtx builds ahead"):
        target_capabilities(TENSORRT, (), None)


def test_tensorrt_does_not_build_for_another_gpu() -> None:
    with pytest.raises(DeviceError, match=r"NVIDIA H200 \(SM90\), not for SM89"):
        target_capabilities(TENSORRT, ("SM89",), H200)


@pytest.mark.parametrize("name", ["H200", "sm90", "SM9", "SM90; rm", ""])
def test_what_is_no_capability_is_wrong_usage(name: str) -> None:
    with pytest.raises(RecipeError, match="is no compute capability; they are written as SM90"):
        target_capabilities(RTX, (name,), None)


def test_capability_that_the_runtime_does_not_know_is_refused_with_those_that_it_knows() -> None:
    with pytest.raises(RecipeError, match="does not build for 'SM90'; it knows SM80, SM86, SM89, SM120"):
        target_capabilities(RTX, (), H200)


def test_runtimes_differ_in_building_ahead() -> None:
    assert (builds_ahead(TENSORRT), builds_ahead(RTX)) == (False, True)
    assert known_capabilities(TENSORRT) == ()
    choose_capabilities(object(), TENSORRT, ("SM90",))  # touches nothing


def test_missing_tensorrt_says_what_to_install() -> None:
    with pytest.raises(GraphError, match="tensorrt_of_nobody is not installed: install the `rtx` extra"):
        required_tensorrt("tensorrt_of_nobody")


@pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")
def test_real_runtime_knows_the_common_capabilities() -> None:
    tensorrt = required_tensorrt("tensorrt_rtx")

    assert builds_ahead(tensorrt)
    assert set(DEFAULT_CAPABILITIES) <= set(known_capabilities(tensorrt))


class Driver:
    """What `cuda.bindings.driver` answers; a status first."""

    CUdevice_attribute = SimpleNamespace(
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR=9, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR=0
    )

    def __init__(self, status: int = 0) -> None:
        self.status = status

    def cuInit(self, flags: int) -> tuple[int, ...]:  # noqa: N802  the driver's name
        return (self.status,)

    def cuDeviceGet(self, ordinal: int) -> tuple[int, ...]:  # noqa: N802  the driver's name
        return (0, ordinal)

    def cuDeviceGetAttribute(self, attribute: int, device: int) -> tuple[int, ...]:  # noqa: N802  the driver's name
        return (0, attribute)

    def cuDeviceGetName(self, length: int, device: int) -> tuple[int, bytes]:  # noqa: N802  the driver's name
        return (0, b"NVIDIA H200\0\0\0")


class NoLibrary(Driver):
    def cuInit(self, flags: int) -> tuple[int, ...]:  # noqa: N802  the driver's name
        raise RuntimeError("Failure finding libcuda.so")


def answering(monkeypatch: pytest.MonkeyPatch, driver: object) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(driver=driver))


def test_gpu_is_asked_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, Driver())

    assert present_gpu() == H200


@pytest.mark.parametrize("driver", [Driver(status=100), NoLibrary()], ids=["no device", "no driver"])
def test_no_gpu_is_an_answer(monkeypatch: pytest.MonkeyPatch, driver: Driver) -> None:
    answering(monkeypatch, driver)

    assert present_gpu() is None


def test_no_cuda_python_means_no_gpu_to_build_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)

    assert present_gpu() is None
