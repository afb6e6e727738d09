"""The limit: decode + resize + batched inference in one process, with the project's own functions and no server.

Two forms are measured and the faster one counts: taking turns (all threads decode a batch, then all run it), and
overlapped (the next batch is decoded while the current one runs).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.manifest import Manifest, Variant
from saccade.models.contract.preprocessing import preprocess_into
from saccade.service.backends.base import Backend
from saccade.service.backends.registry import backend_name, load_backend
from saccade.service.backends.requests import load_request
from saccade.service.vision.image_decoder import ImageLimits, decode_image


class Limit:
    """One variant of a published version, without a server around it."""

    def __init__(
        self,
        version_dir: Path,
        manifest: Manifest,
        variant: Variant,
        threads: int,
        backend: Backend | None = None,
    ) -> None:
        """`threads` decode and, unless a `backend` is given, infer as well."""
        self._manifest = manifest
        self._batch_size = manifest.allowed_batch_sizes[-1]
        self._pool = ThreadPoolExecutor(threads)
        request = load_request(version_dir, manifest, variant.name, device="cpu", threads=threads)
        self._backend = backend or load_backend(backend_name(variant, "auto"), request)

    def images_per_s(self, bodies: Sequence[bytes], seconds: float) -> dict[str, float]:
        """Throughput of both forms and of bare inference."""
        return {
            "turns": self._rate(self._turn(bodies), seconds),
            "overlapped": self._overlapped(bodies, seconds),
            "bare": self._rate(self._bare(), seconds),
        }

    def _decode(self, bodies: Sequence[bytes], start: int, out: NDArray[np.uint8]) -> list[Future[object]]:
        def one(row: int) -> object:
            pixels = decode_image(bodies[(start + row) % len(bodies)], ImageLimits())
            return preprocess_into(pixels, self._manifest.preprocess, out[row])

        return [self._pool.submit(one, row) for row in range(self._batch_size)]

    def _buffer(self) -> NDArray[np.uint8]:
        return np.zeros((self._batch_size, *self._manifest.input.shape), np.uint8)

    def _turn(self, bodies: Sequence[bytes]) -> Callable[[int], None]:
        batch = self._buffer()

        def step(index: int) -> None:
            for future in self._decode(bodies, index * self._batch_size, batch):
                future.result()
            self._backend.infer(batch)

        return step

    def _bare(self) -> Callable[[int], None]:
        batch = np.random.default_rng(0).integers(0, 256, self._buffer().shape, np.uint8)

        def step(index: int) -> None:
            self._backend.infer(batch)

        return step

    def _rate(self, step: Callable[[int], None], seconds: float) -> float:
        step(0)
        start_s = time.perf_counter()
        index = 0
        while time.perf_counter() - start_s < seconds:
            index += 1
            step(index)
        return index * self._batch_size / (time.perf_counter() - start_s)

    def _overlapped(self, bodies: Sequence[bytes], seconds: float) -> float:
        batches = (self._buffer(), self._buffer())
        pending = self._decode(bodies, 0, batches[0])
        start_s = time.perf_counter()
        index = 0
        while time.perf_counter() - start_s < seconds:
            for future in pending:
                future.result()
            index += 1
            pending = self._decode(bodies, index * self._batch_size, batches[index % 2])
            self._backend.infer(batches[(index - 1) % 2])
        rate = index * self._batch_size / (time.perf_counter() - start_s)
        for future in pending:
            future.result()
        return rate

    def close(self) -> None:
        self._pool.shutdown()
        self._backend.close()
