"""`saccade predict --repository`: a version over a folder, without HTTP. Promises: decoder, backend, answers as served.

The next batch is decoded and resized by threads while the present one runs, and answers are rendered meanwhile: so this
is also the limit that a server's throughput is compared with. Memory is bounded by two batches. Pictures that a network
takes in tiles come one after the other, each with its tiles in batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from saccade.models.contract.extras import ExtraKind, asked_for, mask_of
from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import Geometry, preprocess_into, tile_into
from saccade.models.contract.quality import Quality, quality_of
from saccade.service.backends.base import AskableBackend, Backend, Outputs, UInt8Array
from saccade.service.backends.registry import absent_kinds, backend_name, load_backend
from saccade.service.backends.requests import load_request, variant_named
from saccade.service.device_names import inner_name
from saccade.service.errors import BackendError, BadParameter, RepositoryError, SaccadeError
from saccade.service.repository.open import list_versions
from saccade.service.repository.trusted_keys import SignaturePolicy
from saccade.service.repository.variants import choose_variant
from saccade.service.repository.verify import VerifiedVersion, verify_version
from saccade.service.settings import Settings
from saccade.service.vision.answers import ensure_usable, prediction_of
from saccade.service.vision.extras import ensure_finite
from saccade.service.vision.image_decoder import ImageLimits, ReadImage, read_image
from saccade.service.vision.parameters import Parameters
from saccade.service.vision.tiles import Mosaic, ensure_few_tiles, tile_grid, tiles_of


class Source(Protocol):
    """An image: its name, and its bytes when they are wanted."""

    @property
    def name(self) -> str: ...

    def read(self) -> bytes:
        """Raises OSError."""


@dataclass(frozen=True, slots=True)
class OfflineImage:
    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def read(self) -> bytes:
        return self.path.read_bytes()


@dataclass(frozen=True, slots=True)
class OfflineAnswer:
    """Exactly one of `prediction` and `error` is set."""

    name: str
    prediction: dict[str, Any] | None
    error: str


@dataclass(slots=True)
class OfflineTimes:
    """Seconds so far; `infer_s` is the device's, the rest of `total_s` is hidden behind it or waits for images."""

    images: int = 0
    failed: int = 0
    infer_s: float = 0.0
    total_s: float = 0.0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an image lies in the model's input, and why some of its pixels may not be the picture's."""

    geometry: Geometry
    damage: str
    quality: Quality | None  # where it was asked for


@dataclass(slots=True)
class _Batch:
    """Images on their way into rows of one buffer."""

    sources: Sequence[Source]
    pixels: UInt8Array
    places: list[Future[_Place | SaccadeError]]


class OfflineModel:
    """One variant of a version, loaded in this process."""

    def __init__(self, version: VerifiedVersion, settings: Settings) -> None:
        """Raises BackendError or RepositoryError."""
        manifest = version.manifest
        device = inner_name(settings.devices[0])
        variant = choose_variant(manifest, device, settings.variant, absent_kinds(settings.backend))
        limit = settings.max_batch_size or manifest.allowed_batch_sizes[-1]
        self.manifest: Manifest = manifest
        self.variant = variant.name
        self.times = OfflineTimes()
        self._sizes = tuple(size for size in manifest.allowed_batch_sizes if size <= limit)
        self._limits = ImageLimits(settings.max_pixels, settings.more_formats)
        self._max_tiles = settings.max_tiles
        self._pool = ThreadPoolExecutor(settings.decode_threads, "pixels")
        request = load_request(
            version.path,
            manifest,
            variant.name,
            device=device,
            threads=settings.device_threads,
            allow_spinning=settings.allow_spinning,
            batch_sizes=self._sizes,
        )
        self._backend: Backend = load_backend(backend_name(variant, settings.backend), request)

    def warm_up(self) -> None:
        for size in self._sizes:
            self._backend.infer(np.zeros((size, *self.manifest.input.shape), np.uint8))

    def predict(self, sources: Iterable[Source], parameters: Parameters) -> Iterator[OfflineAnswer]:
        """Answers in order; an image that cannot be decoded costs its neighbours nothing.

        Raises BadParameter where this variant does not compute what the parameters ask for.
        """
        self._ensure_given(parameters.asked)
        start_s = time.perf_counter()
        if self.manifest.preprocess.fit == "tile":
            for source in sources:
                answer = self._in_tiles(source, parameters)
                self.times.images += 1
                self.times.failed += answer.prediction is None
                self.times.total_s = time.perf_counter() - start_s
                yield answer
            return
        waiting = iter(sources)
        buffers = [np.empty((self._sizes[-1], *self.manifest.input.shape), np.uint8) for _ in range(2)]
        current = self._begin(waiting, buffers[0], parameters)
        turn = 1
        finished: list[Future[OfflineAnswer]] = []
        while current is not None:
            places = [place.result() for place in current.places]
            following = self._begin(waiting, buffers[turn], parameters)
            outputs = self._infer(_good(current.pixels, places), parameters.asked)
            yield from (answer.result() for answer in finished)
            finished = self._render(current, places, outputs, parameters)
            current, turn = following, 1 - turn
            self.times.total_s = time.perf_counter() - start_s
        yield from (answer.result() for answer in finished)
        self.times.total_s = time.perf_counter() - start_s

    def _ensure_given(self, asked: int) -> None:
        given = self.manifest.given_by(variant_named(self.manifest, self.variant))
        found = mask_of(given) if isinstance(self._backend, AskableBackend) else 0
        lacking = " and ".join(kind for kind in ExtraKind if kind.bit & asked & ~found)
        if lacking:
            raise BadParameter(
                f"variant {self.variant}, which answers here by {self._backend.provider}, does not compute {lacking}"
            )

    def close(self) -> None:
        self._pool.shutdown()
        self._backend.close()

    def _begin(self, waiting: Iterator[Source], pixels: UInt8Array, parameters: Parameters) -> _Batch | None:
        sources = list(islice(waiting, len(pixels)))
        if not sources:
            return None
        rows = zip(sources, pixels, strict=False)
        places = [self._pool.submit(self._decode, source, row, parameters) for source, row in rows]
        return _Batch(sources, pixels[: len(sources)], places)

    def _in_tiles(self, source: Source, parameters: Parameters) -> OfflineAnswer:
        """A picture of any size, cut and joined as a server does it."""
        read = self._read(source)
        try:
            if isinstance(read, SaccadeError):
                raise read
            height, width = read.pixels.shape[:2]
            spec, scale = self.manifest.preprocess, self.manifest.task.scale
            grid = tile_grid(width, height, spec)
            ensure_few_tiles(width, height, grid, scale, self._max_tiles, self._limits.max_pixels)
            mosaic = Mosaic(width, height, grid, scale)
            pixels = np.empty((self._sizes[-1], *self.manifest.input.shape), np.uint8)
            tiles = tiles_of(read.pixels, grid)
            while batch := list(islice(tiles, len(pixels))):
                for tile, row in zip(batch, pixels, strict=False):
                    tile_into(tile.pixels, spec, tile.place, row)
                for tile, found in zip(batch, self._infer(pixels[: len(batch)], parameters.asked), strict=True):
                    if isinstance(found, SaccadeError):
                        raise found
                    mosaic.add(found[0], tile.place)
            place = _Place(Geometry(width, height, 0, 0, width, height), read.damage, None)
            return self._answer(source.name, place, [mosaic.joined()], parameters)
        except SaccadeError as error:
            return OfflineAnswer(source.name, None, str(error))

    def _decode(self, source: Source, row: UInt8Array, parameters: Parameters) -> _Place | SaccadeError:
        read = self._read(source)
        if isinstance(read, SaccadeError):
            return read
        geometry, ranges = preprocess_into(read.pixels, self.manifest.preprocess, row), self.manifest.quality
        asked = quality_of(row, geometry, ranges) if parameters.quality and ranges is not None else None
        return _Place(geometry, read.damage, asked)

    def _read(self, source: Source) -> ReadImage | SaccadeError:
        try:
            return read_image(source.read(), self._limits.for_network(self.manifest.preprocess))
        except SaccadeError as error:
            return error
        except OSError as error:
            return SaccadeError(f"cannot read {source.name}: {error.strerror}")
        except Exception as error:  # unforeseen; one picture never ends a folder
            return SaccadeError(f"cannot use {source.name}: {type(error).__name__}")

    def _infer(self, images: UInt8Array, asked: int) -> list[Outputs | SaccadeError]:
        """Rows of answers per image, in order. Batches are of allowed sizes, so none is padded."""
        rows: list[Outputs | SaccadeError] = []
        start_s = time.perf_counter()
        while len(rows) < len(images):
            size = max(size for size in self._sizes if size <= len(images) - len(rows))
            rows += self._run(images[len(rows) : len(rows) + size], asked)
        self.times.infer_s += time.perf_counter() - start_s
        return rows

    def _run(self, images: UInt8Array, asked: int) -> list[Outputs | SaccadeError]:
        """A batch that fails is repeated one image at a time, as the server does it."""
        try:
            if asked and isinstance(self._backend, AskableBackend):
                outputs = self._backend.infer_asked(images, asked)
            else:
                outputs = self._backend.infer(images)
        except BackendError as error:
            if len(images) == 1:
                return [error]
            return [row for image in images for row in self._run(image[None], asked)]
        return [self._unusable(row, asked) or row for row in map(list, zip(*outputs, strict=True))]

    def _unusable(self, row: Outputs, asked: int) -> SaccadeError | None:
        """The error of an image whose answer cannot be told: it fails alone."""
        count = len(self.manifest.answer)
        try:
            ensure_usable(row[:count], self.manifest)
            ensure_finite(row[count:], asked_for(self.manifest.extras, asked))
        except SaccadeError as error:
            return error
        return None

    def _render(
        self,
        batch: _Batch,
        places: list[_Place | SaccadeError],
        outputs: list[Outputs | SaccadeError],
        parameters: Parameters,
    ) -> list[Future[OfflineAnswer]]:
        rows = iter(outputs)
        answers = []
        for source, place in zip(batch.sources, places, strict=True):
            row = place if isinstance(place, SaccadeError) else next(rows)
            self.times.images += 1
            self.times.failed += isinstance(row, SaccadeError)
            answers.append(self._pool.submit(self._answer, source.name, place, row, parameters))
        return answers

    def _answer(
        self, name: str, place: _Place | SaccadeError, row: Outputs | SaccadeError, parameters: Parameters
    ) -> OfflineAnswer:
        if isinstance(row, SaccadeError) or isinstance(place, SaccadeError):
            return OfflineAnswer(name, None, str(row))
        prediction = prediction_of(row, place.geometry, self.manifest, parameters)
        more: dict[str, Any] = {"warning": place.damage} if place.damage else {}
        if place.quality is not None:
            more["quality"] = place.quality._asdict()
        return OfflineAnswer(name, prediction | more, "")


def _good(pixels: UInt8Array, places: list[_Place | SaccadeError]) -> UInt8Array:
    """The rows of images that could be decoded."""
    good = [index for index, place in enumerate(places) if not isinstance(place, SaccadeError)]
    return pixels if len(good) == len(places) else pixels[good]


def newest_version(repository: Path, model: str, version: str | None, policy: SignaturePolicy) -> VerifiedVersion:
    """The version of a model, or its newest. Raises RepositoryError naming those there are."""
    found = [item for item in list_versions(repository) if item.key.model == model]
    wanted = [item for item in found if version is None or str(item.key.version) == version]
    if not wanted:
        known = ", ".join(f"{item.key.model}/{item.key.version}" for item in list_versions(repository)) or "none"
        what = model if version is None else f"{model}/{version}"
        raise RepositoryError(f"no {what!r} in {repository}; there are: {known}")
    return verify_version(wanted[-1].path, policy)
