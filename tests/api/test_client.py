"""`saccade.client` against a real server: every task, several pictures, refusals, both kinds of client."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.client import (
    AnyPrediction,
    AsyncClient,
    Classification,
    Client,
    Detections,
    KeyRefused,
    MalformedRequest,
    NoAnswer,
    NotFound,
    Problem,
    Segmentation,
    Unprocessable,
)
from tests.support.images import POISON_PNG, encoded, red_of, red_png
from tests.support.server import Server, running_server
from tests.support.versions import SIDE, publish_fake


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.base_url) as client:
        yield client


def red(prediction: AnyPrediction | Problem) -> int:
    """What the fake backend answered by."""
    assert not isinstance(prediction, Problem)
    return red_of(dict(prediction.document))


def red_pixels(value: int) -> np.ndarray:
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    pixels[:] = (value, 100, 200)
    return pixels


def test_every_form_of_a_picture_is_answered_alike(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(red_png(77))
    pixels = red_pixels(77)
    forms = (path, str(path), red_png(77), pixels, Image.fromarray(pixels), io.BytesIO(red_png(77)))

    assert [red(client.predict(form, model="classifier")) for form in forms] == [77] * len(forms)


def test_an_answer_says_who_made_it(client: Client) -> None:
    found = client.predict(red_png(204), model="classifier", version=1, top_k=2)

    assert isinstance(found, Classification)
    assert [item.score for item in found.classes] == [pytest.approx(0.8, abs=0.01)] * 2
    assert (found.width, found.height, found.warning) == (SIDE, SIDE, "")
    assert (found.served.model, found.served.version, found.served.variant) == ("classifier", "1", "fp32")
    assert found.served.timings_ms["total"] > 0


@pytest.mark.parametrize("mask_format", ["rle", "png", "polygon"])
@pytest.mark.parametrize("model", ["segmenter", "instances"])
def test_masks_come_as_arrays_whatever_form_they_travel_in(client: Client, model: str, mask_format: str) -> None:
    found = client.predict(red_pixels(204), model=model, mask_format=mask_format)

    assert isinstance(found, Segmentation | Detections)
    items = found.segments if isinstance(found, Segmentation) else found.detections
    assert items
    for item in items:
        assert item.mask.shape == (SIDE, SIDE)
        assert item.mask.sum() == item.area
    assert np.asarray(found.draw(red_pixels(204))).shape == (SIDE, SIDE, 3)


def test_boxes_are_drawn(client: Client) -> None:
    found = client.predict(red_pixels(204), model="detector")

    assert isinstance(found, Detections)
    assert (found.detections[0].score, found.detections[0].has_mask) == (pytest.approx(0.8, abs=0.01), False)
    assert (np.asarray(found.draw(red_pixels(204))) != red_pixels(204)).any()


def test_a_turned_photo_is_drawn_as_the_server_saw_it(client: Client) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    photo = encoded(Image.new("RGB", (60, 40), (204, 100, 200)), "JPEG", exif=exif)

    found = client.predict(photo, model="instances")

    assert isinstance(found, Detections)
    assert (found.width, found.height) == (40, 60)
    assert found.detections[0].mask.shape == (60, 40)
    assert found.draw(photo).size == (40, 60)


def test_several_pictures_are_answered_in_order_and_fail_alone(client: Client) -> None:
    given = [red_png(10), b"no picture", red_pixels(30), POISON_PNG]

    first, second, third, fourth = client.predict_many(given, model="classifier")

    assert (red(first), red(third)) == (10, 30)
    assert isinstance(second, Unprocessable | MalformedRequest)
    assert isinstance(fourth, Problem)
    assert fourth.title == "Inference failed"


def test_one_picture_among_several_fails_in_its_place_too(client: Client) -> None:
    (failed,) = client.predict_many([b"no picture"], model="classifier")

    assert isinstance(failed, Problem)
    with pytest.raises(Problem):
        client.predict(b"no picture", model="classifier")


def test_refusals_have_types_and_say_what_to_change(client: Client) -> None:
    with pytest.raises(NotFound, match="classifier") as unknown:
        client.predict(red_png(1), model="nobody")
    with pytest.raises(Unprocessable, match="allowed are 1 to 10"):
        client.predict_many([red_png(1)], model="classifier", top_k=99)

    assert (unknown.value.status, unknown.value.title) == (404, "Not found")
    assert unknown.value.request_id


def test_models_are_listed_and_shown(client: Client) -> None:
    shown = client.model("classifier")

    assert {model.name: model.task for model in client.models()} == {
        "classifier": "classify",
        "detector": "detect",
        "instances": "segment-instances",
        "segmenter": "segment",
    }
    assert [(version.version, version.state) for version in shown.versions] == [("2", "ready"), ("1", "ready")]
    assert (shown.default_version, shown.class_labels[7]) == ("2", "7")
    with pytest.raises(NotFound):
        client.model("nobody")


async def test_many_at_once_over_asyncio(server: Server) -> None:
    async with AsyncClient(server.base_url) as client:
        found = await asyncio.gather(
            *(client.predict(red_pixels(value), model="classifier") for value in range(10, 200, 10))
        )
        many = await client.predict_many([red_png(5), b"no picture"], model="classifier")
        (alone,) = await client.predict_many([b"no picture"], model="classifier")
        names = [model.name for model in await client.models()]
        with pytest.raises(NotFound):
            await client.model("nobody")

    assert [red(item) for item in found] == list(range(10, 200, 10))
    assert (red(many[0]), isinstance(many[1], Problem), isinstance(alone, Problem)) == (5, True, True)
    assert "detector" in names


def test_the_key_is_given_or_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = tmp_path / "keys"
    keys.write_text("the-key", "ascii")
    repository = tmp_path / "repository"
    publish_fake(repository, "classifier", 1)
    with running_server(
        repository,
        tmp_path,
        api_keys_file=keys,
        environment={"SACCADE_CLIENT_KEY": "of a client in the server's shell"},
    ) as server:
        monkeypatch.delenv("SACCADE_CLIENT_KEY", raising=False)
        with Client(server.base_url) as nameless, pytest.raises(KeyRefused):
            nameless.predict(red_png(1), model="classifier")
        with Client(server.base_url, key="the-key") as client:
            assert red(client.predict(red_png(1), model="classifier")) == 1
        monkeypatch.setenv("SACCADE_CLIENT_KEY", "the-key")
        with Client(server.base_url.removeprefix("http://")) as client:
            assert red(client.predict(red_png(2), model="classifier")) == 2


def test_nobody_listens() -> None:
    with Client("127.0.0.1:9", retries=0) as client, pytest.raises(NoAnswer, match=r"127\.0\.0\.1:9") as failed:
        client.models()

    assert not failed.value.was_sent
