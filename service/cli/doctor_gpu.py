"""The doctor's GPU checks: they never raise, and name what is missing with the command that installs it.

A missing part is a failure only where a GPU is to serve; on a CPU it is information.
"""

from __future__ import annotations

from collections.abc import Sequence

from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.backends.cuda.failures import version_text
from saccade.service.backends.cuda.runtime_driver import RuntimeDriver
from saccade.service.backends.tensorrt.module import TensorRt, find_tensorrt, why_not_on
from saccade.service.cli.findings import Finding
from saccade.service.device_names import is_cpu
from saccade.service.errors import SaccadeError
from saccade.service.settings import Settings

_MIB = 1024 * 1024


def gpu_findings(settings: Settings) -> list[Finding]:
    """Findings on the GPUs, their driver, and TensorRT."""
    wants_gpu = any(not is_cpu(device) for device in settings.devices)
    tensorrt = find_tensorrt()
    refusals: tuple[str, ...] = ()
    try:
        cuda = RuntimeDriver()
        gpu = gpu_finding(cuda, settings.devices)
        refusals = tensorrt_refusals(cuda, tensorrt)
    except SaccadeError as error:  # cuda-python is not installed
        gpu = Finding("gpu", False if wants_gpu else None, str(error))
    wants_tensorrt = wants_gpu and settings.backend == "tensorrt"
    return [gpu, tensorrt_finding(tensorrt, refusals, wants_gpu=wants_gpu, is_needed=wants_tensorrt)]


def tensorrt_refusals(cuda: CudaDriver, tensorrt: TensorRt | None) -> tuple[str, ...]:
    """Why this TensorRT cannot use the GPUs that the driver shows, one line per kind; empty where it can."""
    if tensorrt is None:
        return ()
    try:
        capabilities = {cuda.properties(index).capability for index in range(cuda.device_count())}
    except SaccadeError:  # `gpu_finding` says what is wrong
        return ()
    return tuple(filter(None, (why_not_on(tensorrt, capability) for capability in sorted(capabilities))))


def gpu_finding(cuda: CudaDriver, devices: Sequence[str]) -> Finding:
    """Compares the GPUs that the driver shows with the devices that are to serve."""
    wanted = [device for device in devices if not is_cpu(device)]
    try:
        versions, count = cuda.versions(), cuda.device_count()
        found = [cuda.properties(index) for index in range(count)]
    except SaccadeError as error:
        return Finding("gpu", False if wanted else None, str(error))
    listed = ", ".join(
        f"cuda:{index} {each.name} ({each.capability}, {each.memory_total_bytes // _MIB} MiB)"
        for index, each in enumerate(found)
    )
    driver = f"driver for CUDA {version_text(versions.driver)}, runtime {version_text(versions.runtime)}"
    absent = [device for device in wanted if device.startswith("cuda:") and int(device[5:]) >= count]
    if absent:
        return Finding(
            "gpu", False, f"SACCADE_DEVICE names {', '.join(absent)}; there are: {listed or 'none'}; {driver}"
        )
    hint = "" if wanted or not found else "; unused: SACCADE_DEVICE=cuda:0 serves on it"
    return Finding("gpu", True if found else None, f"{listed or 'none'}; {driver}{hint}")


def tensorrt_finding(
    tensorrt: TensorRt | None, refusals: Sequence[str] = (), *, wants_gpu: bool, is_needed: bool
) -> Finding:
    """Whether TensorRT is installed. It is optional on a GPU, where ONNX Runtime serves without it, and unused on a
    CPU.
    """
    if refusals:
        instead = "" if is_needed else "; ONNX Runtime serves there"
        return Finding("tensorrt", False if is_needed else None, f"{'; '.join(refusals)}{instead}")
    if tensorrt is not None:
        hint = "; plans: saccade-export build MODEL/VERSION, saccade repository engines" if wants_gpu else ""
        return Finding("tensorrt", True, f"{tensorrt.__name__} {tensorrt.__version__}{hint}")
    missing = "not installed: pip install 'saccade-serving[tensorrt]' (or 'saccade-serving[rtx]')"
    if wants_gpu and not is_needed:
        missing += "; until then ONNX Runtime serves on the GPU"
    return Finding("tensorrt", False if is_needed else None, missing)
