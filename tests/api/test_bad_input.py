"""Bad input, and that its neighbours in the same batch and at the same time are unharmed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.images import (
    NOT_FINITE_PNG,
    POISON_PNG,
    b64,
    encoded,
    image_files,
    image_of,
    json_body,
    png_bomb,
    red_of,
    red_png,
    scene_jpeg,
)
from tests.support.problems import is_problem
from tests.support.requests import at_once
from tests.support.server import Server

PREDICT = "/v1/models/classifier/predict"
MAX_IMAGES = 16

_JPEG = scene_jpeg(256, 192)
_BIG_PNG = encoded(image_of((1, 2, 200), 200, 200), "PNG")
BAD_IMAGES: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 422, "empty"),
    "truncated-jpeg-header": (_JPEG[:40], 422, "JPEG"),
    "truncated-jpeg": (_JPEG[: len(_JPEG) // 2], 422, "truncated"),
    "truncated-png": (_BIG_PNG[:60], 422, "PNG"),
    "png-bomb": (png_bomb(60_000, 60_000), 422, "SACCADE_MAX_PIXELS"),
    "png-bomb-one-side": (png_bomb(2_000_000_000, 1), 422, "pixels"),
    "text": (b"this is not an image at all", 422, "not a JPEG, PNG, WebP or BMP"),
    "html": (b"<!doctype html><img src=x>", 422, "not a JPEG"),
    "gif": (encoded(image_of((1, 1, 1)), "GIF"), 415, "GIF images are not taken"),
    "magic-only-jpeg": (b"\xff\xd8\xff", 422, "JPEG"),
    "magic-only-png": (b"\x89PNG\r\n\x1a\n", 422, "PNG"),
    "magic-only-bmp": (b"BM", 422, "BMP"),
    "magic-only-webp": (b"RIFF\0\0\0\0WEBP", 422, "WEBP"),
    "png-with-damaged-pixels": (_BIG_PNG[:50] + b"\0" * 20 + _BIG_PNG[70:], 422, "PNG"),
    "kills-the-batch": (POISON_PNG, 500, "failed on this image"),
    "answered-with-nan": (NOT_FINITE_PNG, 500, "not finite (scores)"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_alone_is_a_problem(server: Server, name: str) -> None:
    image, status, words = BAD_IMAGES[name]
    assert words in is_problem(server.predict("classifier", image), status)["detail"]


@pytest.mark.parametrize("name", BAD_IMAGES)
@pytest.mark.parametrize("form", ["json", "multipart"])
def test_a_bad_image_among_good_ones_fails_alone(server: Server, name: str, form: str) -> None:
    image, status, words = BAD_IMAGES[name]
    images = (red_png(11), image, red_png(22), red_png(33))
    arguments = {"json": json_body(*images)} if form == "json" else {"files": image_files(*images)}
    response = server.client.post(PREDICT, **arguments)
    document = response.json()
    assert response.status_code == 200
    failed = document["predictions"].pop(1)["error"]
    assert (failed["status"], failed["request_id"]) == (status, document["request_id"])
    assert words in failed["detail"]
    assert [red_of(prediction) for prediction in document["predictions"]] == [11, 22, 33]


def test_answers_that_are_no_numbers_are_counted(server: Server) -> None:
    before = server.metric("saccade_nonfinite_total")
    server.predict("detector", NOT_FINITE_PNG)
    server.client.post(PREDICT, json=json_body(red_png(11), NOT_FINITE_PNG))
    assert server.metric("saccade_nonfinite_total") - before == 2


def test_bad_requests_at_the_same_time_leave_good_ones_alone(server: Server) -> None:
    work: list[tuple[bytes, int, int]] = []  # image, status, red
    for index, (image, status, _) in enumerate(BAD_IMAGES.values()):
        work += [(red_png(10 + index), 200, 10 + index), (image, status, -1), (red_png(100 + index), 200, 100 + index)]

    def outcome(item: tuple[bytes, int, int]) -> tuple[int, int]:
        response = server.predict("classifier", item[0])
        red = red_of(response.json()["predictions"][0]) if response.status_code == 200 else -1
        return response.status_code, red

    assert at_once(outcome, work, 16) == [(status, red) for _, status, red in work]


def test_all_images_of_a_request_may_fail(server: Server) -> None:
    document = server.client.post(PREDICT, json=json_body(b"x", b"")).json()
    assert [prediction["error"]["status"] for prediction in document["predictions"]] == [422, 422]


def test_an_empty_body_is_a_problem_in_every_form(server: Server) -> None:
    is_problem(server.client.post(PREDICT), 422)
    is_problem(server.predict("classifier", b"", headers={"Content-Type": "application/json"}), 400)
    is_problem(server.client.post(PREDICT, files=image_files(b"")), 422)
    is_problem(server.predict("classifier", b"", headers={"Content-Type": "multipart/form-data; boundary=x"}), 400)


@pytest.mark.parametrize("content_type", ["text/plain", "application/pdf", "video/mp4", "nonsense"])
def test_a_wrong_content_type_is_refused_with_those_allowed(server: Server, content_type: str) -> None:
    response = server.predict("classifier", red_png(1), headers={"Content-Type": content_type})
    assert "image/jpeg" in is_problem(response, 415)["detail"]


# JSON bodies


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "JSON"),
        (b"", 400, "JSON"),
        (b"\xff\xfe{}", 400, "JSON"),
        (b"[]", 400, "expected"),
        (b"null", 400, "expected"),
        (b"{}", 400, "images"),
        (b'{"images": []}', 400, "no image"),
        (b'{"images": {}}', 400, "images"),
        (b'{"images": [5]}', 400, "images"),
        (b'{"images": [{}]}', 400, "no b64"),
        (b'{"images": [{"b64": 5}]}', 400, "b64"),
        (b'{"images": [{"b64": "***"}]}', 400, "base64"),
        (b'{"images": [{"b64": "a"}]}', 400, "base64"),
        (b'{"images": [{"url": "http://127.0.0.1/x.jpg"}]}', 422, "does not fetch"),
        (b'{"images": [{"file": "/etc/passwd"}]}', 400, "file"),
        (b'{"images": [{"b64": ""}], "more": 1}', 400, "more"),
        (b'{"images": [{"b64": ""}], "parameters": 5}', 400, "parameters"),
        (b"[" * 100_000, 400, ""),
        (b'{"images": ' + b'[{"b64": ""},' * 50_000, 400, ""),
    ],
)
def test_a_bad_json_body_says_what_is_wrong(server: Server, body: bytes, status: int, words: str) -> None:
    response = server.predict("classifier", body, headers={"Content-Type": "application/json"})
    assert words in is_problem(response, status)["detail"]


def test_bad_base64_fails_only_its_own_image(server: Server) -> None:
    body = {
        "images": [{"b64": b64(red_png(12))}, {"b64": "not base64!"}, {"url": "http://x"}, {"b64": b64(red_png(13))}]
    }
    first, second, third, fourth = server.client.post(PREDICT, json=body).json()["predictions"]
    assert (red_of(first), red_of(fourth)) == (12, 13)
    assert (second["error"]["status"], third["error"]["status"]) == (400, 422)
    assert "images[1].b64" in second["error"]["detail"]


# Multipart bodies

_HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    "body",
    [
        b"no multipart at all",
        b"--y\r\n\r\n--y--\r\n",
        b"--x\r\n\r\ndata\r\n--x--\r\n",
        b"--x--\r\n",
        _HEAD,
        _HEAD + b"data without an end",
        _HEAD + red_png(1) + b"\r\n" + _HEAD + b"the second one has no end",
        b'--x\r\nContent-Disposition: form-data; name="other"; filename="a"\r\n\r\ndata\r\n--x--\r\n',
    ],
)
def test_a_damaged_multipart_body_is_a_problem(server: Server, body: bytes) -> None:
    response = server.predict("classifier", body, headers={"Content-Type": "multipart/form-data; boundary=x"})
    is_problem(response, 400)


def test_multipart_without_a_boundary_is_a_problem(server: Server) -> None:
    response = server.predict("classifier", b"--x--", headers={"Content-Type": "multipart/form-data"})
    assert "boundary" in is_problem(response, 400)["detail"]


@pytest.mark.parametrize("count", [MAX_IMAGES + 1, MAX_IMAGES + 4])
@pytest.mark.parametrize("form", ["json", "multipart"])
def test_too_many_images_are_refused_with_the_limit(server: Server, form: str, count: int) -> None:
    images = [red_png(1)] * count
    arguments = {"json": json_body(*images)} if form == "json" else {"files": image_files(*images)}
    problem = is_problem(server.client.post(PREDICT, **arguments), 422)
    assert "SACCADE_MAX_IMAGES_PER_REQUEST" in problem["detail"]


def test_as_many_images_as_allowed_are_answered(server: Server) -> None:
    document = server.client.post(PREDICT, json=json_body(*[red_png(9)] * MAX_IMAGES)).json()
    assert [red_of(prediction) for prediction in document["predictions"]] == [9] * MAX_IMAGES


# Names and parameters


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/models/nobody/predict", "classifier, detector, instances, segmenter"),
        ("/v1/models/classifier/versions/9/predict", "1, 2"),
        ("/v1/models/classifier/versions/01/predict", "1, 2"),
        ("/v1/models/classifier/versions/latest/predict", "1, 2"),
        ("/v1/models/classifier/labels/canary/predict", "stable"),
        ("/v1/models/%00%ff%2e%2e/predict", "classifier"),
        ("/v1/models/" + "x" * 3000 + "/predict", "classifier"),
    ],
)
def test_an_unknown_name_is_answered_with_those_that_exist(server: Server, path: str, words: str) -> None:
    assert words in is_problem(server.client.post(path, content=red_png(1)), 404)["detail"]


PARAMETERS = [
    ("classifier", "top_k", -1, "1 to 10"),
    ("classifier", "top_k", 0, "1 to 10"),
    ("classifier", "top_k", 11, "1 to 10"),
    ("classifier", "top_k", 10**400, "top_k"),
    ("classifier", "top_k", 2.5, "top_k"),
    ("classifier", "top_k", "many", "top_k"),
    ("classifier", "top_k", "", "top_k"),
    ("classifier", "score_threshold", 0.5, "does not apply"),
    ("classifier", "mask_format", "rle", "does not apply"),
    ("classifier", "colour", "red", "unknown parameter"),
    ("classifier", "deadline_ms", -5, "deadline_ms"),
    ("classifier", "deadline_ms", 60_001, "60000"),
    ("classifier", "deadline_ms", "nan", "deadline_ms"),
    ("classifier", "deadline_ms", "inf", "deadline_ms"),
    ("classifier", "variant", "int4", "fp32"),
    ("detector", "score_threshold", 1.5, "0 to 1"),
    ("detector", "score_threshold", -0.1, "0 to 1"),
    ("detector", "score_threshold", "nan", "score_threshold"),
    ("detector", "max_detections", 0, "1 to 8"),
    ("detector", "max_detections", 9, "1 to 8"),
    ("detector", "top_k", 1, "does not apply"),
    ("segmenter", "mask_format", "svg", "mask_format"),
    ("segmenter", "mask_format", "", "mask_format"),
]


@pytest.mark.parametrize(("model", "name", "value", "words"), PARAMETERS)
@pytest.mark.parametrize("place", ["query", "json", "multipart"])
def test_a_bad_parameter_is_refused_with_what_is_allowed(
    server: Server, model: str, name: str, value: Any, words: str, place: str
) -> None:
    path = f"/v1/models/{model}/predict"
    if place == "query":
        response = server.client.post(path, content=red_png(1), params={name: str(value)})
    elif place == "multipart":
        response = server.client.post(path, files=image_files(red_png(1)), data={name: str(value)})
    else:
        body = json.dumps(json_body(red_png(1), **{name: value}))
        response = server.predict(model, body.encode(), headers={"Content-Type": "application/json"})
    assert words in is_problem(response, 422)["detail"]


def test_a_parameter_given_twice_is_refused(server: Server) -> None:
    is_problem(server.client.post(PREDICT + "?top_k=1&top_k=2", content=red_png(1)), 422)
    is_problem(server.client.post(PREDICT + "?top_k=1", json=json_body(red_png(1), top_k=2)), 422)


def test_json_parameters_keep_their_types(server: Server) -> None:
    is_problem(server.client.post(PREDICT, json=json_body(red_png(1), top_k="3")), 422)
    is_problem(server.client.post(PREDICT, json=json_body(red_png(1), top_k=True)), 422)
    assert server.client.post(PREDICT, json=json_body(red_png(1), top_k=None)).status_code == 200


def test_a_deadline_of_nothing_is_exceeded(server: Server) -> None:
    is_problem(server.client.post(PREDICT, content=red_png(1), params={"deadline_ms": "0"}), 504)


# Methods and paths


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", PREDICT, "POST"),
        ("PUT", PREDICT, "POST"),
        ("DELETE", "/v1/models/classifier", "GET"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/metrics", "GET"),
        ("POST", "/health/live", "GET"),
    ],
)
def test_a_wrong_method_is_refused_with_those_allowed(server: Server, method: str, path: str, allowed: str) -> None:
    response = server.client.request(method, path)
    is_problem(response, 405)
    assert allowed in response.headers["allow"]


@pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/models/classifier/explain", "/v3/models", "/health"])
def test_an_unknown_path_is_a_problem(server: Server, path: str) -> None:
    assert path in is_problem(server.client.get(path), 404)["detail"]
    is_problem(server.client.post(path, content=b"x"), 404)


def test_an_unknown_model_is_a_problem_also_when_asked_for_its_figures(server: Server) -> None:
    assert "classifier" in is_problem(server.client.get("/v1/models/nobody"), 404)["detail"]
