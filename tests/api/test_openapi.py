"""The OpenAPI document against the running server: random requests from it, its examples, a client made of it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import jsonschema
import pytest

from tests.support.images import image_files, red_of, red_png
from tests.support.server import Server, running_server

KEY = "the-key"
OPEN = ("/health/", "/v2/health/")
PREDICT = "/v1/models/{model}/predict"


@pytest.fixture(scope="module")
def locked(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Answers nothing but health and pages without a key."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys").write_text(f"{KEY} scopes=predict,read,admin", "ascii")
    with running_server(repository, folder, api_keys_file=folder / "keys", open_without_key="docs") as running:
        running.client.headers["authorization"] = f"Bearer {KEY}"
        yield running


@pytest.fixture(scope="module")
def document(locked: Server) -> dict[str, Any]:
    found: dict[str, Any] = locked.client.get("/openapi.json").json()
    return found


def run_tool(module: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_server_does_what_the_document_says(locked: Server, tmp_path: Path) -> None:
    config = Path(__file__).with_name("schemathesis.toml")
    url = f"{locked.base_url}/openapi.json"
    key = f"Authorization: Bearer {KEY}"

    done = run_tool(
        "schemathesis.cli", "--config-file", str(config), "run", url, "-H", key, "--max-examples", "10", folder=tmp_path
    )

    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "passed" in done.stdout


def test_key_is_asked_for_where_the_document_says(locked: Server, server: Server, document: dict[str, Any]) -> None:
    open_document = server.client.get("/openapi.json").json()

    for path, item in document["paths"].items():
        for method, operation in item.items():
            asked = path.format(model="classifier", version="1", label="latest")
            response = httpx.request(method, locked.base_url + asked, content=red_png(1) if method == "post" else None)
            assert operation.get("security") == (None if path.startswith(OPEN) else [{"key": []}]), path
            assert (response.status_code == 401) == ("security" in operation), path
    assert open_document["paths"][PREDICT]["post"]["security"] == [{}, {"key": []}]


def test_whatever_can_be_read_can_be_asked_for_without_its_body(document: dict[str, Any], locked: Server) -> None:
    readable = [path for path, item in document["paths"].items() if "get" in item]

    assert {"/metrics", "/v1/models", "/v2"} <= {*readable}
    for path in readable:
        assert "head" in document["paths"][path]
        url = path.format(model="classifier", version="1")
        found, whole = locked.client.head(url), locked.client.get(url)
        assert (found.status_code, found.content) == (whole.status_code, b""), path
        assert found.headers["content-type"] == whole.headers["content-type"]


def examples_in(node: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """(schema, example) of every media type."""
    if isinstance(node, dict):
        named = [example["value"] for example in node.get("examples", {}).values()] if "schema" in node else []
        given = [*named, *([node["example"]] if "example" in node else [])]
        yield from ((node["schema"], example) for example in given)
        for value in node.values():
            yield from examples_in(value)


def test_examples_match_their_schemas(document: dict[str, Any]) -> None:
    found = [*examples_in(document["paths"])]

    assert len(found) > 40
    for schema, example in found:
        whole = {**schema, "components": document["components"]}
        jsonschema.Draft202012Validator(whole).validate(example)


def test_example_of_a_request_is_answered(document: dict[str, Any], server: Server) -> None:
    example = document["paths"][PREDICT]["post"]["requestBody"]["content"]["application/json"]["example"]

    assert red_of(server.client.post(PREDICT.format(model="classifier"), json=example).json()["predictions"][0]) == 200


@pytest.fixture(scope="module")
def generated(document: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """A package made from the document by openapi-python-client."""
    folder = tmp_path_factory.mktemp("generated")
    (folder / "openapi.json").write_text(json.dumps(document))
    done = run_tool(
        "openapi_python_client",
        *("generate", "--path", "openapi.json", "--meta", "none", "--output-path", "generated_client"),
        folder=folder,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("generated_client")
    finally:
        sys.path.remove(str(folder))


@pytest.mark.slow
def test_client_generated_from_the_document_asks_and_reads_answers(generated: ModuleType, locked: Server) -> None:
    predict = importlib.import_module("generated_client.api.predict.predict_model")
    types, models = (importlib.import_module(f"generated_client.{name}") for name in ("types", "models"))
    list_models = importlib.import_module("generated_client.api.models.list_models")

    with generated.AuthenticatedClient(base_url=locked.base_url, token=KEY) as client:
        answer = predict.sync("classifier", client=client, body=types.File(red_png(77)), top_k=3)
        boxes = predict.sync("instances", client=client, body=types.File(red_png(200)))
        problem = predict.sync("nobody", client=client, body=types.File(red_png(77)))
        listed = list_models.sync(client=client)

    assert [len(item.classes) for item in answer.predictions] == [3]
    assert round(answer.predictions[0].classes[0].score * 255) == 77
    assert isinstance(boxes.predictions[0].detections[0].rle, models.RunLengths)
    assert (type(problem), problem.status) == (models.Problem, 404)
    assert {model.name for model in listed.models} == {"classifier", "detector", "instances", "segmenter"}


@pytest.mark.slow
def test_generated_client_sends_several_images(generated: ModuleType, locked: Server) -> None:
    predict = importlib.import_module("generated_client.api.predict.predict_model")
    types, models = (importlib.import_module(f"generated_client.{name}") for name in ("types", "models"))
    pictures = [types.File(content, name) for _, (name, content, *_) in image_files(red_png(10), red_png(20))]

    with generated.AuthenticatedClient(base_url=locked.base_url, token=KEY) as client:
        answer = predict.sync("classifier", client=client, body=models.PredictModelFilesBody(image=pictures))

    assert [round(item.classes[0].score * 255) for item in answer.predictions] == [10, 20]


def test_code_samples_ask_the_server(document: dict[str, Any], server: Server, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(red_png(200))
    named = {"MODEL": "classifier", "VERSION": "1", "LABEL": "latest", "http://127.0.0.1:8000": server.base_url}
    for path in (PREDICT, "/v1/models/{model}/versions/{version}/predict"):
        for sample in document["paths"][path]["post"]["x-codeSamples"]:
            source = sample["source"]
            for name, value in named.items():
                source = source.replace(name, value)
            if sample["lang"] == "Python":
                done = subprocess.run(
                    [sys.executable, "-c", source],
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                assert done.returncode == 0, done.stderr
                assert (tmp_path / "answer.png").exists()
            else:
                words = source.split()
                assert words[:3] == ["curl", "--data-binary", "@photo.jpg"]
                assert red_of(server.client.post(words[3], content=red_png(200)).json()["predictions"][0]) == 200
