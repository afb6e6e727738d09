"""Device and pinned memory that grows with what is asked of it. Promises: one block each, freed by its owner."""

from __future__ import annotations

from saccade.service.backends.cuda.driver import CudaDriver, PinnedMemory


class GrowingMemory:
    """Device memory of at least what was last asked for; its contents do not survive growth."""

    def __init__(self, driver: CudaDriver) -> None:
        self._driver = driver
        self._address = 0
        self._size_bytes = 0

    def of(self, size_bytes: int) -> int:
        """An address. Raises OutOfDeviceMemory; nothing is held then."""
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
    """The same for page-locked host memory."""

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
    """A power of two: a slightly larger batch does not allocate again, which would stop the device."""
    return 1 << (size_bytes - 1).bit_length()
