"""How pictures travel to peers, and when their answers count as the same."""

from __future__ import annotations

import json

import pytest

from saccade.service.bench.workload import endpoint_of
from tests.load.peers.wire import (
    Class,
    Served,
    Wire,
    WrongAnswer,
    classes_of,
    ensure_same,
    request_of,
    served_by,
    workload_of,
)

JPEG = b"\xff\xd8\xffpicture"
CLASSES = [{"label": "cat", "class_id": 3, "score": 0.75}, {"label": "dog", "class_id": 1, "score": 0.125}]
BEST = (Class(3, 0.75), Class(1, 0.125))
ANSWERS = {
    Wire.SACCADE: {"predictions": [{"width": 2, "classes": CLASSES}]},
    Wire.RAW: {"classes": CLASSES},
    Wire.BENTOML: [{"classes": CLASSES}],
    Wire.TRITON: {"outputs": [{"name": "answer", "data": [json.dumps({"classes": CLASSES})]}]},
}


@pytest.mark.parametrize("wire", list(Wire))
def test_every_request_carries_the_same_bytes_of_image(wire: Wire) -> None:
    assert JPEG in request_of(wire, "resnet50", JPEG).content


def test_triton_finds_its_json_and_the_length_of_the_image_before_the_image() -> None:
    request = request_of(Wire.TRITON, "resnet50", JPEG)

    head_bytes = int(dict(request.headers)["Inference-Header-Content-Length"])
    head = json.loads(request.content[:head_bytes])
    tensor = request.content[head_bytes:]

    assert head["inputs"][0]["parameters"]["binary_data_size"] == len(tensor)
    assert int.from_bytes(tensor[:4], "little") == len(JPEG)
    assert tensor[4:] == JPEG


def test_only_a_server_that_knows_deadlines_is_told_one() -> None:
    assert request_of(Wire.SACCADE, "resnet50", JPEG, 200.0).path == "/v1/models/resnet50/predict?deadline_ms=200"
    assert "deadline" not in request_of(Wire.RAW, "resnet50", JPEG, 200.0).path


def test_the_load_client_gets_whole_http_requests() -> None:
    (item,) = workload_of(
        [request_of(Wire.RAW, "resnet50", JPEG)], "resnet50", endpoint_of("http://127.0.0.1:8123")
    ).items

    assert item.head.startswith(b"POST /classify HTTP/1.1\r\nHost: 127.0.0.1:8123\r\n")
    assert f"\r\nContent-Length: {len(JPEG)}\r\n\r\n".encode() in item.head
    assert item.content == JPEG


@pytest.mark.parametrize("wire", list(Wire))
def test_answers_of_every_form_are_read_alike(wire: Wire) -> None:
    assert classes_of(wire, json.dumps(ANSWERS[wire]).encode()) == BEST


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"Internal Server Error", b'{"classes": [{"class_id": 1}]}'])
@pytest.mark.parametrize("wire", list(Wire))
def test_anything_else_is_a_wrong_answer(wire: Wire, body: bytes) -> None:
    with pytest.raises(WrongAnswer, match="not an answer of"):
        classes_of(wire, body)


@pytest.mark.parametrize(
    "got",
    [BEST, (Class(3, 0.7504), Class(1, 0.1246)), (Class(3, 0.75), Class(8, 0.1254))],
    ids=["equal", "rounded", "another class as good as the last one"],
)
def test_answers_within_the_tolerance_are_the_same(got: tuple[Class, ...]) -> None:
    ensure_same(BEST, got, 1e-3)


@pytest.mark.parametrize(
    ("got", "reason"),
    [
        ((Class(3, 0.75),), "1 classes, expected 2"),
        ((Class(3, 0.74), Class(1, 0.125)), "class 3 has 0.74"),
        ((Class(8, 0.75), Class(1, 0.125)), "class 8 with 0.75"),
        ((Class(1, 0.125), Class(3, 0.75)), "place 1 has 0.125"),
    ],
)
def test_other_classes_scores_or_order_are_wrong(got: tuple[Class, ...], reason: str) -> None:
    with pytest.raises(WrongAnswer, match=reason):
        ensure_same(BEST, got, 1e-3)


def model_with(*instances: tuple[str, str]) -> bytes:
    found = [{"variant": variant, "backend": backend} for variant, backend in instances]
    return json.dumps({"versions": [{"instances": found}]}).encode()


def test_saccade_says_what_it_chose_once_for_all_devices() -> None:
    body = model_with(*[("int8-openvino", "openvino")] * 2)

    assert served_by(body, ["int8-cpu", "int8-openvino"]) == Served("int8-openvino", "openvino")


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (model_with(("fp32", "onnxruntime")), "serves fp32 in onnxruntime; the network of the peers is int8-cpu"),
        (model_with(("fp32", "onnxruntime"), ("int8-cpu", "onnxruntime")), "serves fp32 in onnxruntime, int8-cpu in"),
        (model_with(), "serves nothing"),
        (b'{"detail": "not found"}', "not a model of saccade"),
        (b"", "not a model of saccade"),
    ],
    ids=["another precision", "two at once", "not loaded", "no such model", "no answer"],
)
def test_another_network_than_that_of_the_peers_is_not_measured(body: bytes, reason: str) -> None:
    with pytest.raises(WrongAnswer, match=reason):
        served_by(body, ["int8-cpu"])
