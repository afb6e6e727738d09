"""Good requests: three kinds of body, parameters, three tasks, every kind of image."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from tests.support.images import encoded, image_files, image_of, json_body, red_of, red_png, scene_jpeg
from tests.support.requests import at_once
from tests.support.server import Server

STAGES = {"decode", "queue", "infer", "postprocess", "total"}
MODELS = ("classifier", "detector", "segmenter", "instances")


def send_raw(server: Server, model: str, image: bytes, **query: str) -> httpx.Response:
    return server.predict(model, image, params=query)


def send_multipart(server: Server, model: str, image: bytes, **query: str) -> httpx.Response:
    return server.client.post(f"/v1/models/{model}/predict", files=image_files(image), params=query)


def send_json(server: Server, model: str, image: bytes, **query: str) -> httpx.Response:
    return server.client.post(f"/v1/models/{model}/predict", json=json_body(image), params=query)


FORMS = (send_raw, send_multipart, send_json)


@pytest.mark.parametrize("model", MODELS)
def test_raw_multipart_and_json_bodies_answer_identically(server: Server, model: str) -> None:
    image = scene_jpeg(48, 40)
    answers = [send(server, model, image).json() for send in FORMS]
    assert answers[0]["predictions"] == answers[1]["predictions"] == answers[2]["predictions"]
    assert {tuple(answer) for answer in answers} == {tuple(answers[0])}


@pytest.mark.parametrize("send", FORMS)
def test_an_answer_names_what_answered_and_how_long_it_took(
    server: Server, send: Callable[..., httpx.Response]
) -> None:
    response = send(server, "classifier", red_png(77))
    document = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert (document["model"], document["version"], document["variant"]) == ("classifier", "2", "fp32")
    assert document["request_id"] == response.headers["x-request-id"]
    assert set(document["timings_ms"]) == STAGES
    assert all(milliseconds >= 0 for milliseconds in document["timings_ms"].values())
    assert document["timings_ms"]["total"] >= document["timings_ms"]["queue"]
    entries = dict(entry.split(";dur=") for entry in response.headers["server-timing"].split(", "))
    assert {name: float(value) for name, value in entries.items()} == document["timings_ms"]


@pytest.mark.parametrize(
    "content_type",
    ["image/png", "image/jpeg", "application/octet-stream", "application/x-www-form-urlencoded", "IMAGE/PNG; a=b"],
)
def test_content_types_of_raw_images_are_taken(server: Server, content_type: str) -> None:
    response = server.predict("classifier", red_png(31), headers={"Content-Type": content_type})
    assert red_of(response.json()["predictions"][0]) == 31


def test_a_raw_body_without_a_content_type_is_an_image(server: Server) -> None:
    request = server.client.build_request("POST", "/v1/models/classifier/predict", content=red_png(32))
    assert "content-type" not in request.headers
    assert red_of(server.client.send(request).json()["predictions"][0]) == 32


@pytest.mark.parametrize("form", ["json", "multipart"])
def test_several_images_are_answered_in_order(server: Server, form: str) -> None:
    reds = [10, 200, 30, 180, 50, 160, 70]
    images = [red_png(red) for red in reds]
    arguments = {"json": json_body(*images)} if form == "json" else {"files": image_files(*images)}
    document = server.client.post("/v1/models/classifier/predict", **arguments).json()
    assert [red_of(prediction) for prediction in document["predictions"]] == reds


def test_many_clients_each_get_their_own_answer(server: Server) -> None:
    before = server.metric("saccade_batch_size_count"), server.metric("saccade_batch_size_sum")

    def seen(red: int) -> int:
        return red_of(server.predict("classifier", red_png(red)).json()["predictions"][0])

    reds = list(range(0, 250, 5))
    assert at_once(seen, reds, 16) == reds

    def images_counted() -> bool:
        return server.metric("saccade_batch_size_sum") - before[1] >= len(reds)

    assert images_counted()
    assert server.metric("saccade_batch_size_count") - before[0] < len(reds), "no batch was shared"


# Parameters


def test_parameters_in_query_multipart_field_and_json_do_the_same(server: Server) -> None:
    path = "/v1/models/classifier/predict"
    image = red_png(90)
    answers = [
        server.predict("classifier", image, params={"top_k": "3"}),
        server.client.post(path, files=image_files(image), data={"top_k": "3"}),
        server.client.post(path, files=image_files(image), params={"top_k": "3"}),
        server.client.post(path, json=json_body(image, top_k=3)),
        server.client.post(path, json=json_body(image), params={"top_k": "3"}),
        server.client.post(path, json=json_body(image, top_k=3), params={"top_k": "3"}),
    ]
    assert [answer.status_code for answer in answers] == [200] * 6
    assert [len(answer.json()["predictions"][0]["classes"]) for answer in answers] == [3] * 6


def test_top_k_defaults_to_five_and_goes_up_to_the_model(server: Server) -> None:
    assert len(server.predict("classifier", red_png(1)).json()["predictions"][0]["classes"]) == 5
    assert len(send_raw(server, "classifier", red_png(1), top_k="10").json()["predictions"][0]["classes"]) == 10


def test_score_threshold_and_max_detections_narrow_a_detection(server: Server) -> None:
    image = red_png(128)  # the fake detector answers one box with score 128 / 255

    def boxes(**query: str) -> list[object]:
        found: list[object] = send_raw(server, "detector", image, **query).json()["predictions"][0]["detections"]
        return found

    assert len(boxes()) == 1
    assert len(boxes(score_threshold="0.5", max_detections="1")) == 1
    assert boxes(score_threshold="0.51") == []


def test_the_variant_that_is_loaded_may_be_pinned(server: Server) -> None:
    assert send_raw(server, "classifier", red_png(1), variant="fp32").status_code == 200


def test_paths_by_version_and_by_label(server: Server) -> None:
    image = red_png(5)
    assert server.predict("classifier", image, path="versions/1/predict").json()["version"] == "1"
    assert server.predict("classifier", image, path="versions/2/predict").json()["version"] == "2"
    assert server.predict("classifier", image, path="labels/stable/predict").json()["version"] == "2"


# Tasks


def test_boxes_come_in_source_pixels(server: Server) -> None:
    # 32 model pixels stand for 96 source pixels; the fake box is (20, 20, 20, 20) in model pixels
    prediction = server.predict("detector", red_png(20, 96, 96), params={"score_threshold": "0"}).json()["predictions"][
        0
    ]
    assert (prediction["width"], prediction["height"]) == (96, 96)
    assert prediction["detections"][0]["box"] == pytest.approx([60.0] * 4)
    assert prediction["detections"][0]["label"] == "0"


@pytest.mark.parametrize(("width", "height"), [(90, 30), (30, 90)])
def test_boxes_of_non_square_images_stay_inside(server: Server, width: int, height: int) -> None:
    # A letterboxed image begins with padding, so the fake box lies at 114, beyond the image: clipped to its corner
    prediction = server.predict("detector", red_png(20, width, height)).json()["predictions"][0]
    assert (prediction["width"], prediction["height"]) == (width, height)
    assert prediction["detections"][0]["box"] == [width, height, width, height]


def test_nothing_found_is_an_empty_list(server: Server) -> None:
    assert server.predict("detector", red_png(3)).json()["predictions"][0] == {
        "width": 32,
        "height": 32,
        "detections": [],
    }
    assert server.predict("segmenter", red_png(3)).json()["predictions"][0] == {
        "width": 32,
        "height": 32,
        "segments": [],
    }


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools under numpy 2
def test_mask_formats(server: Server) -> None:
    image = red_png(200, 50, 50)  # the fake segmenter: class 1 everywhere

    def answer(mask_format: str) -> dict[str, object]:
        response = send_raw(server, "segmenter", image, mask_format=mask_format)
        prediction: dict[str, object] = response.json()["predictions"][0]
        return prediction

    rle = answer("rle")["segments"][0]
    assert (rle["label"], rle["class_id"], rle["area"]) == ("0", 1, 2500)
    assert rle["rle"]["size"] == [50, 50]
    assert int(coco_mask.decode(rle["rle"]).sum()) == 2500
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer("png")["mask_png"]))))
    assert mask.shape == (50, 50)
    assert np.unique(mask).tolist() == [1]
    polygon = answer("polygon")["segments"][0]["polygons"][0]
    assert polygon["holes"] == []
    corners = np.array(polygon["exterior"])
    assert corners.min() >= 0
    assert corners.max() <= 50
    none = answer("none")
    assert set(none) == {"width", "height", "segments"}
    assert set(none["segments"][0]) == {"label", "class_id", "area"}
    assert rle == send_raw(server, "segmenter", image).json()["predictions"][0]["segments"][0], "rle is the default"


# Kinds of image


def _palette() -> bytes:
    return encoded(image_of((120, 60, 30)).quantize(8), "PNG")


def _palette_with_transparency() -> bytes:
    return encoded(image_of((120, 60, 30)).quantize(8), "PNG", transparency=0)


KINDS = {
    "cmyk": (encoded(Image.new("CMYK", (40, 32), (0, 255, 255, 0)), "JPEG", quality=95), 254, (40, 32)),
    "grey-16-bit": (encoded(Image.fromarray(np.full((32, 32), 0x8123, np.uint16)), "PNG"), 0x81, (32, 32)),
    "palette": (_palette(), 120, (32, 32)),
    "palette-with-transparency": (_palette_with_transparency(), 120, (32, 32)),
    "alpha": (encoded(Image.new("RGBA", (32, 32), (140, 1, 1, 3)), "PNG"), 140, (32, 32)),
    "grey-alpha": (encoded(Image.new("LA", (32, 32), (141, 0)), "PNG"), 141, (32, 32)),
    "greyscale-png": (encoded(Image.new("L", (32, 32), 99), "PNG"), 99, (32, 32)),
    "greyscale-jpeg": (encoded(Image.new("L", (32, 32), 99), "JPEG"), 99, (32, 32)),
    "one-bit": (encoded(Image.new("1", (32, 32), 1), "PNG"), 255, (32, 32)),
    "webp": (encoded(image_of((88, 99, 77)), "WEBP", lossless=True), 88, (32, 32)),
    "bmp": (encoded(image_of((89, 99, 77)), "BMP"), 89, (32, 32)),
    "progressive-jpeg": (encoded(image_of((128, 128, 128)), "JPEG", progressive=True), 128, (32, 32)),
    "one-pixel-png": (red_png(66, 1, 1), 66, (1, 1)),
    "one-pixel-jpeg": (encoded(image_of((66, 66, 66), 1, 1), "JPEG"), 66, (1, 1)),
    "wide-12000x20": (red_png(55, 12000, 20), 55, (12000, 20)),
    "tall-20x12000": (encoded(image_of((55, 55, 55), 20, 12000), "JPEG"), 55, (20, 12000)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_image_is_read_as_rgb(server: Server, kind: str) -> None:
    image, red, size = KINDS[kind]
    response = server.predict("classifier", image)
    assert response.status_code == 200, response.text
    prediction = response.json()["predictions"][0]
    assert (prediction["width"], prediction["height"]) == size
    assert red_of(prediction) == pytest.approx(red, abs=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model", ["detector", "segmenter"])
def test_every_kind_of_image_is_letterboxed_and_mapped_back(server: Server, kind: str, model: str) -> None:
    image, _, size = KINDS[kind]
    response = server.predict(model, image)
    assert response.status_code == 200, response.text
    prediction = response.json()["predictions"][0]
    assert (prediction["width"], prediction["height"]) == size


def test_exotic_images_share_a_batch_with_plain_ones(server: Server) -> None:
    images = [item for image, _, _ in list(KINDS.values())[:8] for item in (image, red_png(47))]
    document = server.client.post("/v1/models/classifier/predict", json=json_body(*images)).json()
    assert [red_of(prediction) for prediction in document["predictions"][1::2]] == [47] * 8


@pytest.mark.parametrize(("orientation", "upright"), [(1, (64, 32)), (3, (64, 32)), (6, (32, 64)), (8, (32, 64))])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_exif_rotation_is_applied(
    server: Server, orientation: int, upright: tuple[int, int], image_format: str
) -> None:
    # The left half is dark, the right half bright; the fake backend looks at the upright image's first pixel.
    image = image_of((50, 50, 50), 64, 32)
    image.paste((200, 200, 200), (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = orientation
    response = server.predict("classifier", encoded(image, image_format, exif=exif))
    prediction = response.json()["predictions"][0]
    assert (prediction["width"], prediction["height"]) == upright
    expected = {1: 50, 3: 200, 6: 50, 8: 200}[orientation]
    assert red_of(prediction) == pytest.approx(expected, abs=3)
