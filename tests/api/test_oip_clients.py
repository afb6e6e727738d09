"""Unmodified clients of the Open Inference Protocol: Triton's own, over HTTP, blocking and asynchronous."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.support.images import red_png
from tests.support.server import Server
from tests.support.versions import SIDE

triton = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
# Triton's client and gevent, which it stands on.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


def pixels(*reds: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    images = np.full((len(reds), SIDE, SIDE, 3), 100, np.uint8)
    images[:, 0, 0, 0] = reds
    return images


def pixel_input(images: np.ndarray[Any, Any], is_binary: bool = True) -> Any:
    given = triton.InferInput("images", list(images.shape), "UINT8")
    given.set_data_from_numpy(images, binary_data=is_binary)
    return given


def reds(result: Any) -> list[int]:
    return [round(float(row[0]) * 255) for row in result.as_numpy("scores")]


def test_everything_a_client_asks_before_it_sends(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("classifier")
    assert client.is_model_ready("classifier", "1")
    assert not client.is_model_ready("nobody")
    assert client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("classifier")
    config = client.get_model_config("classifier")
    assert metadata["inputs"][0]["name"] == config["input"][0]["name"] == "images"
    names = {item["name"] for item in client.get_model_repository_index()}
    assert names == {"classifier", "detector", "instances", "segmenter"}
    client.load_model("classifier")
    with pytest.raises(triton.InferenceServerException, match="not allowed"):
        client.unload_model("classifier")
    with pytest.raises(triton.InferenceServerException, match="no model 'nobody'"):
        client.get_model_metadata("nobody")


@pytest.mark.parametrize("is_binary", [True, False])
@pytest.mark.parametrize("wants_binary", [True, False, None])
def test_batch_of_pixels(client: Any, is_binary: bool, wants_binary: bool | None) -> None:
    outputs = (
        None
        if wants_binary is None
        else [
            triton.InferRequestedOutput("scores", binary_data=wants_binary),
            triton.InferRequestedOutput("class_ids", binary_data=wants_binary),
        ]
    )

    result = client.infer("classifier", [pixel_input(pixels(10, 20, 30), is_binary)], outputs=outputs, request_id="7")

    assert reds(result) == [10, 20, 30]
    assert result.as_numpy("class_ids").dtype == np.int32
    assert result.get_response()["id"] == "7"


def test_encoded_pictures(client: Any) -> None:
    encoded = np.array([red_png(40), red_png(50)], dtype=np.object_)
    given = triton.InferInput("images", [2], "BYTES")
    given.set_data_from_numpy(encoded)

    assert reds(client.infer("classifier", [given])) == [40, 50]


def test_classification(client: Any) -> None:
    wanted = triton.InferRequestedOutput("scores", class_count=2)

    result = client.infer("classifier", [pixel_input(pixels(51))], outputs=[wanted])

    assert result.as_numpy("scores").tolist() == [[b"0.200000:0:0", b"0.200000:1:1"]]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression(client: Any, algorithm: str) -> None:
    result = client.infer(
        "classifier",
        [pixel_input(pixels(*range(16)))],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )

    assert reds(result) == list(range(16))


def test_parameters(client: Any) -> None:
    given = [pixel_input(pixels(3))]

    assert reds(client.infer("classifier", given, model_version="1", priority=1, timeout=5_000_000)) == [3]
    with pytest.raises(triton.InferenceServerException, match="deadline"):
        client.infer("classifier", given, timeout=1)


def test_requests_side_by_side_and_their_statistics(server: Server) -> None:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}", concurrency=4) as client:
        waiting = [client.async_infer("classifier", [pixel_input(pixels(red))]) for red in range(20)]
        assert [reds(answer.get_result()) for answer in waiting] == [[red] for red in range(20)]
        found = client.get_inference_statistics("classifier", "2")["model_stats"][0]
    assert found["inference_stats"]["success"]["count"] >= 20


def test_body_that_was_made_elsewhere(client: Any) -> None:
    body, size = triton.InferenceServerClient.generate_request_body([pixel_input(pixels(5))])
    assert size is not None
    response = client._post("v2/models/classifier/infer", body, {"Inference-Header-Content-Length": size}, None)
    content = response.read()
    length = response.get("Inference-Header-Content-Length")
    result = triton.InferenceServerClient.parse_response_body(
        content, header_length=None if length is None else int(length)
    )
    assert reds(result) == [5]


def test_wrong_requests_are_exceptions_with_the_servers_words(client: Any) -> None:
    wrong = triton.InferInput("images", [1, 3, SIDE, SIDE], "UINT8")
    wrong.set_data_from_numpy(np.zeros((1, 3, SIDE, SIDE), np.uint8))

    with pytest.raises(triton.InferenceServerException, match="unexpected shape") as refused:
        client.infer("classifier", [wrong])
    assert refused.value.status() == "400"
    with pytest.raises(triton.InferenceServerException, match="unexpected inference output"):
        client.infer("classifier", [pixel_input(pixels(1))], outputs=[triton.InferRequestedOutput("x")])


async def test_asynchronous_client(server: Server) -> None:
    aio = pytest.importorskip("tritonclient.http.aio", reason="aiohttp is not installed")
    async with aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        assert await client.is_server_ready()
        given = aio.InferInput("images", [2, SIDE, SIDE, 3], "UINT8")
        given.set_data_from_numpy(pixels(8, 9))
        result = await client.infer("classifier", [given])
        assert reds(result) == [8, 9]
        assert (await client.get_model_metadata("detector"))["outputs"][0]["name"] == "boxes"


def test_numpy_file_round_trip_is_not_needed(client: Any) -> None:
    """A picture as a file would have it, in one BYTES element made of a list."""
    given = triton.InferInput("images", [1, 1], "BYTES")
    given.set_data_from_numpy(np.array([[io.BytesIO(red_png(33)).read()]], dtype=np.object_))

    assert reds(client.infer("classifier", [given])) == [33]
