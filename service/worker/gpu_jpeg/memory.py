"""Device and pinned memory, one block each, that grows to the largest size asked for; its owner frees it."""

from __future__ import annotations

from saccade.service.backends.cuda.driver import CudaDriver, PinnedMemory


class GrowingMemory:
    """Device memory of at least the size last asked for; growing it loses its contents."""

    def __init__(self, driver: CudaDriver) -> None:
        self._driver = driver
        self._address = 0
        self._size_bytes = 0

    def of(self, size_bytes: int) -> int:
        """Returns the address of enough memory. Raises OutOfDeviceMemory, and then holds no memory."""
        if size_bytes > self._size_bytes:
            self.free()
            size_bytes = _generous(size_bytes)
            self._address = self._driver.allocate(size_bytes)
            self._size_bytes = size_bytes
        return self._address

    def free(self) -> None:
        if self._size_bytes:
            self._driver.free(self._address)
            self._size_bytes = 0


class PinnedStaging:
    """Page-locked host memory of at least the size last asked for; growing it loses its contents."""

    def __init__(self, driver: CudaDriver) -> None:
        self._driver = driver
        self._memory: PinnedMemory | None = None

    def of(self, size_bytes: int) -> PinnedMemory:
        if self._memory is None or size_bytes > self._memory.view.nbytes:
            self.free()
            self._memory = self._driver.allocate_pinned(_generous(size_bytes))
        return self._memory

    def free(self) -> None:
        if self._memory is not None:
            memory, self._memory = self._memory, None
            self._driver.free_pinned(memory)


def _generous(size_bytes: int) -> int:
    """Rounds up to a power of two, so that a slightly larger batch does not allocate again and stop the device."""
    return 1 << (size_bytes - 1).bit_length()
