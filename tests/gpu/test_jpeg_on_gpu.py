"""JPEGs decoded on the GPU: the same pixels as the CPU path within its bound, and bad images harm nobody."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from models.specs import PreprocessSpec
from tests.support.gpu_machine import NVIMGCODEC, SERVER

pytestmark = [pytest.mark.gpu, pytest.mark.needs(NVIMGCODEC, SERVER), pytest.mark.timeout(300)]
RULES = {
    "crop": PreprocessSpec(width=224, height=224, fit="crop", shortest_edge=256),
    "letterbox": PreprocessSpec(width=256, height=256, fit="letterbox"),
    "stretch": PreprocessSpec(width=512, height=256, fit="stretch"),
    "bicubic": PreprocessSpec(width=224, height=224, fit="stretch", resample="bicubic"),
}
ENGINE_NAMES = ("hardware", "hybrid", "gpu")


@contextlib.contextmanager
def alone() -> Iterator[bool]:
    """Nobody else uses the device in a test."""
    yield True


@pytest.fixture(params=ENGINE_NAMES)
def decoder(request: pytest.FixtureRequest) -> Iterator[Any]:
    from service.backends.cuda.runtime_driver import RuntimeDriver
    from service.errors import RuntimeMissing
    from service.vision.gpu.selection import device_openers

    openers = device_openers(RuntimeDriver(), 0, 2)
    matching = [name for name in openers if request.param in name]
    assert matching, f"the engines are {list(openers)}"
    try:
        opened = openers[matching[0]]()
    except RuntimeMissing as error:
        pytest.skip(str(error))  # a GPU without a hardware decoder
    yield opened
    opened.close()


@pytest.mark.parametrize("rule", RULES)
def test_pixels_are_those_of_the_cpu_path_and_bad_images_stay_alone(decoder: Any, rule: str) -> None:
    from service.vision.gpu.choice import unfaithfulness
    from service.vision.gpu.self_check import fidelity_of

    fidelity = fidelity_of(decoder, RULES[rule], alone)

    assert unfaithfulness(fidelity) == "", fidelity


def test_speed_is_measured_beside_the_cpu_path(decoder: Any) -> None:
    from service.vision.gpu.self_check import cpu_images_per_s, device_images_per_s

    device, cpu = device_images_per_s(decoder, RULES["crop"], alone), cpu_images_per_s(RULES["crop"], 2)

    assert device > 0
    assert cpu > 0
