"""What the server says of itself: models, health, metrics and its OpenAPI document."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jsonschema
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from saccade.service import __version__
from tests.support.images import json_body, red_png
from tests.support.server import Server, wait_until

FAMILIES = {
    "saccade_requests",
    "saccade_request_duration_seconds",
    "saccade_stage_duration_seconds",
    "saccade_batch_size",
    "saccade_queue_depth",
    "saccade_queue_wait_estimate_seconds",
    "saccade_shed",
    "saccade_slots_in_use",
    "saccade_worker_up",
    "saccade_worker_restarts",
    "saccade_model_state",
    "saccade_model_info",
    "saccade_build_info",
}
PREDICT_PATHS = {
    "/v1/models/{model}/predict",
    "/v1/models/{model}/versions/{version}/predict",
    "/v1/models/{model}/labels/{label}/predict",
}


def test_models_are_listed_with_versions_and_measured_figures(server: Server, repository: Path) -> None:
    models = server.client.get("/v1/models").json()["models"]
    assert [model["name"] for model in models] == ["classifier", "detector", "instances", "segmenter"]
    classifier, _, instances, segmenter = models
    assert classifier == server.client.get("/v1/models/classifier").json()
    assert (classifier["task"], classifier["default_version"], classifier["labels"]) == (
        "classify",
        "2",
        {"stable": "2"},
    )
    assert classifier["class_labels"] == list("0123456789")
    assert segmenter["class_labels"][0] == "background"
    assert instances["task"] == "segment-instances"
    assert [version["version"] for version in classifier["versions"]] == ["2", "1"]
    version = classifier["versions"][0]
    assert (version["state"], version["reason"], version["variant"], version["device"]) == ("ready", "", "fp32", "cpu")
    manifest = (repository / "classifier" / "2" / "manifest.json").read_bytes()
    assert version["digest"] == hashlib.sha256(manifest).hexdigest()
    assert version["metric"] == {
        "name": "top1",
        "value": 0.9,
        "ci_low": 0.88,
        "ci_high": 0.92,
        "split": "test",
        "images": 100,
    }
    assert version["latency"] == [{"batch_size": 1, "p50_ms": 1.0, "p99_ms": 1.2, "images_per_s": 1000.0}]
    assert (version["choice"], version["speeds"]) == ("", [])  # there is one variant


@pytest.mark.parametrize("kind", ["live", "ready", "startup"])
def test_health_is_json_with_a_reason(server: Server, kind: str) -> None:
    response = server.client.get(f"/health/{kind}")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "reason": ""}


def test_metrics_are_prometheus_text_with_all_families(server: Server) -> None:
    server.predict("classifier", red_png(1))
    server.predict("classifier", red_png(1), params={"deadline_ms": "0"})
    response = server.client.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(response.text)}
    assert set(families) >= FAMILIES
    assert all(family.documentation for family in families.values())
    assert server.metric("saccade_worker_up", device="cpu") == 1
    assert server.metric("saccade_model_state", model="classifier", version="2", state="ready") == 1
    assert server.metric("saccade_model_state", model="classifier", version="2", state="failed") == 0
    digest = server.model("classifier")["versions"][0]["digest"]
    assert server.metric("saccade_model_info", model="classifier", version="2", variant="fp32", digest=digest) == 1


def test_processes_are_told_by_kind(server: Server) -> None:
    wait_until(lambda: server.metric("saccade_process_cpu_seconds_total", process="api"), what="the supervisor told")

    assert server.metric("saccade_process_cpu_seconds_total", process="worker") > 0
    for kind, pids in {"supervisor": [server.process.pid], "worker": [server.worker().pid]}.items():
        resident = sum(psutil.Process(pid).memory_info().rss for pid in pids)
        assert server.metric("saccade_process_resident_memory_bytes", process=kind) == pytest.approx(resident, rel=0.5)
        assert server.metric("saccade_process_open_fds", process=kind) > 5
    assert server.metric("saccade_build_info", version=__version__) == 1


def test_one_request_counts_once(server: Server) -> None:
    def counted() -> dict[str, float]:
        return {
            "ok": server.outcomes("ok", model="detector", version="1"),
            "duration": server.metric("saccade_request_duration_seconds_count", model="detector"),
            "decode": server.metric("saccade_stage_duration_seconds_count", model="detector", stage="decode"),
            "bad": server.outcomes("bad_request", model="detector", version="1"),
        }

    before = counted()
    server.client.post("/v1/models/detector/predict", json=json_body(red_png(1), red_png(2)))
    server.predict("detector", b"bad")
    after = counted()
    assert {name: after[name] - before[name] for name in before} == {"ok": 1, "duration": 1, "decode": 2, "bad": 1}


def test_clients_cannot_invent_metric_labels(server: Server) -> None:
    server.client.post("/v1/models/invented/predict", content=red_png(1))
    server.client.post("/v1/models/classifier/versions/77/predict", content=red_png(1))
    text = server.client.get("/metrics").text
    assert "invented" not in text
    assert '"77"' not in text


# OpenAPI


@pytest.fixture(scope="module")
def document(server: Server) -> dict[str, Any]:
    response = server.client.get("/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def references(node: Any) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*[references(value) for value in node.values()])
    if isinstance(node, list):
        return set().union(*[references(item) for item in node])
    return set()


def test_the_openapi_document_is_sound(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"] == {"title": "saccade", "version": __version__}
    assert set(document["paths"]) >= PREDICT_PATHS | {"/v1/models", "/v1/models/{model}", "/health/ready", "/metrics"}
    for reference in references(document):
        node: Any = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    operations = [
        operation
        for methods in document["paths"].values()
        for operation in methods.values()
        if "responses" in operation
    ]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


@pytest.mark.parametrize("path", sorted(PREDICT_PATHS))
def test_predict_paths_are_described(document: dict[str, Any], path: str) -> None:
    operation = document["paths"][path]["post"]
    in_path = {item["name"] for item in operation["parameters"] if item["in"] == "path"}
    in_query = {item["name"] for item in operation["parameters"] if item["in"] == "query"}
    assert in_path == {part[1:-1] for part in path.split("/") if part.startswith("{")}
    by_task = {
        "top_k",
        "score_threshold",
        "max_detections",
        "mask_format",
        "encoding",
        "embedding_dtype",
        "image_format",
    }
    assert in_query == by_task | {"deadline_ms", "variant", "allow_cheaper", "explain", "trust", "quality"}
    assert {"image/jpeg", "multipart/form-data", "application/json"} <= set(operation["requestBody"]["content"])
    assert {"200", "413", "415", "422", "429", "503", "504"} <= set(operation["responses"])


def ensure_valid(document: dict[str, Any], schema: str, answer: Any) -> None:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": document["components"]}
    jsonschema.Draft202012Validator(whole).validate(answer)


@pytest.mark.parametrize("model", ["classifier", "detector", "segmenter", "instances"])
def test_answers_match_their_schema(server: Server, document: dict[str, Any], model: str) -> None:
    answer = server.client.post(f"/v1/models/{model}/predict", json=json_body(red_png(200), b"bad")).json()
    ensure_valid(document, "PredictAnswer", answer)


@pytest.mark.parametrize("mask_format", ["rle", "png", "polygon", "none"])
def test_masks_match_their_schema(server: Server, document: dict[str, Any], mask_format: str) -> None:
    answer = server.predict("segmenter", red_png(200), params={"mask_format": mask_format}).json()
    ensure_valid(document, "Segmentation", answer["predictions"][0])


def test_problems_models_and_health_match_their_schemas(server: Server, document: dict[str, Any]) -> None:
    ensure_valid(document, "Problem", server.predict("classifier", b"bad").json())
    ensure_valid(document, "ModelList", server.client.get("/v1/models").json())
    ensure_valid(document, "Health", server.client.get("/health/ready").json())
