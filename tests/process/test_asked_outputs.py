"""A served version answers with more than its task's answer, and only to those who ask."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.models.contract.specs import Task
from saccade.service.api.canary import is_drawn
from tests.support.images import red_png
from tests.support.server import Server, running_server
from tests.support.versions import EXPLANATION, UNFAMILIARITY, manifest_for, publish, publish_fake, with_extras


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("repository")
    publish(root, with_extras(manifest_for("digits", 1), EXPLANATION))
    publish(root, with_extras(manifest_for("wary", 1), EXPLANATION, UNFAMILIARITY))
    publish(root, with_extras(manifest_for("finder", 1, Task.DETECT), EXPLANATION))
    publish_fake(root, "plain", 1)
    with running_server(root, tmp_path_factory.mktemp("server")) as running:
        yield running


def predict(server: Server, model: str, width: int = 32, height: int = 32, **parameters: str) -> dict[str, object]:
    answer = server.client.post(
        f"/v1/models/{model}/predict", content=red_png(200, width, height), params=parameters
    ).raise_for_status()
    prediction: dict[str, object] = answer.json()["predictions"][0]
    return prediction


def test_an_explanation_comes_only_with_the_answers_that_asked(server: Server) -> None:
    plain, explained = predict(server, "digits"), predict(server, "digits", explain="grid")
    explanation = explained.pop("explanation")
    assert plain == explained
    assert explanation == {
        "method": "class activation",
        "rows": 4,
        "columns": 4,
        "box": [0.0, 0.0, 32.0, 32.0],
        "grid": base64.b64encode(bytes([255] * 16)).decode(),  # the fake backend's map is flat
    }


def test_the_grid_has_its_place_in_the_picture_that_was_sent(server: Server) -> None:
    explained = predict(server, "finder", width=128, height=64, explain="grid")
    assert explained["explanation"]["box"] == [0.0, -32.0, 128.0, 96.0]  # type: ignore[index]  # bars above and below


def test_the_png_covers_the_picture(server: Server) -> None:
    explained = predict(server, "finder", width=128, height=64, explain="png")
    png = Image.open(io.BytesIO(base64.b64decode(explained["explanation"]["png"])))  # type: ignore[index]
    assert (png.size, png.mode) == ((16, 8), "L")  # four pixels for each of four cells, in the picture's shape


def test_images_of_one_request_are_explained_each(server: Server) -> None:
    files = [("image", (f"{red}.png", red_png(red))) for red in (0, 9)]
    answer = server.client.post("/v1/models/digits/predict", files=files, params={"explain": "grid"})
    grids = [base64.b64decode(each["explanation"]["grid"]) for each in answer.json()["predictions"]]
    assert grids == [bytes(16), bytes([255] * 16)]


@pytest.mark.parametrize(
    ("model", "word", "told"),
    [("plain", "grid", "plain/1 cannot explain its answers"), ("digits", "saliency", "explain")],
)
def test_what_cannot_be_explained_is_refused_in_words(server: Server, model: str, word: str, told: str) -> None:
    answer = server.client.post(f"/v1/models/{model}/predict", content=red_png(200), params={"explain": word})
    assert (answer.status_code, answer.json()["title"]) == (422, "Bad parameter")
    assert told in answer.json()["detail"]


def test_models_say_what_they_give(server: Server) -> None:
    gives = {
        model: server.client.get(f"/v1/models/{model}").json()["versions"][0]["gives"] for model in ("digits", "plain")
    }
    assert gives == {"digits": ["explain"], "plain": []}


def test_the_open_inference_protocol_gives_the_output_by_its_name(server: Server) -> None:
    pixels = np.full((1, 32, 32, 3), 7, np.uint8)
    request = {"inputs": [{"name": "images", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": pixels.tolist()}]}
    names = [each["name"] for each in server.client.get("/v2/models/digits").json()["outputs"]]
    assert names == ["scores", "class_ids", "explanation"]
    plain = server.client.post("/v2/models/digits/infer", json=request).json()
    assert [each["name"] for each in plain["outputs"]] == ["scores", "class_ids"]
    asked = {**request, "outputs": [{"name": "explanation"}]}
    (output,) = server.client.post("/v2/models/digits/infer", json=asked).json()["outputs"]
    assert (output["shape"], set(output["data"])) == ([1, 4, 4], {7.0})
    refused = server.client.post("/v2/models/plain/infer", json=asked)
    assert "unexpected inference output 'explanation'" in refused.json()["error"]


def test_trust_says_whether_each_picture_is_familiar(server: Server) -> None:
    files = [("image", (f"{red}.png", red_png(red))) for red in (0, 9)]  # the fake backend's score is the red
    answer = server.client.post("/v1/models/wary/predict", files=files, params={"trust": "true", "explain": "grid"})
    trusts = [each["trust"] for each in answer.json()["predictions"]]
    assert trusts == [
        {"score": 0.0, "threshold": 1.0, "familiar": True},
        {"score": 9.0, "threshold": 1.0, "familiar": False},
    ]


def test_trust_is_left_out_of_answers_that_did_not_ask(server: Server) -> None:
    assert "trust" not in predict(server, "wary") | predict(server, "wary", trust="false")


def test_trust_without_fitted_statistics_is_refused_in_words(server: Server) -> None:
    answer = server.client.post("/v1/models/digits/predict", content=red_png(200), params={"trust": "true"})
    assert answer.status_code == 422
    assert "digits/1 cannot tell unfamiliar pictures: it was exported without it" in answer.json()["detail"]


def test_the_metric_counts_a_share_of_requests_whether_they_ask_or_not(tmp_path: Path) -> None:
    publish(tmp_path / "repository", with_extras(manifest_for("wary", 1), EXPLANATION, UNFAMILIARITY))
    publish(tmp_path / "repository", with_extras(manifest_for("digits", 1), EXPLANATION))
    ids = [f"request-{number}" for number in range(1000)]
    drawn = [each for each in ids if is_drawn(each.encode(), 0.01, b"trust")]
    others = [each for each in ids if each not in drawn][: len(drawn)]
    assert len(drawn) > 3

    def answers(model: str, **parameters: str) -> list[object]:
        found = []
        for each in (*drawn, *others):
            answer = running.client.post(
                f"/v1/models/{model}/predict",
                content=red_png(9),
                params=parameters,
                headers={"X-Request-Id": each},
            ).raise_for_status()
            found.append(answer.json()["predictions"])
        return found

    with running_server(tmp_path / "repository", tmp_path) as running:
        plain, asking = answers("wary"), answers("wary", trust="true", explain="grid")
        answers("digits")  # has no such score
        exposed = running.client.get("/metrics").text
    assert all(each == plain[0] for each in plain)
    assert all(each == asking[0] for each in asking)
    assert "trust" not in str(plain)
    assert f'saccade_unfamiliar_ratio_sum{{model="wary",version="1"}} {2.0 * len(drawn)}' in exposed
    assert f'saccade_unfamiliar_ratio_count{{model="wary",version="1"}} {2.0 * len(drawn)}' in exposed
    assert 'saccade_unfamiliar_ratio_count{model="digits"' not in exposed
