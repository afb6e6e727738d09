"""Vectors over HTTP, with the real runtime. Promises: length 1 in every form, a named error for a picture of zeros."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from saccade.client import Client, Embedding, Unprocessable
from saccade.models.contract.specs import Task
from tests.support.graphs import embedder_graph
from tests.support.images import json_body, png
from tests.support.requests import at_once
from tests.support.server import Server, running_server
from tests.support.versions import SIDE, publish_fake

COLOUR = (30, 60, 120)
UNIT = np.array(COLOUR, np.float32) / np.linalg.norm(COLOUR)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("repository")
    publish_fake(root, "embedder", 1, Task.EMBED, embedder_graph())
    with running_server(root, tmp_path_factory.mktemp("server"), backend="onnxruntime") as running:
        yield running


def answer(server: Server, image: bytes, **query: str) -> Any:
    response = server.predict("embedder", image, params=query)
    assert response.status_code == 200, response.text
    return response.json()["predictions"][0]["embedding"]


def test_a_vector_has_the_length_one(server: Server) -> None:
    found = answer(server, png(COLOUR))

    assert (found["dim"], found["dtype"]) == (3, "float32")
    assert found["values"] == pytest.approx(UNIT.tolist(), abs=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_client_reads_every_form_alike(server: Server, dtype: str) -> None:
    with Client(str(server.client.base_url)) as client:
        forms = [
            client.predict(png(COLOUR), model="embedder", encoding=encoding, embedding_dtype=dtype)
            for encoding in ("json", "base64")
        ]

    assert all(isinstance(form, Embedding) and form.vector.dtype == np.dtype(dtype) for form in forms)
    first, second = (form.vector for form in forms if isinstance(form, Embedding))
    assert (first == second).all()
    assert np.allclose(first, UNIT, atol=1e-3)


def test_a_picture_of_zeros_has_a_named_error_of_its_own(server: Server) -> None:
    images = [png(COLOUR), png((0, 0, 0)), png((9, 0, 0))]
    predictions = server.client.post("/v1/models/embedder/predict", json=json_body(*images)).json()["predictions"]

    assert predictions[0]["embedding"]["values"] == pytest.approx(UNIT.tolist(), abs=1e-6)
    assert predictions[1]["error"]["title"] == "Image cannot be used"
    assert "all zeros" in predictions[1]["error"]["detail"]
    assert predictions[2]["embedding"]["values"] == [1.0, 0.0, 0.0]
    with Client(str(server.client.base_url)) as client, pytest.raises(Unprocessable, match="all zeros"):
        client.predict(png((0, 0, 0)), model="embedder")


def test_many_pictures_of_zeros_take_no_version_away(server: Server) -> None:
    statuses = at_once(lambda number: server.predict("embedder", png((0, 0, 0))).status_code, range(40), 8)

    assert set(statuses) == {422}
    assert server.client.get("/v1/models/embedder").json()["versions"][0]["state"] == "ready"


def test_the_open_protocol_gives_the_tensor(server: Server) -> None:
    images = np.stack([np.full((SIDE, SIDE, 3), colour, np.uint8) for colour in (COLOUR, (0, 0, 0))])

    def asked(rows: np.ndarray) -> Any:
        tensor = {"name": "images", "datatype": "UINT8", "shape": list(rows.shape), "data": rows.ravel().tolist()}
        return server.client.post("/v2/models/embedder/infer", json={"inputs": [tensor]})

    (found,) = asked(images[:1]).json()["outputs"]
    assert (found["name"], found["datatype"], found["shape"]) == ("embedding", "FP32", [1, 3])
    assert found["data"] == pytest.approx(UNIT.tolist(), abs=1e-6)
    refused = asked(images[1:])
    assert refused.status_code == 400  # as the protocol has it
    assert "all zeros" in refused.text


def test_parameters_of_other_tasks_are_refused(server: Server) -> None:
    response = server.predict("embedder", png(COLOUR), params={"top_k": "3"})

    assert response.status_code == 422
    assert "'top_k' does not apply to an embed model; its parameters are: encoding, embedding_dtype" in response.text


def test_the_model_says_its_task(server: Server) -> None:
    assert server.client.get("/v1/models/embedder").json()["task"] == "embed"
