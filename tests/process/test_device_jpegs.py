"""JPEGs decoded by the worker, with real processes: bytes in slots, right geometry and pixels, bad ones alone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from saccade.models.contract.preprocessing import preprocess
from saccade.models.contract.specs import Task
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from tests.support.images import encoded, image_of, json_body, red_of, red_png
from tests.support.problems import is_problem
from tests.support.requests import at_once
from tests.support.server import Server, running_server
from tests.support.versions import manifest_for

DECODED = "saccade_decoded_images_total"


@pytest.fixture(scope="module")
def server(three_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The worker decodes, with the stand-in; batches wait a little for each other, so that images share them."""
    with running_server(
        three_models,
        tmp_path_factory.mktemp("jpegs"),
        jpeg_decoder="gpu",
        api_processes=2,
        max_queue_delay_ms=15,
        max_slot_bytes=256 * 1024,
    ) as server:
        yield server


def red_jpeg(red: int, width: int = 64, height: int = 48, **options: Any) -> bytes:
    return encoded(image_of((red, 100, 200), width, height), "JPEG", **options)


def red_on_cpu(data: bytes, task: Task = Task.CLASSIFY) -> int:
    """What the CPU path would have the fake backend answer."""
    pixels = preprocess(decode_image(data, ImageLimits()), manifest_for("any", 1, task).preprocess)
    return int(pixels[0, 0, 0])


def cut(data: bytes) -> bytes:
    """Half of the scan is gone, header and end are there."""
    start = data.index(b"\xff\xda")
    return data[: start + (len(data) - start) // 2] + b"\xff\xd9"


def noisy_jpeg() -> bytes:
    noise = Image.effect_noise((200, 150), 90).convert("RGB")
    return encoded(noise, "JPEG", quality=95)


def test_worker_says_that_it_decodes_and_why(server: Server) -> None:
    chosen = server.events("jpeg_decoder_chosen")

    assert {entry["decoder"] for entry in chosen} == {"stand-in"}
    assert all("images/s" in entry["reason"] for entry in chosen)


def test_jpegs_are_decoded_by_the_worker_to_the_same_pixels(server: Server) -> None:
    before = server.metric(DECODED, decoder="device")
    images = [red_jpeg(red) for red in range(10, 90, 4)]

    answers = at_once(lambda data: server.predict("classifier", data).json()["predictions"][0], images, 8)

    assert [red_of(answer) for answer in answers] == [red_on_cpu(data) for data in images]
    assert {(answer["width"], answer["height"]) for answer in answers} == {(64, 48)}
    assert server.metric(DECODED, decoder="device") - before == len(images)
    server.wait_idle()


def test_each_jpeg_goes_by_its_header_to_the_device_or_to_the_image_threads(server: Server) -> None:
    # given a progressive file after every baseline one, all at once
    images = [red_jpeg(red, progressive=bool(index % 2)) for index, red in enumerate(range(10, 90, 4))]
    deciders = ("device", "image_threads", "second_opinion")
    before = [server.metric(DECODED, decoder=name) for name in deciders]

    answers = at_once(lambda data: server.predict("classifier", data).json()["predictions"][0], images, 8)

    assert [red_of(answer) for answer in answers] == [red_on_cpu(data) for data in images]
    after = [server.metric(DECODED, decoder=name) for name in deciders]
    assert [now - then for now, then in zip(after, before, strict=True)] == [10, 10, 0]
    server.wait_idle()


def test_answers_come_in_upright_source_coordinates(server: Server) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = red_jpeg(50, width=80, height=40, exif=exif)

    answer = server.predict("segmenter", data).json()["predictions"][0]

    assert (answer["width"], answer["height"]) == (40, 80)


def test_bad_jpegs_among_good_ones_harm_nobody(server: Server) -> None:
    images = [red_jpeg(30), cut(noisy_jpeg()), red_jpeg(60), b"\xff\xd8\xff\xe0garbage\xff\xd9"]

    answer = server.client.post("/v1/models/classifier/predict", json=json_body(*images))

    predictions = answer.json()["predictions"]
    assert [red_of(predictions[index]) for index in (0, 2)] == [red_on_cpu(images[0]), red_on_cpu(images[2])]
    assert "parts of the picture may be lost" in predictions[1]["warning"]
    assert predictions[3]["error"]["status"] == 422
    server.wait_idle()


def test_single_bad_jpeg_is_422_with_the_cpu_decoders_reason(server: Server) -> None:
    whole = noisy_jpeg()
    without_tables = whole.replace(b"\xff\xda\x00\x0c\x03\x01\x00", b"\xff\xda\x00\x0c\x03\x01\x33")
    assert without_tables != whole
    problem = is_problem(server.predict("classifier", without_tables), 422)

    assert "damaged or truncated" in problem["detail"]
    server.wait_idle()


@pytest.mark.parametrize("kind", ["png", "larger than a slot", "cmyk", "no end"])
def test_other_images_are_decoded_by_the_image_threads(server: Server, kind: str) -> None:
    buffer = io.BytesIO()
    match kind:
        case "png":
            data = red_png(40)
        case "larger than a slot":
            comments = b"\xff\xfe\xff\xff" + bytes(65_533)
            plain = red_jpeg(40)
            data = plain[:2] + comments * 5 + plain[2:]
        case "cmyk":
            image_of((40, 100, 200), 64, 48).convert("CMYK").save(buffer, "JPEG")
            data = buffer.getvalue()
        case _:
            data = red_jpeg(40) + b"trailing"
    before = server.metric(DECODED, decoder="image_threads")

    answer = server.predict("classifier", data)

    assert red_of(answer.json()["predictions"][0]) == red_on_cpu(data)
    assert server.metric(DECODED, decoder="image_threads") == before + 1
    server.wait_idle()


def test_decoding_by_the_worker_counts_as_decoding(server: Server) -> None:
    timings = server.predict("classifier", red_jpeg(40, width=1600, height=1200)).json()["timings_ms"]

    # the header alone takes a fraction of a millisecond, two megapixels several
    assert timings["decode"] > 1
