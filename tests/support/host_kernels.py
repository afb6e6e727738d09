"""Runs the GPU's resize kernels on the CPU: the same source text, compiled as C++, one call per thread."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.vision.resize_plan import THREADS_PER_BLOCK, DecodedImage, ResizePlan, plan_batch
from saccade.service.worker.gpu_jpeg.kernels import KERNELS, kernel_source

UInt8Array = NDArray[np.uint8]

COMPILER = shutil.which("g++") or shutil.which("c++")
NO_COMPILER = "no C++ compiler: the kernels' arithmetic is checked where there is one"

# What CUDA gives a kernel, and a loop in place of the device.
_BEFORE = """
struct Index { unsigned int x, y, z; };
static thread_local Index blockIdx, blockDim, threadIdx;
#define __global__
#define __device__
"""
_AFTER = """
typedef void (*Kernel)(const Job*, const int*, const float*);
static const Kernel kernels[] = {resize_rows, resize_columns};
extern "C" unsigned long long job_bytes() { return sizeof(Job); }
extern "C" void launch(int kernel, unsigned int blocks, unsigned int images, unsigned int threads, const Job* jobs,
                       const int* places, const float* weights) {
    blockDim.x = threads;
    for (blockIdx.y = 0; blockIdx.y < images; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < blocks; ++blockIdx.x)
            for (threadIdx.x = 0; threadIdx.x < threads; ++threadIdx.x) kernels[kernel](jobs, places, weights);
}
"""


@lru_cache(1)
def _library() -> ctypes.CDLL:
    assert COMPILER is not None
    folder = Path(mkdtemp(prefix="saccade-kernels-"))
    try:
        source, library = folder / "resize.cpp", folder / "resize.so"
        source.write_text(_BEFORE + kernel_source() + _AFTER, "utf-8")
        subprocess.run([COMPILER, "-O2", "-shared", "-fPIC", "-o", str(library), str(source)], check=True, timeout=60)
        loaded = ctypes.CDLL(str(library))
    finally:
        shutil.rmtree(folder)
    loaded.job_bytes.restype = ctypes.c_ulonglong
    return loaded


def job_bytes() -> int:
    """Size of `struct Job` as a C++ compiler lays it out."""
    return int(_library().job_bytes())


def run_on_host(plan: ResizePlan, outs: Sequence[UInt8Array]) -> None:
    """Both passes; `outs` are written as the device would."""
    lines = np.empty(plan.lines_bytes // 4, np.float32)
    plan.jobs["lines"] = [lines.ctypes.data + offset for offset in plan.lines_offsets]
    plan.jobs["out"] = [out.ctypes.data for out in outs]
    tables = [array.ctypes.data for array in (plan.jobs, plan.places, plan.weights)]
    for kernel, blocks in zip(KERNELS, (plan.row_blocks, plan.column_blocks), strict=True):
        launch(kernel, (blocks, len(plan.jobs)), tables)


def launch(kernel: str, grid: tuple[int, int], addresses: Sequence[int]) -> None:
    """As `KernelLauncher.launch`, on addresses of this process."""
    pointers = [ctypes.c_void_p(address) for address in addresses]
    _library().launch(KERNELS.index(kernel), *grid, THREADS_PER_BLOCK, *pointers)


def resized_on_host(pixels: UInt8Array, spec: PreprocessSpec, orientation: int = 1) -> UInt8Array:
    """One decoded image as the GPU path would give it to the network."""
    pixels = np.ascontiguousarray(pixels)
    height, width = pixels.shape[:2]
    image = DecodedImage(pixels.ctypes.data, width, height, width * 3, orientation)
    out = np.full((spec.height, spec.width, 3), 77, np.uint8)
    run_on_host(plan_batch([image], spec), [out])
    return out
