"""Decides whether a worker decodes JPEGs on its device; workers that do not never import the decoders."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import structlog

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.device_names import CPU
from saccade.service.settings import Settings, core_count
from saccade.service.worker.batch_filling import JpegRowDecoder

if TYPE_CHECKING:
    from saccade.service.worker.gpu_jpeg.selection import JpegDecoding

log = structlog.get_logger()


class WorkerJpegs:
    """The decoders of the worker's device, opened when the first version that may use them is loaded."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._is_possible = _is_possible(settings)
        self._decoding: JpegDecoding | None = None

    def decoder_for(
        self, spec: PreprocessSpec, exclusive: Callable[[], AbstractContextManager[object]]
    ) -> JpegRowDecoder | None:
        """Returns the decoder for versions with this rule, or None where API processes decode. Measures each rule once.

        Raises DeviceLost.
        """
        if not self._is_possible:
            return None
        # Imported here, because only workers that may decode need the image libraries.
        from saccade.service.vision.image_decoder import ImageLimits
        from saccade.service.worker.gpu_jpeg.rows import JpegRows

        if self._decoding is None:
            self._decoding = _decoding(self._settings)
        decoder, _ = self._decoding.decoder_for(spec, exclusive)
        return None if decoder is None else JpegRows(decoder, spec, ImageLimits(self._settings.max_pixels))


def _is_possible(settings: Settings) -> bool:
    if settings.backend == "fake":  # its stand-in is for tests of this path, and is never faster
        return settings.jpeg_decoder == "gpu"
    if settings.device == CPU and settings.jpeg_decoder == "gpu":
        log.warning("jpeg_decoder_has_no_gpu", device=settings.device, decoder="image threads")
    return settings.device != CPU and settings.jpeg_decoder != "cpu"


def _decoding(settings: Settings) -> JpegDecoding:
    from saccade.service.backends.cuda.runtime_driver import RuntimeDriver
    from saccade.service.vision.image_decoder import ImageLimits
    from saccade.service.worker.gpu_jpeg.cpu_stand_in import CpuStandIn
    from saccade.service.worker.gpu_jpeg.selection import JpegDecoding, device_openers

    if settings.backend == "fake":
        limits = ImageLimits(settings.max_pixels)
        return JpegDecoding(settings.jpeg_decoder, {"stand-in": lambda: CpuStandIn(limits)}, 1)
    # A worker sees only its own device, which is therefore number 0.
    openers = device_openers(RuntimeDriver(), 0, settings.decode_threads, settings.jpeg_decoder)
    image_threads = min(core_count(), settings.api_processes * settings.decode_threads)
    return JpegDecoding(settings.jpeg_decoder, openers, image_threads)
