"""Reports and sample pictures of published versions, over HTTP."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.models.contract.replay import REPLAY_FILE, replay_bytes
from saccade.service.repository.disagreements import Disagreement, keep_disagreement
from tests.support.images import red_of
from tests.support.problems import is_problem
from tests.support.server import Server, running_server
from tests.support.versions import SIDE, manifest_for, publish, publish_fake, with_files

REPORT = b"<!doctype html><title>report</title>"
OF_VERSION = "/v1/models/shown/versions/1"


def pictures() -> np.ndarray:
    images = np.zeros((2, SIDE, SIDE, 3), np.uint8)
    images[:, 0, 0, 0] = (51, 102)
    return images


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    files = {"model.onnx": b"weights", "report.html": REPORT, REPLAY_FILE: replay_bytes(pictures(), {})}
    publish(root, with_files(manifest_for("shown", 1), files), files=files)
    publish_fake(root, "bare", 1)
    (root / "bare" / "1" / "report.html").write_text("not in the manifest")
    return root


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(repository, tmp_path_factory.mktemp("server")) as running:
        yield running


def test_report_is_shown_and_can_run_nothing(server: Server) -> None:
    response = server.client.get(f"{OF_VERSION}/report")

    assert (response.status_code, response.content) == (200, REPORT)
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "script" not in policy


def test_samples_are_the_body_of_a_predict_request(server: Server) -> None:
    samples = server.client.get(f"{OF_VERSION}/samples").json()
    answer = server.client.post("/v1/models/shown/predict", json=samples).json()

    found = [np.asarray(Image.open(io.BytesIO(base64.b64decode(item["b64"])))) for item in samples["images"]]
    assert np.array_equal(np.stack(found), pictures())
    assert [red_of(prediction) for prediction in answer["predictions"]] == [51, 102]


def test_versions_say_what_they_have(server: Server) -> None:
    (shown,), (bare,) = server.model("shown")["versions"], server.model("bare")["versions"]

    assert (shown["has_report"], shown["has_samples"]) == (True, True)
    assert (bare["has_report"], bare["has_samples"]) == (False, False)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/models/bare/versions/1/report",  # there, but not published
        "/v1/models/bare/versions/1/samples",
        "/v1/models/shown/versions/2/report",
        "/v1/models/shown/versions/x/report",
        "/v1/models/..%2fshown/versions/1/report",
    ],
)
def test_only_published_files_are_shown(server: Server, path: str) -> None:
    is_problem(server.client.get(path), 404)


def test_file_that_was_replaced_is_not_shown(repository: Path, server: Server) -> None:
    file = repository / "shown" / "1" / "report.html"
    file.write_bytes(REPORT.replace(b"report", b"forged"))
    try:
        assert "not the published one" in is_problem(server.client.get(f"{OF_VERSION}/report"), 404)["detail"]
    finally:
        file.write_bytes(REPORT)


def test_keys_guard_them(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("the-key", "ascii")
    with running_server(repository, tmp_path, api_keys_file=tmp_path / "keys") as locked:
        for path in ("report", "samples"):
            is_problem(locked.client.get(f"{OF_VERSION}/{path}"), 401)
            given = locked.client.get(f"{OF_VERSION}/{path}", headers={"Authorization": "Bearer the-key"})
            assert given.status_code == 200


def test_disagreements_of_a_shadow_are_for_admins_alone(repository: Path, tmp_path: Path) -> None:
    path = "/v1/models/shown/disagreements"
    (tmp_path / "keys").write_text("reader\nadmin scopes=read,admin\n", "ascii")
    found = Disagreement(
        model="shown",
        stable=1,
        candidate=2,
        request_id="id-1",
        at="2026-11-29T20:00:00+00:00",
        agreement=0.25,
        figures={},
        stable_said="3",
        candidate_said="5",
    )
    keep_disagreement(repository, found, b"the file as it was sent")
    with running_server(repository, tmp_path, api_keys_file=tmp_path / "keys") as locked:
        is_problem(locked.client.get(path), 401)
        is_problem(locked.client.get(path, headers={"Authorization": "Bearer reader"}), 403)
        admin = {"Authorization": "Bearer admin"}
        is_problem(locked.client.get("/v1/models/nobody/disagreements", headers=admin), 404)
        (shown,) = locked.client.get(path, headers=admin).json()
    assert (shown["stable"], shown["candidate"], shown["agreement"]) == ("1", "2", 0.25)
    assert base64.b64decode(shown["picture"]["b64"]) == b"the file as it was sent"


def test_disagreements_are_shown_to_nobody_where_there_are_no_keys(server: Server) -> None:
    refused = is_problem(server.client.get("/v1/models/classifier/disagreements"), 403)

    assert "SACCADE_API_KEYS_FILE" in refused["detail"]
