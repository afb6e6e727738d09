"""Compiles the resize kernels with NVRTC alone, so neither a CUDA toolkit nor a driver is needed."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from saccade.service.errors import RuntimeMissing

KERNELS = ("resize_rows", "resize_columns")


def kernel_source() -> str:
    """Returns the CUDA C++ source of both passes."""
    return Path(__file__).with_name("resize.cu").read_text("utf-8")


@lru_cache(8)
def compiled(compute_capability: str) -> bytes:
    """Compiles for a GPU such as "SM90". Raises RuntimeMissing where NVRTC is missing or does not know the GPU."""
    try:
        from cuda.bindings import nvrtc  # only machines with a GPU need it
    except ImportError as error:
        raise RuntimeMissing("cuda-bindings is not installed: pip install 'saccade-serving[gpu-jpeg]'") from error
    try:
        status, program = nvrtc.nvrtcCreateProgram(kernel_source().encode(), b"resize.cu", 0, [], [])
    except (OSError, RuntimeError) as error:  # the bindings load their library at the first call
        raise RuntimeMissing(f"NVRTC cannot be loaded: {error}; pip install 'saccade-serving[gpu-jpeg]'") from error
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeMissing(f"NVRTC refused the resize kernels: {status.name}")
    options = [f"--gpu-architecture={compute_capability.lower().replace('sm', 'sm_')}".encode(), b"--std=c++17"]
    try:
        (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
        if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            _, length = nvrtc.nvrtcGetProgramLogSize(program)
            report = bytearray(length)
            nvrtc.nvrtcGetProgramLog(program, report)
            reason = report.rstrip(b"\0").decode(errors="replace").strip() or status.name
            raise RuntimeMissing(f"the resize kernels do not compile for {compute_capability}: {reason}")
        _, length = nvrtc.nvrtcGetCUBINSize(program)
        code = bytearray(length)
        nvrtc.nvrtcGetCUBIN(program, code)
        return bytes(code)
    finally:
        nvrtc.nvrtcDestroyProgram(program)
