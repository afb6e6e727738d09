"""The doctor's look at GPUs: what is there, what is missing, and which command brings it."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import cast

import pytest

from saccade.service.backends.cuda.driver import CudaVersions
from saccade.service.backends.cuda.failures import failure
from saccade.service.backends.tensorrt.module import TensorRt
from saccade.service.cli import doctor, doctor_gpu
from saccade.service.cli.doctor_gpu import gpu_finding, gpu_findings, tensorrt_finding, tensorrt_refusals
from saccade.service.errors import RuntimeMissing
from saccade.service.settings import Settings
from tests.support.simulated_cuda import SimulatedCuda

TENSORRT = cast("TensorRt", SimpleNamespace(__name__="tensorrt", __version__="10.16.1"))


class NoDriver(SimulatedCuda):
    def device_count(self) -> int:
        raise failure("cudaGetDeviceCount", "cudaErrorInsufficientDriver", "insufficient", CudaVersions(0, 13040))


def test_gpu_is_named_with_its_memory_and_driver() -> None:
    finding = gpu_finding(SimulatedCuda(name="NVIDIA H200"), ("cuda:0",))

    assert finding.is_ok is True
    assert finding.detail == "cuda:0 NVIDIA H200 (SM90, 1024 MiB); driver for CUDA 13.2, runtime 13.4"


def test_gpu_that_nobody_uses_is_pointed_out() -> None:
    assert "unused: SACCADE_DEVICE=cuda:0" in gpu_finding(SimulatedCuda(), ("cpu",)).detail


def test_device_that_is_not_there_fails_by_name() -> None:
    finding = gpu_finding(SimulatedCuda(), ("cuda:0", "cuda:3"))

    assert finding.is_ok is False
    assert finding.detail.startswith("SACCADE_DEVICE names cuda:3; there are: cuda:0 Simulated H200")


@pytest.mark.parametrize(("devices", "is_ok"), [(("cuda:0",), False), (("cpu",), None)])
def test_missing_driver_fails_only_where_a_gpu_is_to_serve(devices: tuple[str, ...], is_ok: bool | None) -> None:
    finding = gpu_finding(NoDriver(), devices)

    assert finding.is_ok is is_ok
    assert "the NVIDIA driver is missing" in finding.detail


@pytest.mark.parametrize(
    ("wants_gpu", "is_needed", "is_ok", "says"),
    [
        (False, False, None, "pip install"),
        (True, False, None, "until then ONNX Runtime serves"),
        (True, True, False, "pip install"),
    ],
)
def test_missing_tensorrt_names_the_command(wants_gpu: bool, is_needed: bool, is_ok: bool | None, says: str) -> None:
    finding = tensorrt_finding(None, wants_gpu=wants_gpu, is_needed=is_needed)

    assert finding.is_ok is is_ok
    assert says in finding.detail


def test_tensorrt_is_named_with_its_version() -> None:
    finding = tensorrt_finding(TENSORRT, wants_gpu=True, is_needed=True)

    assert (finding.is_ok, finding.detail.split(";")[0]) == (True, "tensorrt 10.16.1")


def test_missing_cuda_python_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise RuntimeMissing("cuda-python is not installed")

    monkeypatch.setattr(doctor_gpu, "RuntimeDriver", absent)
    monkeypatch.setattr(doctor_gpu, "find_tensorrt", lambda: None)

    gpu, tensorrt = gpu_findings(Settings(device="cuda:0", backend="tensorrt"))

    assert (gpu.is_ok, gpu.detail) == (False, "cuda-python is not installed")
    assert tensorrt.is_ok is False


def test_two_onnxruntimes_that_overwrite_each_other_are_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "1.31.1")

    finding = doctor._onnxruntime(Settings())

    assert finding.is_ok is False
    assert "pip uninstall onnxruntime onnxruntime-gpu, then pip install 'saccade-serving[gpu]'" in finding.detail


def test_missing_onnxruntime_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as where it is not installed

    finding = doctor._onnxruntime(Settings())

    assert finding.is_ok is False
    assert "pip install 'saccade-serving[cpu]'" in finding.detail


def test_tensorrt_that_does_not_know_the_gpu_says_so() -> None:
    cuda = SimulatedCuda(capability="SM90")
    members = {"SM80": 0, "SM120": 1, "CURRENT": 2}
    known = SimpleNamespace(__members__=members)
    rtx = cast("TensorRt", SimpleNamespace(__name__="tensorrt_rtx", __version__="1.7", ComputeCapability=known))

    refusals = tensorrt_refusals(cuda, rtx)
    finding = tensorrt_finding(rtx, refusals, wants_gpu=True, is_needed=False)

    assert refusals == ("tensorrt_rtx 1.7 does not support SM90; it knows SM80, SM120",)
    assert finding.is_ok is None
    assert "ONNX Runtime serves there" in finding.detail
    assert tensorrt_finding(rtx, refusals, wants_gpu=True, is_needed=True).is_ok is False
    assert tensorrt_refusals(SimulatedCuda(capability="SM80"), rtx) == ()
