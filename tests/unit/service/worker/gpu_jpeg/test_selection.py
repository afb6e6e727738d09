"""What the start-up check sees, and what a worker keeps of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest

from saccade.models.contract.preprocessing import UInt8Array
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import DeviceLost, RuntimeMissing
from saccade.service.vision.image_decoder import ImageLimits
from saccade.service.vision.jpeg_header import EncodedImage, encoded_image
from saccade.service.worker.gpu_jpeg.choice import JpegDecoderSetting, unfaithfulness
from saccade.service.worker.gpu_jpeg.cpu_stand_in import CpuStandIn
from saccade.service.worker.gpu_jpeg.decoder import DeviceJpegDecoder, GpuJpegDecoder
from saccade.service.worker.gpu_jpeg.nvimagecodec import ON_CPU, NvImageCodec
from saccade.service.worker.gpu_jpeg.selection import JpegDecoding, device_openers
from saccade.service.worker.gpu_jpeg.self_check import check_images, fidelity_of
from tests.support.host_device import HostCodec, HostDriver, HostLauncher
from tests.support.host_kernels import COMPILER, NO_COMPILER

needs_compiler = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

SPEC = PreprocessSpec(width=96, height=80, fit="letterbox")
SPECS = {
    "letterbox": SPEC,
    "crop": PreprocessSpec(width=96, height=80, fit="crop", shortest_edge=110, rounding="floor", resample="bicubic"),
    "stretch": PreprocessSpec(width=128, height=128, fit="stretch", resample="lanczos"),
}


def free_device() -> AbstractContextManager[None]:
    return nullcontext()


class Scripted(CpuStandIn):
    """The CPU path's pixels, spoiled in one way."""

    def __init__(self, spoil: str = "") -> None:
        super().__init__(ImageLimits())
        self._spoil = spoil
        self.is_closed = False

    @property
    def name(self) -> str:
        return "scripted"

    def decode_into(
        self, images: Sequence[EncodedImage], spec: PreprocessSpec, rows: Sequence[UInt8Array]
    ) -> list[bool]:
        done = super().decode_into(images, spec, rows)
        match self._spoil:
            case "brighter":
                for row in rows:
                    np.minimum(row, 252, out=row)
                    row += 3
            case "refuses small":
                done = [is_done and image.width > 40 for is_done, image in zip(done, images, strict=True)]
            case "takes all":
                done = [True] * len(done)
            case "fails together":
                done = [all(done)] * len(done)
            case "spills":
                if not all(done):
                    rows[0][:] = 0
            case "is lost":
                raise DeviceLost("illegal address")
        return done

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("brighter", "are within one level"),
        ("refuses small", "cannot decode small"),
        ("takes all", "takes noise for an image"),
        ("fails together", "refuses good images beside bad ones"),
        ("spills", "gives other pixels beside bad images"),
    ],
)
def test_check_names_what_a_decoder_does_wrong(spoil: str, reason: str) -> None:
    assert reason in unfaithfulness(fidelity_of(Scripted(spoil), SPEC, free_device))


def test_the_cpu_paths_own_pixels_pass() -> None:
    fidelity = fidelity_of(Scripted(), SPEC, free_device)

    assert unfaithfulness(fidelity) == ""
    assert fidelity.worst_share == 1.0


@needs_compiler
@pytest.mark.parametrize("rule", list(SPECS))
@pytest.mark.parametrize("library", ["libjpeg-turbo", "nvImageCodec's host decoder"])
def test_kernels_pass_the_check_on_host_memory(library: str, rule: str) -> None:
    try:
        codec = HostCodec() if library == "libjpeg-turbo" else NvImageCodec(ON_CPU, None, threads=1)
    except RuntimeMissing as error:
        pytest.skip(str(error))
    decoder = DeviceJpegDecoder("host", codec, HostDriver(), 0, HostLauncher())  # type: ignore[arg-type]

    fidelity = fidelity_of(decoder, SPECS[rule], free_device)

    assert unfaithfulness(fidelity) == ""


def test_check_covers_every_turn_and_every_chroma() -> None:
    images = check_images()

    assert {image.orientation for image in images.values()} == set(range(1, 9))
    assert {"4:4:4", "4:2:2", "4:2:0", "grey", "small"} <= set(images)


def test_check_measures_only_what_is_sent_to_a_device() -> None:
    assert [name for name, image in check_images().items() if encoded_image(image.data, ImageLimits()) is None] == []


@pytest.mark.parametrize(("setting", "names"), [("auto", ["hardware"]), ("gpu", ["hardware", "hybrid", "gpu"])])
def test_engines_with_other_pixels_are_offered_only_to_whom_asks_for_the_gpu(
    setting: JpegDecoderSetting, names: list[str]
) -> None:
    driver = HostDriver()

    assert list(device_openers(driver, 0, 1, setting)) == names  # type: ignore[arg-type]  # a stand-in


def test_engine_with_other_pixels_does_not_serve_even_for_whom_asks_for_the_gpu() -> None:
    openers = {"hardware": Scripted, "hybrid": lambda: Scripted("brighter")}

    decoder, measured = JpegDecoding("gpu", openers, 1).decoder_for(SPEC, free_device)

    assert decoder is not None
    assert measured.choice.decoder == "hardware"


def test_rule_is_measured_once() -> None:
    opened: list[Scripted] = []

    def opener() -> GpuJpegDecoder:
        opened.append(Scripted())
        return opened[-1]

    decoding = JpegDecoding("gpu", {"scripted": opener}, image_threads=1)

    first, measured = decoding.decoder_for(SPEC, free_device)
    second, again = decoding.decoder_for(SPEC, free_device)

    assert first is second is opened[0]
    assert measured is again
    assert measured.cpu_images_per_s > 0
    assert [figures.images_per_s > 0 for figures in measured.devices] == [True]


def test_decoder_that_may_not_serve_is_closed() -> None:
    unfaithful = Scripted("brighter")

    decoder, measured = JpegDecoding("gpu", {"scripted": lambda: unfaithful}, 1).decoder_for(SPEC, free_device)

    assert decoder is None
    assert measured.choice.decoder == ""
    assert unfaithful.is_closed


def test_missing_library_is_the_reason_not_a_failure() -> None:
    def opener() -> GpuJpegDecoder:
        raise RuntimeMissing("nvImageCodec is not installed")

    decoder, measured = JpegDecoding("auto", {"hardware": opener}, 1).decoder_for(SPEC, free_device)

    assert decoder is None
    assert measured.choice.reason == "hardware: nvImageCodec is not installed"


def test_lost_device_is_not_taken_for_a_missing_decoder() -> None:
    decoding = JpegDecoding("auto", {"scripted": lambda: Scripted("is lost")}, 1)

    with pytest.raises(DeviceLost):
        decoding.decoder_for(SPEC, free_device)


def test_set_to_cpu_nothing_is_opened() -> None:
    def opener() -> GpuJpegDecoder:
        raise AssertionError("opened")

    decoder, measured = JpegDecoding("cpu", {"hardware": opener}, 1).decoder_for(SPEC, free_device)

    assert decoder is None
    assert measured.choice.reason == "jpeg_decoder is cpu"
