"""Quality of pictures over HTTP. Promises: said where it was asked for, and poor pictures refused with reasons."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.client import Client
from tests.support.images import image_files, red_png
from tests.support.server import Server, running_server
from tests.support.versions import manifest_for, publish


def picture(side: int = 64, contrast: int = 100) -> bytes:
    """Noise around grey."""
    pixels = np.random.default_rng(side).integers(128 - contrast, 128 + contrast, (side, side, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def strict(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(repository, tmp_path_factory.mktemp("strict"), quality="refuse") as running:
        yield running


@pytest.mark.parametrize("model", ["classifier", "detector", "segmenter", "instances"])
def test_quality_is_said_where_it_is_asked_for(server: Server, model: str) -> None:
    plain = server.predict(model, picture()).json()["predictions"][0]
    asked = server.predict(model, picture(), params={"quality": "true"}).json()["predictions"][0]
    declined = server.predict(model, picture(), params={"quality": "false"}).json()["predictions"][0]

    assert asked.pop("quality") == {"score": 1.0, "reasons": []}
    assert asked == plain == declined


def test_each_picture_of_a_request_has_its_own(server: Server) -> None:
    files = image_files(picture(), picture(16, 2))

    answer = server.client.post("/v1/models/classifier/predict", files=files, params={"quality": "true"}).json()

    good, poor = (each["quality"] for each in answer["predictions"])
    assert good["reasons"] == []
    assert [reason.partition(":")[0] for reason in poor["reasons"]] == ["blurred", "small"]
    assert poor["score"] < 0.4


def test_the_client_has_it_typed(server: Server) -> None:
    with Client(server.base_url) as client:
        asked = client.predict(red_png(200), model="classifier", quality=True)
        plain = client.predict(red_png(200), model="classifier")

    assert plain.quality is None
    assert asked.quality is not None
    assert asked.quality.score == 0.0
    assert asked.quality.reasons[0].startswith("blurred: its edges have 0, ")


def test_a_server_that_refuses_poor_pictures_answers_good_ones(strict: Server) -> None:
    good, poor = strict.predict("classifier", picture()), strict.predict("classifier", picture(16))

    assert good.status_code == 200
    assert good.json()["predictions"][0]["quality"]["reasons"] == []
    assert poor.status_code == 422
    assert poor.json()["title"] == "Image cannot be used"
    assert poor.json()["detail"] == (
        "the picture is small: its shorter side has 16 pixels, and the network's own pictures have 24 or more: send a "
        "better one"
    )


def test_a_poor_picture_does_not_cost_its_neighbours(strict: Server) -> None:
    files = image_files(picture(), red_png(200))

    good, poor = strict.client.post("/v1/models/classifier/predict", files=files).json()["predictions"]

    assert good["quality"]["score"] == 1.0
    assert poor["error"]["status"] == 422


def test_a_version_that_does_not_know_its_pictures_says_so(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish(root, manifest_for("older", 1).model_copy(update={"quality": None}))
    with running_server(root, tmp_path, quality="refuse") as running:
        asked, plain = (running.predict("older", picture(16), params=each) for each in ({"quality": "true"}, {}))
        logs = running.logs()

    assert asked.status_code == 422
    assert "export it again" in asked.json()["detail"]
    assert plain.status_code == 200
    assert "quality" not in plain.json()["predictions"][0]
    assert logs.count("version_without_quality") == 1
