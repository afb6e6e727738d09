"""Imported by every interpreter that has this directory on its path: test_worker_crash_on_gpu.py puts it there.

Promises: nothing of it ships. A batch whose first pixel is FAULT makes its process touch memory that is not its own on
the GPU, which is what a bad kernel does: the CUDA context is lost for good.
"""

from __future__ import annotations

from typing import Any

FAULT = (7, 7, 7)
# Writes to address 0. The driver compiles it, so no compiler is needed.
_PTX = b"""
.version 7.0
.target sm_75
.address_size 64
.visible .entry fault()
{
    .reg .b32 %value;
    .reg .b64 %address;
    mov.u32 %value, 1;
    mov.u64 %address, 0;
    st.global.u32 [%address], %value;
    ret;
}
\0"""


def is_fault(images: Any) -> bool:
    return any(tuple(int(value) for value in image[0, 0]) == FAULT for image in images)


def lose_the_device() -> None:
    """Side effect: every later CUDA call of this process fails with an illegal address."""
    from cuda.bindings import driver

    def done(result: Any) -> Any:
        if int(result[0]) != 0:
            raise RuntimeError(f"the fault itself failed: {result[0]}")
        return result[1] if len(result) > 1 else None

    done(driver.cuInit(0))
    if not int(done(driver.cuCtxGetCurrent())):
        done(driver.cuCtxSetCurrent(done(driver.cuDevicePrimaryCtxRetain(done(driver.cuDeviceGet(0))))))
    module = done(driver.cuModuleLoadData(_PTX))
    kernel = done(driver.cuModuleGetFunction(module, b"fault"))
    done(driver.cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0))
    driver.cuCtxSynchronize()  # its error is the point


def spoilt(backend: Any) -> Any:
    """The same backend, whose device is lost before it runs a batch with a FAULT."""
    if hasattr(backend, "staging"):
        given: list[Any] = []
        staging, start = backend.staging, backend.start

        def staging_watched(batch_size: int) -> Any:
            given[:] = [staging(batch_size)]
            return given[0]

        def start_spoilt() -> Any:
            if is_fault(given[0]):
                lose_the_device()
            return start()

        backend.staging, backend.start = staging_watched, start_spoilt
        return backend
    infer = backend.infer

    def infer_spoilt(images: Any) -> Any:
        if is_fault(images):
            lose_the_device()
        return infer(images)

    backend.infer = infer_spoilt
    return backend


def _install() -> None:
    try:
        from saccade.service.backends import registry
    except ImportError:  # an interpreter that has nothing to do with the server
        return
    load = registry.load_backend
    registry.load_backend = lambda name, request: spoilt(load(name, request))


_install()
