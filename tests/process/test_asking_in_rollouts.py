"""Requests that ask for more than the answer while two versions share a model's requests, of which one has it."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import httpx
import numpy as np
import pytest

from saccade.service.repository.serving_document import Canary, ServingDocument, Shadow
from saccade.service.repository.serving_history import write_document
from tests.support.images import red_png
from tests.support.server import Server, running_server
from tests.support.versions import EXPLANATION, UNFAMILIARITY, manifest_for, publish, with_extras

RICH = {"digits": 2, "older": 1}  # the version that has everything besides the answer: a canary, and a stable one


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("repository")
    for model, rich in RICH.items():
        publish(root, manifest_for(model, 3 - rich).model_copy(update={"quality": None}))
        publish(root, with_extras(manifest_for(model, rich), EXPLANATION, UNFAMILIARITY))
        canary, shadow = Canary(version=2, share=0.5), Shadow(version=2, sample=1.0)
        document = ServingDocument(generation=1, policy="hold", labels={"stable": 1}, canary=canary, shadow=shadow)
        write_document(root, model, document, 0)
    with running_server(root, tmp_path_factory.mktemp("server"), versions_per_model=2) as running:
        for model in RICH:
            running.wait_state(model, 2, "ready")
        yield running


def ask(server: Server, model: str, user: int, path: str = "predict", **parameters: str) -> httpx.Response:
    headers = {"X-Routing-Key": f"user-{user}"}
    return server.client.post(f"/v1/models/{model}/{path}", content=red_png(7), params=parameters, headers=headers)


@pytest.mark.parametrize("model", RICH)
@pytest.mark.parametrize("asked", [{"explain": "grid"}, {"trust": "true"}, {"quality": "true"}])
def test_who_asks_is_answered_by_the_version_that_has_it(server: Server, model: str, asked: dict[str, str]) -> None:
    plain = [ask(server, model, user).raise_for_status().json()["version"] for user in range(24)]
    answers = [ask(server, model, user, **asked).raise_for_status().json() for user in range(24)]
    assert {answer["version"] for answer in answers} == {str(RICH[model])}
    names = {"explain": "explanation", "trust": "trust", "quality": "quality"}
    assert all(names[name] in answer["predictions"][0] for answer in answers for name in asked)
    assert set(plain) == {"1", "2"}  # and those who do not ask stay with the version of their key
    assert plain == [ask(server, model, user).raise_for_status().json()["version"] for user in range(24)]


@pytest.mark.parametrize("model", RICH)
def test_what_is_asked_in_a_body_counts_as_well(server: Server, model: str) -> None:
    image = {"b64": base64.b64encode(red_png(7)).decode()}
    pixels = np.full((1, 32, 32, 3), 7, np.uint8).tolist()
    tensor = {"name": "images", "shape": [1, 32, 32, 3], "datatype": "UINT8", "data": pixels}
    for user in range(10):
        headers = {"X-Routing-Key": f"user-{user}"}
        body = {"images": [image], "parameters": {"explain": "grid"}}
        answer = server.client.post(f"/v1/models/{model}/predict", json=body, headers=headers).raise_for_status()
        assert answer.json()["version"] == str(RICH[model])
        wanted = {"inputs": [tensor], "outputs": [{"name": "unfamiliarity"}]}
        answer = server.client.post(f"/v2/models/{model}/infer", json=wanted, headers=headers).raise_for_status()
        assert answer.json()["model_version"] == str(RICH[model])


@pytest.mark.parametrize("model", RICH)
def test_a_version_or_label_that_is_named_answers_for_itself(server: Server, model: str) -> None:
    poor, label = 3 - RICH[model], {1: "stable", 2: "canary"}[3 - RICH[model]]
    for path in (f"versions/{poor}/predict", f"labels/{label}/predict"):
        refused = ask(server, model, 0, path, explain="grid")
        assert refused.status_code == 422
        assert f"{model}/{poor} cannot explain its answers" in refused.json()["detail"]


def test_what_no_version_has_is_refused_whatever_the_key(server: Server) -> None:
    details = {ask(server, "digits", user, explain="grid", variant="none").status_code for user in range(10)}
    assert details == {422}
