"""JPEGs decoded on the GPU: the same pixels as the CPU path within its bound, and bad images harm nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from saccade.models.contract.specs import PreprocessSpec
from tests.support.gpu_machine import NVIMGCODEC, SERVER

pytestmark = [pytest.mark.gpu, pytest.mark.needs(NVIMGCODEC, SERVER), pytest.mark.timeout(300)]
RULES = {
    "crop": PreprocessSpec(width=224, height=224, fit="crop", shortest_edge=256),
    "letterbox": PreprocessSpec(width=256, height=256, fit="letterbox"),
    "stretch": PreprocessSpec(width=512, height=256, fit="stretch"),
    "bicubic": PreprocessSpec(width=224, height=224, fit="stretch", resample="bicubic"),
}
ENGINES = ("hardware", "hybrid", "gpu")


@contextlib.contextmanager
def alone() -> Iterator[bool]:
    """Nobody else uses the device in a test."""
    yield True


@contextlib.contextmanager
def opened(engine: str) -> Iterator[Any]:
    from saccade.service.backends.cuda.runtime_driver import RuntimeDriver
    from saccade.service.errors import RuntimeMissing
    from saccade.service.worker.gpu_jpeg.selection import device_openers

    openers = device_openers(RuntimeDriver(), 0, 2, "gpu")
    assert tuple(openers) == ENGINES
    try:
        decoder = openers[engine]()
    except RuntimeMissing as error:
        pytest.skip(str(error))  # a GPU without a hardware decoder
    try:
        yield decoder
    finally:
        decoder.close()


@pytest.fixture
def hardware() -> Iterator[Any]:
    with opened("hardware") as decoder:
        yield decoder


@pytest.mark.parametrize("rule", RULES)
def test_pixels_of_baseline_files_are_those_of_the_cpu_path_and_bad_images_stay_alone(hardware: Any, rule: str) -> None:
    from saccade.service.worker.gpu_jpeg.choice import unfaithfulness
    from saccade.service.worker.gpu_jpeg.self_check import fidelity_of

    fidelity = fidelity_of(hardware, RULES[rule], alone)

    assert unfaithfulness(fidelity) == "", fidelity


@pytest.mark.parametrize("rule", RULES)
def test_only_an_engine_that_passes_the_check_serves_whatever_is_offered(rule: str) -> None:
    from saccade.service.backends.cuda.runtime_driver import RuntimeDriver
    from saccade.service.worker.gpu_jpeg.choice import unfaithfulness
    from saccade.service.worker.gpu_jpeg.selection import JpegDecoding, device_openers

    decoding = JpegDecoding("gpu", device_openers(RuntimeDriver(), 0, 2, "gpu"), image_threads=2)

    decoder, measured = decoding.decoder_for(RULES[rule], alone)

    print(rule, measured)  # the figures of this GPU, with -s or where the test fails
    faithful = {each.decoder: each.images_per_s for each in measured.devices if not unfaithfulness(each.fidelity)}
    assert measured.choice.decoder == max(faithful, key=lambda name: faithful[name], default="")
    assert (decoder is None) == (not faithful)
    decoding.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_speed_is_measured_beside_the_cpu_path(engine: str) -> None:
    from saccade.service.worker.gpu_jpeg.self_check import cpu_images_per_s, device_images_per_s

    with opened(engine) as decoder:
        device, cpu = device_images_per_s(decoder, RULES["crop"], alone), cpu_images_per_s(RULES["crop"], 2)

    assert device > 0
    assert cpu > 0
