"""Answers pictures of any size by a network of tiles: each tile is an image of the batch path like any other.

The picture and its answer lie in this process until the answer is written. Room for both is taken before the picture is
decoded; one that finds none waits for its turn, and one that is larger than all the room is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import TaskSpec
from saccade.service.api.cancellation import Cancellation, ClientWatch
from saccade.service.api.catalog import ServingTarget
from saccade.service.api.decode_room import DecodeRoom
from saccade.service.api.decoding_apart import DecodingApart
from saccade.service.api.image_threads import ImageThreads, decode_room_bytes
from saccade.service.api.predictor import ImageAnswer, Predictor, Render
from saccade.service.api.priority import Priority
from saccade.service.api.shadows import Asked
from saccade.service.api.slot_filling import Image
from saccade.service.core import StageTimes
from saccade.service.errors import PictureTooLarge, SaccadeError, without_frames
from saccade.service.vision.answers import ensure_usable
from saccade.service.vision.decoding_cost import decoding_cost, most_pixels_of
from saccade.service.vision.image_decoder import ImageLimits, ReadImage, read_image
from saccade.service.vision.parameters import Parameters
from saccade.service.vision.tiles import Mosaic, TileGrid, ensure_few_tiles, tile_grid, tiles_of

_NUMBER_BYTES = 4  # of the answer's float32
_COLOURS = 3


@dataclass(frozen=True, slots=True)
class TileLimits:
    pictures: ImageLimits
    max_tiles: int
    threads: int


class _NothingHeld:
    def hold(self) -> None:
        pass

    def release(self) -> None:
        pass


class _Request(msgspec.Struct, frozen=True):
    """What all pictures of one request have in common."""

    target: ServingTarget
    parameters: Parameters
    deadline_s: float
    client: ClientWatch
    priority: Priority
    render: Render
    shadow: Asked | None


class TiledPredictor:
    """`Predictor` for networks of tiles; only the event loop of its process may call it."""

    def __init__(self, predictor: Predictor, threads: ImageThreads, apart: DecodingApart, limits: TileLimits) -> None:
        self._predictor = predictor
        self._apart = apart
        self._threads = threads
        self._limits = limits
        self._most_bytes = decode_room_bytes(limits.threads)
        self._room = DecodeRoom(self._most_bytes)

    async def predict(
        self,
        images: Sequence[Image | SaccadeError],
        target: ServingTarget,
        parameters: Parameters,
        deadline_s: float,
        client: ClientWatch,
        priority: Priority,
        render: Render,
        shadow: Asked | None = None,
    ) -> list[ImageAnswer]:
        """One answer per picture, in order; pictures come one after the other, each with all its tiles at once."""
        request = _Request(target, parameters, deadline_s, client, priority, render, shadow)
        answers = [await self._answer(image, request) for image in images]
        answered = next((answer for answer in answers if answer.error is None), None)
        if answered is None:
            return answers
        level = answered.ladder_level
        return [msgspec.structs.replace(each, variant=answered.variant, ladder_level=level) for each in answers]

    async def _answer(self, image: Image | SaccadeError, request: _Request) -> ImageAnswer:
        try:
            if isinstance(image, SaccadeError):
                raise image
            assert isinstance(image, bytes)  # tensors are the network's input already, and go to the predictor
            with Cancellation(request.deadline_s, request.client) as cancellation:
                return await self._picture(image, request, cancellation)
        except SaccadeError as error:
            return ImageAnswer(None, without_frames(error), StageTimes(0.0, 0.0, 0.0, 0.0), "")

    async def _picture(self, image: bytes, request: _Request, cancellation: Cancellation) -> ImageAnswer:
        start_s = time.perf_counter()
        manifest = request.target.manifest
        limits = self._limits.pictures.for_network(manifest.preprocess)
        held = _NothingHeld()
        expected = _bytes_of(most_pixels_of(image, limits.max_pixels), manifest.task)
        room = await self._room.enter(min(expected, self._most_bytes), cancellation)
        try:
            cost = decoding_cost(image, limits.max_pixels)
            if cost.is_slow:
                reading = partial(self._apart.read, image, limits, cost.memory_bytes, cancellation.until_s)
            else:
                reading = partial(read_image, image, limits)
            read = await self._threads.run(held, reading, cancellation, cost.memory_bytes, cost.is_slow)
            height, width = read.pixels.shape[:2]
            grid = tile_grid(width, height, manifest.preprocess)
            self._ensure_fits(width, height, grid, manifest.task)
            decoded_s = time.perf_counter()
            mosaic = Mosaic(width, height, grid, manifest.task.scale)
            tiles = await self._predictor.predict(
                list(tiles_of(read.pixels, grid)),
                request.target,
                request.parameters,
                request.deadline_s,
                request.client,
                request.priority,
                _Adding(mosaic),
                request.shadow,
                leaves_room=True,
            )
            for tile in tiles:
                if tile.error is not None:
                    raise tile.error
            joined_s = time.perf_counter()
            place = Geometry(width, height, 0, 0, width, height)

            def work() -> Any:
                return request.render([mosaic.joined()], place, manifest, request.parameters)

            written = await self._threads.run(held, work, cancellation)
        finally:
            self._room.leave(room)
        return _joined(tiles, written, read, decoded_s - start_s, time.perf_counter() - joined_s)

    def _ensure_fits(self, width: int, height: int, grid: TileGrid, spec: TaskSpec) -> None:
        """Raises PictureTooLarge."""
        ensure_few_tiles(width, height, grid, spec.scale, self._limits.max_tiles, self._limits.pictures.max_pixels)
        needed = _bytes_of(width * height, spec)
        if needed > self._most_bytes:
            raise PictureTooLarge(
                f"a picture of {width}x{height} with its answer takes {needed:,} bytes here, and {self._most_bytes:,} "
                "are there for all of them: send a smaller picture, or parts of it"
            )


def _bytes_of(pixels: int, spec: TaskSpec) -> int:
    """What a picture of so many pixels takes with its answer, which is summed as numbers and then written as bytes."""
    channels = _COLOURS if spec.picture == "rgb" else 1
    return pixels * (_COLOURS + spec.scale**2 * channels * (_NUMBER_BYTES + 1))


class _Adding:
    """Renders a tile into its mosaic; tiles come from several threads."""

    def __init__(self, mosaic: Mosaic) -> None:
        self._mosaic = mosaic
        self._lock = threading.Lock()

    def __call__(
        self, outputs: Sequence[NDArray[np.float32]], place: Geometry, manifest: Manifest, parameters: Parameters
    ) -> None:
        ensure_usable(outputs, manifest)
        with self._lock:
            self._mosaic.add(outputs[0], place)


def _joined(
    tiles: Sequence[ImageAnswer], written: Any, read: ReadImage, decode_s: float, write_s: float
) -> ImageAnswer:
    """The picture's answer; of its tiles each stage shows the slowest."""
    slowest = StageTimes(*map(max, *(msgspec.structs.astuple(tile.times) for tile in [*tiles, tiles[0]])))
    times = StageTimes(decode_s + slowest.decode_s, slowest.queue_s, slowest.infer_s, slowest.postprocess_s + write_s)
    return msgspec.structs.replace(tiles[0], prediction=written, times=times, warning=read.damage)
