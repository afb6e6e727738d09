"""Fills a request's slot with pixels that are decoded here, or with a JPEG's bytes where the worker decodes JPEGs."""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import Geometry, geometry_of, preprocess_into, tile_into, unmoved
from saccade.service.api.cancellation import Cancellation
from saccade.service.api.catalog import ServingTarget
from saccade.service.api.decoding_apart import DecodingApart
from saccade.service.api.image_threads import ImageThreads
from saccade.service.api.slots import Permit
from saccade.service.ipc.tensor_slots import TensorPlace
from saccade.service.vision.decoding_cost import decoding_cost
from saccade.service.vision.image_decoder import ImageLimits, read_image, small_jpeg_header
from saccade.service.vision.jpeg_header import encoded_image
from saccade.service.vision.tiles import Tile, ensure_one_tile

# Reading the header and copying this many bytes takes a tenth of a millisecond; larger files are copied in a thread.
_INLINE_JPEG_BYTES = 256 * 1024
# Pages of a slot stay in memory once written, so a larger JPEG is put there only where pixels and answers need as much.
_SLOT_JPEG_BYTES = 1024 * 1024

# an encoded picture; (height, width, 3): the model's input itself; or a part of a decoded picture
Image = bytes | NDArray[np.uint8] | Tile


class Filled(msgspec.Struct, frozen=True):
    """What a slot holds, and how the image was fitted into the model's input."""

    geometry: Geometry
    damage: str = ""  # why some pixels may not be the picture's
    encoded_bytes: int = 0  # length of the JPEG in the slot; 0 means that the slot holds pixels


class SlotFilling:
    """Decodes and resizes for all requests of one API process; only the event loop of that process may call it."""

    def __init__(self, threads: ImageThreads, apart: DecodingApart, limits: ImageLimits, inline_pixels: int) -> None:
        """JPEGs of up to `inline_pixels` are decoded by the event loop itself, by turns; slow pictures `apart`."""
        self._threads = threads
        self._apart = apart
        self._limits = limits
        self._inline_pixels = inline_pixels

    async def fill(
        self, image: Image, permit: Permit, target: ServingTarget, decodes_jpegs: bool, cancellation: Cancellation
    ) -> Filled:
        """Fills the slot with the JPEG or with pixels. Raises BadImage, DeadlineExceeded or ClientLeft."""
        if decodes_jpegs and isinstance(image, bytes) and target.manifest.preprocess.fit != "tile":

            def work() -> Filled | None:
                return self._copied(image, permit, target)

            is_small = len(image) <= _INLINE_JPEG_BYTES
            copied = work() if is_small else await self._threads.run(permit, work, cancellation)
            if copied is not None:
                return copied
        return await self.decode(image, permit, target, cancellation)

    def _copied(self, image: bytes, permit: Permit, target: ServingTarget) -> Filled | None:
        """Copies the JPEG into the slot; None for an image that a device cannot decode.

        Raises BadImage when the header alone shows that the image must be refused.
        """
        encoded = encoded_image(image, self._limits.for_network(target.manifest.preprocess))
        room = min(max(_SLOT_JPEG_BYTES, target.layout.size_bytes), permit.arena.slot_bytes)
        if encoded is None or len(image) > room:
            return None
        place = TensorPlace(0, (len(image),), np.dtype(np.uint8))
        permit.arena.tensor(permit.slot, place)[:] = np.frombuffer(image, np.uint8)
        return Filled(geometry_of(*encoded.upright_size, target.manifest.preprocess), encoded_bytes=len(image))

    async def decode(self, image: Image, permit: Permit, target: ServingTarget, cancellation: Cancellation) -> Filled:
        """Decodes and resizes here, even where the worker could. Raises BadImage, DeadlineExceeded or ClientLeft."""
        pixels_out = permit.arena.views(permit.slot, target.layout).input
        if isinstance(image, Tile):
            tile_into(image.pixels, target.manifest.preprocess, image.place, pixels_out)
            return Filled(image.place)
        if not isinstance(image, bytes):
            pixels_out[...] = image
            return Filled(unmoved(target.manifest.preprocess))
        spec = target.manifest.preprocess
        header = small_jpeg_header(image, self._inline_pixels)
        limits = self._limits.for_network(spec)

        def work() -> Filled:
            read = read_image(image, limits, header)
            ensure_one_tile(read.pixels, spec)
            return Filled(preprocess_into(read.pixels, spec, pixels_out), read.damage)

        if header is not None:
            return await self._threads.run_short(work, cancellation)
        cost = decoding_cost(image, self._limits.max_pixels)

        def work_apart() -> Filled:
            return Filled(*self._apart.fit(image, limits, cost.memory_bytes, cancellation.until_s, spec, pixels_out))

        chosen = work_apart if cost.is_slow else work
        return await self._threads.run(permit, chosen, cancellation, cost.memory_bytes, cost.is_slow)
