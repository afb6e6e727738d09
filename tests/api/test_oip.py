"""The Open Inference Protocol v2 on the wire: its documents, its answers, batches."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from typing import Any

import numpy as np
import pytest

from tests.support.images import NOT_FINITE_PNG, POISON_PNG, b64, red_png
from tests.support.odd_pictures import TAKEN
from tests.support.oip_requests import (
    INFER,
    LENGTH,
    MODEL,
    binary_body,
    infer,
    outputs_of,
    pixel_input,
    pixels,
    reds_of,
)
from tests.support.server import Server
from tests.support.versions import SIDE

# What there is


def test_server_says_what_it_is_and_can(server: Server) -> None:
    document = server.client.get("/v2").json()

    assert document["name"] == "saccade"
    assert "binary_tensor_data" in document["extensions"]
    assert "system_shared_memory" not in document["extensions"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/v2/health/ready", MODEL + "/ready", MODEL + "/versions/1/ready"])
def test_health_is_200(server: Server, path: str) -> None:
    assert server.client.get(path).status_code == 200
    assert server.client.head(path).status_code == 200


def test_metadata_and_configuration_agree(server: Server) -> None:
    metadata, config = server.client.get(MODEL).json(), server.client.get(MODEL + "/config").json()

    assert metadata["versions"] == ["1", "2"]
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, SIDE, SIDE, 3]}]
    assert [output["name"] for output in metadata["outputs"]] == [output["name"] for output in config["output"]]
    assert config["max_batch_size"] >= 8
    assert config["input"][0]["data_type"] == "TYPE_UINT8"
    for tensor, configured in zip(metadata["outputs"], config["output"], strict=True):
        assert tensor["shape"] == [-1, *configured["dims"]]
        assert configured["data_type"] == "TYPE_" + tensor["datatype"]


def test_one_number_per_image_has_a_dimension_of_its_own(server: Server) -> None:
    outputs = {output["name"]: output for output in server.client.get("/v2/models/detector").json()["outputs"]}
    answer = outputs_of(server.client.post("/v2/models/detector/infer", content=red_png(9), headers={LENGTH: "0"}))

    assert outputs["counts"]["shape"] == [-1, 1]
    assert answer["counts"]["shape"] == [1, 1]


@pytest.mark.parametrize("path", ["/v2/models/stats", MODEL + "/stats", MODEL + "/versions/2/stats"])
def test_statistics_have_all_that_perf_analyzer_reads(server: Server, path: str) -> None:
    infer(server, red_png(5), {LENGTH: "0"})

    found = server.client.get(path).json()["model_stats"]

    served = next(item for item in found if (item["name"], item["version"]) == ("classifier", "2"))
    needed = ("success", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    assert all({"count", "ns"} <= served["inference_stats"][name].keys() for name in needed)
    assert served["inference_count"] >= served["execution_count"] >= 1
    assert served["inference_stats"]["success"]["ns"] > 0


@pytest.mark.parametrize("body", [b"", b"{}", b'{"ready": true}'])
def test_repository_index_lists_every_version(server: Server, body: bytes) -> None:
    found = server.client.post("/v2/repository/index", content=body).json()

    assert {(item["name"], item["version"], item["state"]) for item in found} == {
        ("classifier", "1", "READY"),
        ("classifier", "2", "READY"),
        ("detector", "1", "READY"),
        ("instances", "1", "READY"),
        ("segmenter", "1", "READY"),
    }


def test_loading_what_is_loaded_is_done_and_unloading_is_refused(server: Server) -> None:
    assert server.client.post("/v2/repository/models/classifier/load", json={}).status_code == 200
    refused = server.client.post("/v2/repository/models/classifier/unload", json={})
    assert refused.status_code == 400
    assert "not allowed" in refused.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("GET", "/v2/models/nobody/stats", 404),
        ("GET", MODEL + "/versions/9", 404),
        ("POST", "/v2/models/nobody/infer", 404),
        ("POST", MODEL + "/versions/latest/infer", 404),
        ("GET", INFER, 405),
        ("GET", "/v2/systemsharedmemory/status", 404),
        ("POST", "/v2/repository/models/nobody/load", 404),
    ],
)
def test_refusals_are_an_error_text(server: Server, method: str, path: str, status: int) -> None:
    response = server.client.request(method, path)

    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert response.json()["error"]


# Infer


def test_binary_pixels_of_a_batch_are_answered_in_order(server: Server) -> None:
    images = pixels(10, 20, 30)
    body, headers = binary_body({"id": "mine", "inputs": [pixel_input(images)]}, images.tobytes())

    response = infer(server, body, headers)

    assert reds_of(response) == [10, 20, 30]
    assert response.headers["content-type"] == "application/json"
    assert LENGTH not in response.headers
    document = response.json()
    assert (document["model_name"], document["model_version"], document["id"]) == ("classifier", "2", "mine")


def test_lost_pixels_are_said_beside_the_tensors(server: Server) -> None:
    damaged, whole = TAKEN["missing restart marker"][0], red_png(5)
    pictures = {"name": "images", "datatype": "BYTES", "shape": [2], "data": [b64(whole), b64(damaged)]}

    alone = infer(server, damaged, {LENGTH: "0"})
    together = infer(server, json.dumps({"inputs": [pictures]}).encode()).json()
    sound = infer(server, whole, {LENGTH: "0"})

    header = json.loads(alone.content[: int(alone.headers[LENGTH])])
    assert "parts of the picture may be lost" in header["parameters"]["warning"]
    assert together["parameters"]["warning"] == "image 1: " + header["parameters"]["warning"]
    assert "parameters" not in json.loads(sound.content[: int(sound.headers[LENGTH])])


def test_chosen_version_answers(server: Server) -> None:
    response = infer(server, red_png(7), {LENGTH: "0"}, MODEL + "/versions/1/infer")

    assert json.loads(response.content[: int(response.headers[LENGTH])])["model_version"] == "1"
    assert "id" not in json.loads(response.content[: int(response.headers[LENGTH])])


@pytest.mark.parametrize("form", ["flat", "nested"])
def test_json_pixels_are_the_same_request(server: Server, form: str) -> None:
    images = pixels(10, 20)
    data = images.reshape(-1).tolist() if form == "flat" else images.tolist()
    document = {"inputs": [pixel_input(images, parameters={}, data=data)]}

    assert reds_of(server.client.post(INFER, json=document)) == [10, 20]
    body = json.dumps(document).encode()  # C++ clients name the length although all of it is JSON
    assert reds_of(infer(server, body, {LENGTH: str(len(body)), "Content-Type": "application/json"})) == [10, 20]


@pytest.mark.parametrize("shape", [[2], [2, 1]])
@pytest.mark.parametrize("form", ["json", "binary"])
def test_encoded_pictures_get_the_servers_preprocessing(server: Server, shape: list[int], form: str) -> None:
    encoded = [red_png(40), red_png(50, 2 * SIDE, SIDE)]
    given: dict[str, Any] = {"name": "images", "datatype": "BYTES", "shape": shape}
    if form == "json":
        given["data"] = [base64.b64encode(image).decode() for image in encoded]
        response = server.client.post(INFER, json={"inputs": [given]})
    else:
        elements = b"".join(struct.pack("<I", len(image)) + image for image in encoded)
        given["parameters"] = {"binary_data_size": len(elements)}
        response = infer(server, *binary_body({"inputs": [given]}, elements))

    assert reds_of(response) == [40, 50]


def test_boxes_are_in_the_pixels_of_what_was_sent(server: Server) -> None:
    path = "/v2/models/detector/infer"
    document = {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1]}]}
    sent = red_png(16, 2 * SIDE, 2 * SIDE)  # the fake backend's boxes are (16, 16, 16, 16) in model pixels
    document["inputs"][0]["data"] = [base64.b64encode(sent).decode()]
    pictured = outputs_of(server.client.post(path, json=document))["boxes"]["data"][:4]
    images = pixels(16)
    in_model = outputs_of(infer(server, *binary_body({"inputs": [pixel_input(images)]}, images.tobytes()), path))

    assert pictured == [32.0, 32.0, 32.0, 32.0]
    assert in_model["boxes"]["data"][:4] == [16.0, 16.0, 16.0, 16.0]


def test_raw_body_is_one_picture_or_one_images_pixels(server: Server) -> None:
    for body in (red_png(60), pixels(60).tobytes()):
        response = infer(server, body, {LENGTH: "0"})
        header = int(response.headers[LENGTH])
        outputs = outputs_of(response)
        scores = np.frombuffer(response.content[header:], np.float32, 10)
        assert [output["parameters"] for output in outputs.values()] == [{"binary_data_size": 40}] * 2
        assert round(float(scores[0]) * 255) == 60


def test_outputs_are_chosen_and_binary_each_by_itself(server: Server) -> None:
    images = pixels(70, 80)
    document = {
        "inputs": [pixel_input(images)],
        "parameters": {"binary_data_output": True},
        "outputs": [{"name": "class_ids"}, {"name": "scores", "parameters": {"binary_data": False}}],
    }

    response = infer(server, *binary_body(document, images.tobytes()))

    header = int(response.headers[LENGTH])
    outputs = outputs_of(response)
    assert list(outputs) == ["class_ids", "scores"]
    assert outputs["class_ids"]["parameters"] == {"binary_data_size": 80}
    ids = np.frombuffer(response.content[header:], np.int32).reshape(2, 10)
    assert ids[1].tolist() == list(range(10))
    assert response.headers["content-type"] == "application/octet-stream"
    assert len(outputs["scores"]["data"]) == 20


@pytest.mark.parametrize("is_binary", [False, True])
def test_classification_names_the_best_classes(server: Server, is_binary: bool) -> None:
    images = pixels(51)
    wanted = {"name": "scores", "parameters": {"classification": 3, "binary_data": is_binary}}

    response = infer(server, *binary_body({"inputs": [pixel_input(images)], "outputs": [wanted]}, images.tobytes()))

    output = outputs_of(response)["scores"]
    assert (output["datatype"], output["shape"]) == ("BYTES", [1, 3])
    if is_binary:
        content = response.content[int(response.headers[LENGTH]) :]
        assert content[:4] == struct.pack("<I", len(b"0.200000:0:0"))
        assert content[4:16] == b"0.200000:0:0"
    else:
        assert output["data"] == ["0.200000:0:0", "0.200000:1:1", "0.200000:2:2"]


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compression_covers_the_whole_body_both_ways(server: Server, encoding: str, compress: Any) -> None:
    images = pixels(*range(16))
    body, headers = binary_body(
        {"inputs": [pixel_input(images)], "parameters": {"binary_data_output": True}}, images.tobytes()
    )

    response = infer(server, compress(body), {**headers, "Content-Encoding": encoding, "Accept-Encoding": encoding})

    assert response.headers["content-encoding"] == encoding
    header = int(response.headers[LENGTH])
    scores = np.frombuffer(response.content[header:], np.float32, 160).reshape(16, 10)
    assert (scores[:, 0] * 255).round().astype(int).tolist() == list(range(16))


def test_timeout_is_a_deadline_in_microseconds(server: Server) -> None:
    images = pixels(9)
    late = {"inputs": [pixel_input(images)], "parameters": {"timeout": 1}}
    in_time = {"inputs": [pixel_input(images)], "parameters": {"timeout": 5_000_000, "priority": 1}}

    refused = infer(server, *binary_body(late, images.tobytes()))

    assert refused.status_code == 503
    assert "deadline" in refused.json()["error"]
    assert reds_of(infer(server, *binary_body(in_time, images.tobytes()))) == [9]


def test_picture_that_cannot_be_read_is_invalid_and_a_failed_run_internal(server: Server) -> None:
    assert infer(server, b"no picture", {LENGTH: "0"}).status_code == 400
    assert infer(server, POISON_PNG, {LENGTH: "0"}).status_code == 500


def test_answer_that_is_no_number_is_refused_and_counted(server: Server) -> None:
    before = server.metric("saccade_nonfinite_total")

    answer = infer(server, NOT_FINITE_PNG, {LENGTH: "0"})

    assert answer.status_code == 500
    assert "not finite (scores)" in answer.json()["error"]
    assert server.metric("saccade_nonfinite_total") - before == 1


def test_many_clients_share_batches(server: Server) -> None:
    before = server.metric("saccade_batch_size_count", model="classifier")
    images = pixels(*range(16))

    infer(server, *binary_body({"inputs": [pixel_input(images)]}, images.tobytes()))

    assert server.metric("saccade_batch_size_count", model="classifier") - before <= 4
