"""Defines how a device worker decodes JPEGs, and implements it for a GPU; a bad image does not affect others.

The device worker uses only `GpuJpegDecoder`. The implementation here decodes with nvImageCodec and resizes with our own
kernels; `cpu_stand_in.py` does the same with the code of the CPU path, for the fake backend and for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.errors import BackendError
from saccade.service.vision.jpeg_header import EncodedImage
from saccade.service.vision.resize_plan import DecodedImage, plan_batch
from saccade.service.worker.gpu_jpeg.launcher import KernelLauncher
from saccade.service.worker.gpu_jpeg.memory import GrowingMemory, PinnedStaging

UInt8Array = NDArray[np.uint8]

log = structlog.get_logger()

# Device memory for one group of images, decoded and half resized: several of 16 megapixels, or a hundred usual ones.
GROUP_BYTES = 192 << 20


class GpuJpegDecoder(Protocol):
    """Decodes images, turns them upright and resizes them. Only one thread at a time may call it."""

    @property
    def name(self) -> str:
        """Name of the decoder, for logs and metrics."""

    def decode_into(
        self, images: Sequence[EncodedImage], spec: PreprocessSpec, rows: Sequence[UInt8Array]
    ) -> list[bool]:
        """Writes image i into rows[i] (spec.height, spec.width, 3); False where it failed, and the row is undefined.

        Raises DeviceLost when this process can no longer use the device.
        """

    def close(self) -> None: ...


class Codec(Protocol):
    """Decodes into memory that the kernels can read."""

    def decode(self, encoded: Sequence[bytes], stream: int = 0) -> list[DecodedImage | None]: ...

    def close(self) -> None: ...


class DeviceJpegDecoder:
    """Decodes with nvImageCodec and resizes with our kernels, on one stream of one device."""

    def __init__(
        self, name: str, codec: Codec, driver: CudaDriver, device_index: int, launcher: KernelLauncher
    ) -> None:
        driver.set_device(device_index)
        self._name = name
        self._codec = codec
        self._driver = driver
        self._device_index = device_index
        self._launcher = launcher
        self._stream = driver.create_stream()
        self._lines = GrowingMemory(driver)
        self._outs = GrowingMemory(driver)
        self._tables = GrowingMemory(driver)
        self._upload = PinnedStaging(driver)
        self._download = PinnedStaging(driver)

    @property
    def name(self) -> str:
        return self._name

    def decode_into(
        self, images: Sequence[EncodedImage], spec: PreprocessSpec, rows: Sequence[UInt8Array]
    ) -> list[bool]:
        self._driver.set_device(self._device_index)  # the loader's thread measures, the device's thread serves
        done = [False] * len(images)
        for group in groups([device_bytes(image, spec) for image in images], GROUP_BYTES):
            here = [images[index] for index in group]
            for index, is_done in zip(
                group, self._decode_group(here, spec, [rows[index] for index in group]), strict=True
            ):
                done[index] = is_done
        return done

    def _decode_group(
        self, images: Sequence[EncodedImage], spec: PreprocessSpec, rows: Sequence[UInt8Array]
    ) -> list[bool]:
        try:
            found = self._codec.decode([image.data for image in images], self._stream)
            decoded = [_as_announced(pixels, image) for pixels, image in zip(found, images, strict=True)]
            there = [(pixels, row) for pixels, row in zip(decoded, rows, strict=True) if pixels is not None]
            if there:
                self._resize([pixels for pixels, _ in there], spec, [row for _, row in there])
            else:
                # The library reports a lost device as undecodable images; this call tells the two apart.
                self._driver.synchronize_stream(self._stream)
        except BackendError as error:  # too little memory among them: the image threads need none of the device's
            log.warning("jpeg_decoding_failed", images=len(images), error=str(error))
            return [False] * len(images)
        return [pixels is not None for pixels in decoded]

    def _resize(self, images: Sequence[DecodedImage], spec: PreprocessSpec, rows: Sequence[UInt8Array]) -> None:
        plan = plan_batch(images, spec)
        image_bytes = spec.width * spec.height * 3
        lines = self._lines.of(plan.lines_bytes)
        outs = self._outs.of(image_bytes * len(images))
        plan.jobs["lines"] = [lines + offset for offset in plan.lines_offsets]
        plan.jobs["out"] = [outs + image_bytes * index for index in range(len(images))]
        addresses = self._sent([plan.jobs.view(np.uint8), plan.places.view(np.uint8), plan.weights.view(np.uint8)])
        self._launcher.launch("resize_rows", (plan.row_blocks, len(images)), addresses, self._stream)
        self._launcher.launch("resize_columns", (plan.column_blocks, len(images)), addresses, self._stream)
        pixels = self._download.of(image_bytes * len(images))
        self._driver.copy_to_host(pixels.address, outs, image_bytes * len(images), self._stream)
        self._driver.synchronize_stream(self._stream)
        written = pixels.view[: image_bytes * len(images)].reshape(len(images), spec.height, spec.width, 3)
        for row, image in zip(rows, written, strict=True):
            row[...] = image

    def _sent(self, arrays: Sequence[UInt8Array]) -> list[int]:
        """Copies `arrays` to the device in one transfer, and returns the addresses of the copies."""
        offsets, size = [], 0
        for array in arrays:
            offsets.append(size)
            size += -(-array.nbytes // 16) * 16  # aligned for any of their fields
        staging = self._upload.of(size)
        for offset, array in zip(offsets, arrays, strict=True):
            staging.view[offset : offset + array.nbytes] = array.ravel()
        target = self._tables.of(size)
        self._driver.copy_to_device(target, staging.address, size, self._stream)
        return [target + offset for offset in offsets]

    def close(self) -> None:
        self._driver.set_device(self._device_index)
        self._driver.synchronize_stream(self._stream)
        self._codec.close()
        for device_memory in (self._lines, self._outs, self._tables):
            device_memory.free()
        self._upload.free()
        self._download.free()
        self._launcher.close()
        self._driver.destroy_stream(self._stream)


def _as_announced(found: DecodedImage | None, image: EncodedImage) -> DecodedImage | None:
    """Returns None for an image whose size is not the header's, because the answer is placed by the header's size."""
    if found is None or (found.width, found.height) != (image.width, image.height):
        return None
    return replace(found, orientation=image.orientation)


def device_bytes(image: EncodedImage, spec: PreprocessSpec) -> int:
    """Returns an upper bound on an image's device memory: its pixels, and the floats between the two passes."""
    _, height = image.upright_size
    return 3 * image.width * image.height + 12 * height * spec.width


def groups(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Splits images into groups that fit into device memory; an image that is too large alone is in no group."""
    found: list[list[int]] = [[]]
    total = 0
    for index, size in enumerate(sizes):
        if size > limit:
            continue
        if total + size > limit:
            found.append([])
            total = 0
        found[-1].append(index)
        total += size
    return [group for group in found if group]
