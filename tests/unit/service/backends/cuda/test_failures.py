"""CUDA's error codes: each becomes the error of ours that says what to do."""

from __future__ import annotations

import importlib

import pytest

from saccade.service.backends.cuda.driver import CudaVersions
from saccade.service.backends.cuda.failures import STICKY, ensure_usable, failure, version_text
from saccade.service.backends.cuda.runtime_driver import RuntimeDriver
from saccade.service.errors import BackendError, DeviceLost, OutOfDeviceMemory, RuntimeMissing
from tests.support.simulated_cuda import SimulatedCuda

VERSIONS = CudaVersions(12040, 13040)
runtime = pytest.importorskip("cuda.bindings.runtime")


def test_sticky_errors_are_those_of_which_cuda_says_that_the_process_must_end() -> None:
    said = {
        error.name: int(error)
        for error in runtime.cudaError_t
        if "process must be terminated" in " ".join((error.__doc__ or "").split())
    }

    assert len(said) >= 12
    assert said.items() <= STICKY.items()
    assert set(STICKY) - set(said) == {"cudaErrorECCUncorrectable", "cudaErrorNvlinkUncorrectable"}


def test_names_are_cudas_own() -> None:
    for name, code in STICKY.items():
        assert int(getattr(runtime.cudaError_t, name)) == code


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("cudaErrorIllegalAddress", DeviceLost, "this process cannot use the device any more"),
        ("cudaErrorMemoryAllocation", OutOfDeviceMemory, "load fewer versions"),
        ("cudaErrorInsufficientDriver", RuntimeMissing, r"is for CUDA 12\.4, .* needs one for CUDA 13\.4: update"),
        ("cudaErrorNoDevice", RuntimeMissing, "no usable GPU: .*CUDA_VISIBLE_DEVICES"),
        ("cudaErrorInvalidValue", BackendError, "^cudaMalloc: cudaErrorInvalidValue, text$"),
    ],
)
def test_each_error_says_what_to_do(name: str, kind: type[Exception], says: str) -> None:
    error = failure("cudaMalloc", name, "text", VERSIONS)

    assert type(error) is kind
    with pytest.raises(kind, match=says):
        raise error


def test_missing_driver_is_called_missing() -> None:
    assert "driver is missing" in str(failure("cudaMalloc", "cudaErrorInsufficientDriver", "", CudaVersions(0, 13040)))


def test_versions_are_written_as_people_do() -> None:
    assert [version_text(version) for version in (13040, 12080, 11000)] == ["13.4", "12.8", "11.0"]


def test_real_driver_says_what_is_missing_where_there_is_none() -> None:
    driver = RuntimeDriver()
    if driver.versions().driver:
        pytest.skip("this machine has a driver")

    assert driver.versions().runtime >= 13000
    for call in (driver.device_count, driver.memory, driver.create_stream, lambda: driver.allocate(1)):
        with pytest.raises(RuntimeMissing, match="the NVIDIA driver is missing"):
            call()


def test_absent_cuda_python_is_a_missing_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(importlib, "import_module", absent)

    with pytest.raises(RuntimeMissing, match=r"cuda-python is not installed .*saccade-serving\[gpu\]"):
        RuntimeDriver()


def device_with_a_stream() -> tuple[SimulatedCuda, int]:
    cuda = SimulatedCuda()
    cuda.set_device(0)
    return cuda, cuda.create_stream()


def test_error_that_a_failed_run_left_behind_is_no_lost_device() -> None:
    cuda, stream = device_with_a_stream()
    cuda.fail_once("synchronize_stream", "cudaErrorLaunchOutOfResources")

    ensure_usable(cuda, stream)


def test_sticky_error_is_a_lost_device() -> None:
    cuda, stream = device_with_a_stream()
    cuda.lose_at_call(1)

    with pytest.raises(DeviceLost, match="cudaErrorIllegalAddress"):
        ensure_usable(cuda, stream)


def test_device_that_fails_every_call_is_lost_whatever_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, stream = device_with_a_stream()

    def fails(_stream: int) -> None:
        raise failure("cudaStreamSynchronize", "cudaErrorUnknown", "unknown error", VERSIONS)

    monkeypatch.setattr(cuda, "synchronize_stream", fails)

    with pytest.raises(DeviceLost, match=r"cudaErrorUnknown.*answers no call after a failed run"):
        ensure_usable(cuda, stream)
