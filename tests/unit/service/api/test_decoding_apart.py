"""Slow pictures are decoded in processes of their own, and each has one outcome whatever happens to these."""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
from PIL import Image

from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import Task
from saccade.service.api import decoding_apart, decoding_child
from saccade.service.api.decoding_apart import DecodingApart
from saccade.service.errors import BadImage, DeadlineExceeded, DecoderLost
from saccade.service.vision.image_decoder import ImageLimits, read_image
from tests.support.images import scene_jpeg
from tests.support.versions import manifest_for

FAR_S = 60.0
LIMITS = ImageLimits(10_000_000)
NO_MEMORY = -(512 * 2**20)  # all that a picture may take beyond what is expected


@pytest.fixture
def apart() -> Iterator[DecodingApart]:
    made = DecodingApart(2)
    yield made
    made.close()


@pytest.fixture
def unwilling() -> Iterator[DecodingApart]:
    made = DecodingApart(1, "tests.support.unwilling_decoder")
    yield made
    made.close()


def saved(image_format: str, side: int = 64, **options: object) -> bytes:
    out = io.BytesIO()
    Image.open(io.BytesIO(scene_jpeg(side, side))).save(out, image_format, **options)
    return out.getvalue()


def processes() -> list[psutil.Process]:
    """Those that decode, and the one that forks them."""
    return [each for each in psutil.Process().children(recursive=True) if decoding_child.__name__ in each.cmdline()]


def soon() -> float:
    return time.monotonic() + FAR_S


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "JPEG"])
def test_pixels_are_those_that_are_decoded_here(apart: DecodingApart, image_format: str) -> None:
    data = saved(image_format)
    spec = manifest_for("any", 1, Task.CLASSIFY).preprocess
    out = np.zeros((spec.height, spec.width, 3), np.uint8)

    place, damage = apart.fit(data, LIMITS, 0, soon(), spec, out)
    whole = apart.read(data, LIMITS, 0, soon())

    assert np.array_equal(out, preprocess(read_image(data, LIMITS).pixels, spec))
    assert (place.source_width, place.source_height, damage) == (64, 64, "")
    assert np.array_equal(whole.pixels, read_image(data, LIMITS).pixels)


def test_refusal_is_that_of_the_decoder(apart: DecodingApart) -> None:
    with pytest.raises(BadImage, match="at most 100 are allowed"):
        apart.read(saved("PNG"), ImageLimits(100), 0, soon())


def test_picture_that_takes_more_memory_than_it_may_is_refused_and_the_next_is_decoded(apart: DecodingApart) -> None:
    with pytest.raises(BadImage, match="takes more than 0 MiB: send a smaller image"):
        apart.read(saved("PNG", 2000, compress_level=1), LIMITS, NO_MEMORY, soon())

    assert apart.read(saved("PNG"), LIMITS, 0, soon()).pixels.shape == (64, 64, 3)


def test_decoding_ends_at_the_deadline_and_the_next_picture_is_decoded(apart: DecodingApart) -> None:
    with pytest.raises(DeadlineExceeded):
        apart.read(saved("PNG", 2000, compress_level=1), LIMITS, 0, time.monotonic() - 1.0)

    assert apart.read(saved("PNG"), LIMITS, 0, soon()).pixels.shape == (64, 64, 3)


def test_killed_processes_are_replaced(apart: DecodingApart) -> None:
    apart.read(saved("PNG"), LIMITS, 0, soon())
    family = processes()
    for process in family:
        process.kill()
    psutil.wait_procs(family, FAR_S)

    assert apart.read(saved("PNG"), LIMITS, 0, soon()).pixels.shape == (64, 64, 3)


def test_picture_whose_process_dies_is_lost(unwilling: DecodingApart) -> None:
    with pytest.raises(DecoderLost, match="retry, or send a smaller image"):
        unwilling.read(b"leave\n", LIMITS, 0, soon())


def test_process_that_says_nothing_is_killed_after_the_deadline(
    unwilling: DecodingApart, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding_apart, "_LATE_S", 5.0)
    before = psutil.Process().children()
    with pytest.raises(DecoderLost):
        unwilling.read(b"leave\n", LIMITS, 0, soon())  # so that it has started
    started = [process for process in psutil.Process().children() if process not in before]

    with pytest.raises(DeadlineExceeded):
        unwilling.read(b"hold\n", LIMITS, 0, time.monotonic())

    assert psutil.wait_procs(started, FAR_S) == (started, [])
    with pytest.raises(DecoderLost):
        unwilling.read(b"leave\n", LIMITS, 0, soon())  # by another process


def test_decoders_do_not_outlive_the_process_that_forks_them(apart: DecodingApart) -> None:
    apart.read(saved("PNG"), LIMITS, 0, soon())
    (forker,) = [process for process in psutil.Process().children() if decoding_child.__name__ in process.cmdline()]
    decoders = forker.children()
    forker.kill()
    psutil.wait_procs([forker], FAR_S)

    assert apart.read(saved("PNG"), LIMITS, 0, soon()).pixels.shape == (64, 64, 3)

    assert psutil.wait_procs(decoders, FAR_S)[1] == []


def test_no_descriptor_left_is_told(apart: DecodingApart, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(decoding_apart.socket, "socketpair", refused)

    with pytest.raises(DecoderLost, match=r"\(Too many open files\): retry shortly"):
        apart.read(saved("PNG"), LIMITS, 0, soon())


def test_program_that_never_begins_is_tried_three_times() -> None:
    absent = DecodingApart(1, "tests.support.no_such_program")

    with pytest.raises(DecoderLost, match="does not start"):
        absent.read(b"", LIMITS, 0, soon())

    absent.close()


def test_processes_end_when_idle_and_start_again(apart: DecodingApart, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding_apart, "_IDLE_S", 0.0)
    apart.read(saved("PNG"), LIMITS, 0, soon())

    apart.end_if_idle()

    assert processes() == []
    assert apart.read(saved("PNG"), LIMITS, 0, soon()).pixels.shape == (64, 64, 3)


def test_nothing_is_started_before_there_is_a_slow_picture() -> None:
    assert processes() == []
