"""A device that is this machine's memory: DeviceJpegDecoder's own code runs on it, kernels included, without a GPU."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from saccade.service.backends.cuda.driver import PinnedMemory
from saccade.service.errors import OutOfDeviceMemory
from saccade.service.vision.resize_plan import DecodedImage
from tests.support.host_kernels import launch


class HostDriver:
    """The part of CudaDriver that decoding uses; every stream runs at once and in order."""

    def __init__(self, memory_bytes: int = 1 << 30) -> None:
        self._left_bytes = memory_bytes
        self._blocks: dict[int, NDArray[np.uint8]] = {}
        self.open_streams = 0

    @property
    def open_blocks(self) -> int:
        return len(self._blocks)

    def set_device(self, index: int) -> None:
        assert index == 0

    def create_stream(self) -> int:
        self.open_streams += 1
        return 7

    def destroy_stream(self, stream: int) -> None:
        self.open_streams -= 1

    def synchronize_stream(self, stream: int) -> None:
        assert stream == 7

    def allocate(self, size_bytes: int) -> int:
        if size_bytes > self._left_bytes:
            raise OutOfDeviceMemory(f"cudaMalloc: {size_bytes} bytes, {self._left_bytes} are left")
        block = np.full(size_bytes, 0xAA, np.uint8)
        self._left_bytes -= size_bytes
        self._blocks[block.ctypes.data] = block
        return int(block.ctypes.data)

    def free(self, address: int) -> None:
        self._left_bytes += self._blocks.pop(address).nbytes

    def allocate_pinned(self, size_bytes: int) -> PinnedMemory:
        block = np.full(size_bytes, 0xBB, np.uint8)
        self._blocks[block.ctypes.data] = block
        return PinnedMemory(int(block.ctypes.data), block)

    def free_pinned(self, memory: PinnedMemory) -> None:
        del self._blocks[memory.address]

    def copy_to_device(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        ctypes.memmove(target, source, size_bytes)

    def copy_to_host(self, target: int, source: int, size_bytes: int, stream: int) -> None:
        ctypes.memmove(target, source, size_bytes)


class HostLauncher:
    """The kernels as C++."""

    def launch(self, kernel: str, grid: tuple[int, int], addresses: Sequence[int], stream: int) -> None:
        launch(kernel, grid, addresses)

    def close(self) -> None:
        """Holds nothing."""


class HostCodec:
    """libjpeg-turbo in the place of nvImageCodec, with its manners: None for what it cannot decode, nothing turned."""

    def __init__(self) -> None:
        self._images: list[NDArray[np.uint8]] = []
        self.calls: list[int] = []  # images per call

    def decode(self, encoded: Sequence[bytes], stream: int = 0) -> list[DecodedImage | None]:
        self.calls.append(len(encoded))
        self._images = []
        return [self._decoded(data) for data in encoded]

    def _decoded(self, data: bytes) -> DecodedImage | None:
        try:
            pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
        except ValueError:
            return None
        self._images.append(pixels)
        height, width = pixels.shape[:2]
        return DecodedImage(pixels.ctypes.data, width, height, width * 3)

    def close(self) -> None:
        self._images = []
