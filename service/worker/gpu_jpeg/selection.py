"""Opens, measures and keeps a worker's JPEG decoders. Promises: nothing serves that was not measured on this device.

A choice holds for a preprocessing rule, since how far pixels are apart depends on it; a new version with a rule that
was measured before is not measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.errors import BackendError
from saccade.service.worker.gpu_jpeg.choice import Choice, DeviceFigures, Fidelity, JpegDecoderSetting, choose_decoder
from saccade.service.worker.gpu_jpeg.decoder import DeviceJpegDecoder, GpuJpegDecoder
from saccade.service.worker.gpu_jpeg.launcher import DriverLauncher
from saccade.service.worker.gpu_jpeg.nvimagecodec import Engine, NvImageCodec, offered_engines
from saccade.service.worker.gpu_jpeg.self_check import Exclusive, cpu_images_per_s, device_images_per_s, fidelity_of

log = structlog.get_logger()

Opener = Callable[[], GpuJpegDecoder]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was chosen for a rule, and all figures."""

    choice: Choice
    cpu_images_per_s: float
    devices: tuple[DeviceFigures, ...]


class JpegDecoding:
    """All decoders of one device worker. Its methods are for the loader's thread."""

    def __init__(self, setting: JpegDecoderSetting, openers: Mapping[str, Opener], image_threads: int) -> None:
        """`image_threads`: of all HTTP processes of this machine together."""
        self._setting = setting
        self._openers = openers
        self._image_threads = image_threads
        self._measured: dict[PreprocessSpec, Measured] = {}
        self._open: dict[str, GpuJpegDecoder] = {}

    def decoder_for(self, spec: PreprocessSpec, exclusive: Exclusive) -> tuple[GpuJpegDecoder | None, Measured]:
        """The decoder for versions with this rule; None: the image threads. Raises DeviceLost.

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

    def _measure(self, spec: PreprocessSpec, exclusive: Exclusive) -> Measured:
        if self._setting == "cpu" or not self._openers:
            return Measured(choose_decoder(self._setting, 0.0, ()), 0.0, ())
        figures = tuple(self._figures(name, spec, exclusive) for name in self._openers)
        cpu = cpu_images_per_s(spec, self._image_threads)
        choice = choose_decoder(self._setting, cpu, figures)
        in_use = {choice.decoder, *(known.choice.decoder for known in self._measured.values())}
        for name in set(self._open) - in_use:
            with exclusive():
                self._open.pop(name).close()
        return Measured(choice, cpu, figures)

    def _figures(self, name: str, spec: PreprocessSpec, exclusive: Exclusive) -> DeviceFigures:
        try:
            decoder = self._open.get(name)
            if decoder is None:
                with exclusive():
                    decoder = self._open[name] = self._openers[name]()
            fidelity = fidelity_of(decoder, spec, exclusive)
            return DeviceFigures(name, device_images_per_s(decoder, spec, exclusive), fidelity)
        except BackendError as error:  # a device without one of these engines is no reason not to serve
            return DeviceFigures(name, 0.0, Fidelity(0.0, "", str(error)))

    def close(self) -> None:
        """Frees all of them; the device must be held."""
        while self._open:
            self._open.popitem()[1].close()


def device_openers(
    driver: CudaDriver, device_index: int, threads: int, setting: JpegDecoderSetting
) -> dict[str, Opener]:
    """The ways of decoding on a GPU that a setting offers."""
    return {engine.name: _opener(engine, driver, device_index, threads) for engine in offered_engines(setting)}


def _opener(engine: Engine, driver: CudaDriver, device_index: int, threads: int) -> Opener:
    def opened() -> GpuJpegDecoder:
        driver.set_device(device_index)
        codec = NvImageCodec(engine, device_index, threads)
        launcher = DriverLauncher(driver.properties(device_index).capability)
        return DeviceJpegDecoder(engine.name, codec, driver, device_index, launcher)

    return opened
