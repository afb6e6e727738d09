"""Opens, measures and keeps a worker's JPEG decoders; each is measured on this device before it serves.

A choice holds for one preprocessing rule, because the difference in pixels depends on it; a rule that was measured for
one version is not measured again for another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.errors import BackendError
from saccade.service.worker.gpu_jpeg.choice import Choice, DecoderFigures, Fidelity, JpegDecoderSetting, choose_decoder
from saccade.service.worker.gpu_jpeg.decoder import DeviceJpegDecoder, GpuJpegDecoder
from saccade.service.worker.gpu_jpeg.launcher import DriverLauncher
from saccade.service.worker.gpu_jpeg.nvimagecodec import Engine, NvImageCodec, offered_engines
from saccade.service.worker.gpu_jpeg.self_check import Exclusive, cpu_images_per_s, device_images_per_s, fidelity_of

log = structlog.get_logger()

Opener = Callable[[], GpuJpegDecoder]


@dataclass(frozen=True, slots=True)
class DecoderMeasurement:
    """The choice for one preprocessing rule, and the figures behind it."""

    choice: Choice
    cpu_images_per_s: float
    devices: tuple[DecoderFigures, ...]


class JpegDecoding:
    """All decoders of one device worker; only the loader's thread may call it."""

    def __init__(self, setting: JpegDecoderSetting, openers: Mapping[str, Opener], image_threads: int) -> None:
        """`image_threads` is the number of image threads of all API processes together."""
        self._setting = setting
        self._openers = openers
        self._image_threads = image_threads
        self._measured: dict[PreprocessSpec, DecoderMeasurement] = {}
        self._open: dict[str, GpuJpegDecoder] = {}

    def decoder_for(
        self, spec: PreprocessSpec, exclusive: Exclusive
    ) -> tuple[GpuJpegDecoder | None, DecoderMeasurement]:
        """Returns the decoder for versions with this rule, or None where image threads decode. Raises DeviceLost.

        `exclusive` holds the device for one batch at a time, so that traffic runs in between.
        """
        measured = self._measured.get(spec)
        if measured is None:
            measured = self._measured[spec] = self._measure(spec, exclusive)
            log.info(
                "jpeg_decoder_chosen",
                decoder=measured.choice.decoder or "image threads",
                reason=measured.choice.reason,
                input=f"{spec.width}x{spec.height}",
            )
        return self._open.get(measured.choice.decoder), measured

    def _measure(self, spec: PreprocessSpec, exclusive: Exclusive) -> DecoderMeasurement:
        if self._setting == "cpu" or not self._openers:
            return DecoderMeasurement(choose_decoder(self._setting, 0.0, ()), 0.0, ())
        figures = tuple(self._figures(name, spec, exclusive) for name in self._openers)
        cpu = cpu_images_per_s(spec, self._image_threads)
        choice = choose_decoder(self._setting, cpu, figures)
        in_use = {choice.decoder, *(known.choice.decoder for known in self._measured.values())}
        for name in set(self._open) - in_use:
            with exclusive():
                self._open.pop(name).close()
        return DecoderMeasurement(choice, cpu, figures)

    def _figures(self, name: str, spec: PreprocessSpec, exclusive: Exclusive) -> DecoderFigures:
        try:
            decoder = self._open.get(name)
            if decoder is None:
                with exclusive():
                    decoder = self._open[name] = self._openers[name]()
            fidelity = fidelity_of(decoder, spec, exclusive)
            return DecoderFigures(name, device_images_per_s(decoder, spec, exclusive), fidelity)
        except BackendError as error:  # the other engines, or the image threads, may still serve
            return DecoderFigures(name, 0.0, Fidelity(0.0, "", str(error)))

    def close(self) -> None:
        """Frees all decoders; the caller must hold the device."""
        while self._open:
            self._open.popitem()[1].close()


def device_openers(
    driver: CudaDriver, device_index: int, threads: int, setting: JpegDecoderSetting
) -> dict[str, Opener]:
    """Returns, by name, functions that open the ways of decoding on a GPU that the setting offers."""
    return {engine.name: _opener(engine, driver, device_index, threads) for engine in offered_engines(setting)}


def _opener(engine: Engine, driver: CudaDriver, device_index: int, threads: int) -> Opener:
    def opened() -> GpuJpegDecoder:
        driver.set_device(device_index)
        codec = NvImageCodec(engine, device_index, threads)
        launcher = DriverLauncher(driver.properties(device_index).capability)
        return DeviceJpegDecoder(engine.name, codec, driver, device_index, launcher)

    return opened
