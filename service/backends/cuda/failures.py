"""Translates CUDA error codes into saccade's errors, each with what was found and what to do."""

from __future__ import annotations

from saccade.service.backends.cuda.driver import CudaDriver, CudaVersions
from saccade.service.errors import BackendError, DeviceLost, OutOfDeviceMemory, RuntimeMissing, SaccadeError

# Errors of which the CUDA Runtime API (6.36 Data types used by CUDA Runtime, enum cudaError) says "To continue using
# CUDA, the process must be terminated and relaunched". A test compares this list with that text. The list also holds
# the two uncorrectable memory errors, because data on the device cannot be trusted after them.
STICKY = {
    "cudaErrorECCUncorrectable": 214,
    "cudaErrorNvlinkUncorrectable": 220,
    "cudaErrorContained": 226,
    "cudaErrorIllegalAddress": 700,
    "cudaErrorLaunchTimeout": 702,
    "cudaErrorAssert": 710,
    "cudaErrorHardwareStackError": 714,
    "cudaErrorIllegalInstruction": 715,
    "cudaErrorMisalignedAddress": 716,
    "cudaErrorInvalidAddressSpace": 717,
    "cudaErrorInvalidPc": 718,
    "cudaErrorLaunchFailure": 719,
    "cudaErrorTensorMemoryLeak": 721,
    "cudaErrorMpsClientTerminated": 810,
    "cudaErrorExternalDevice": 911,
}
_TOO_OLD = {"cudaErrorInsufficientDriver", "cudaErrorCallRequiresNewerDriver", "cudaErrorUnsupportedPtxVersion"}
_NOT_THERE = {
    "cudaErrorInitializationError",
    "cudaErrorStubLibrary",
    "cudaErrorNoDevice",
    "cudaErrorInvalidDevice",
    "cudaErrorStartupFailure",
    "cudaErrorSystemNotReady",
    "cudaErrorSystemDriverMismatch",
    "cudaErrorCompatNotSupportedOnDevice",
    "cudaErrorMpsConnectionFailed",
    "cudaErrorMpsServerNotReady",
}
OUT_OF_MEMORY = "cudaErrorMemoryAllocation"


def failure(call: str, name: str, text: str, versions: CudaVersions) -> SaccadeError:
    """The error to raise for CUDA's error `name`, which `call` returned."""
    said = f"{call}: {name}, {text}"
    if name in STICKY:
        return DeviceLost(f"{said}; this process cannot use the device any more and ends")
    if name == OUT_OF_MEMORY:
        return OutOfDeviceMemory(f"{said}; load fewer versions, or a smaller max_batch_size")
    if name in _TOO_OLD:
        return RuntimeMissing(
            f"the NVIDIA driver is {_driver(versions)}, this cuda-python needs one for CUDA "
            f"{version_text(versions.runtime)}: update the driver ({said})"
        )
    if name in _NOT_THERE:
        return RuntimeMissing(
            f"no usable GPU: {said}; the NVIDIA driver is {_driver(versions)}. Check `nvidia-smi`, and that this "
            "process may see the device (CUDA_VISIBLE_DEVICES, the container's GPU request)"
        )
    return BackendError(said)


def ensure_usable(cuda: CudaDriver, stream: int) -> None:
    """Asks the driver, after a failed run, whether this process can still use the device.

    Blocks until the stream is idle. Raises DeviceLost.
    """
    try:
        cuda.synchronize_stream(stream)
    except BackendError:
        # The next call may report the failed run's error once more; a usable device works after that.
        try:
            cuda.synchronize_stream(stream)
        except BackendError as error:
            raise DeviceLost(f"{error}; the device answers no call after a failed run") from error


def version_text(version: int) -> str:
    """A CUDA version for people: 13040 is 13.4."""
    return f"{version // 1000}.{version % 1000 // 10}"


def _driver(versions: CudaVersions) -> str:
    return f"for CUDA {version_text(versions.driver)}" if versions.driver else "missing"
