"""Versions come, go and break while requests flow; nobody who asks for a prediction notices."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from saccade.service.backends.fake_backend import CRASH_ON_LOAD
from tests.support.images import SLOW_PNG, red_of, red_png
from tests.support.requests import Background, Gate
from tests.support.server import Server, running_server, wait_until
from tests.support.traffic import traffic
from tests.support.versions import manifest_for, publish, publish_fake, remove


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("repository")
    publish_fake(root, "steady", 1)
    return root


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Each test brings a model of its own."""
    workspace = tmp_path_factory.mktemp("server")
    with running_server(repository, workspace, versions_per_model=2, repository_poll_ms=50) as running:
        yield running


@pytest.fixture
def model(server: Server, repository: Path, request: pytest.FixtureRequest) -> str:
    """A fresh model whose version 1 is ready."""
    name = request.node.originalname.removeprefix("test_").replace("_", "-")[:60]
    publish_fake(repository, name, 1)
    server.wait_state(name, 1, "ready")
    return str(name)


def default_version(server: Server, model: str) -> str | None:
    version: str | None = server.model(model)["default_version"]
    return version


def test_a_new_version_takes_over_without_a_failed_request(server: Server, repository: Path, model: str) -> None:
    with traffic(server, model) as seen:
        publish_fake(repository, model, 2)
        wait_until(lambda: seen.versions[-1] == "2", what="version 2 answers")
    assert seen.versions == ["1", "2"]
    assert default_version(server, model) == "2"
    for version in ("1", "2"):
        answer = server.predict(model, red_png(60), path=f"versions/{version}/predict").json()
        assert (answer["version"], red_of(answer["predictions"][0])) == (version, 60)
    assert server.predict(model, red_png(1), path="labels/stable/predict").json()["version"] == "2"


def publish_tampered(repository: Path, model: str, version: int) -> None:
    publish(repository, manifest_for(model, version, content=b"gated bytes"), b"other bytes")


def publish_newer_schema(repository: Path, model: str, version: int) -> None:
    building = repository / model / f".building-{version}"
    building.mkdir()
    document = manifest_for(model, version).model_dump(mode="json")
    (building / "manifest.json").write_text(json.dumps({**document, "schema_version": 99, "new_field": []}))
    building.rename(repository / model / str(version))


def publish_denied(repository: Path, model: str, version: int) -> None:
    publish_fake(repository, model, version, accepted=False)


def publish_without_manifest(repository: Path, model: str, version: int) -> None:
    (repository / model / str(version)).mkdir()


def publish_renamed(repository: Path, model: str, version: int) -> None:
    other = publish_fake(repository, f"{model}-other", version)
    shutil.copytree(other, repository / model / str(version))
    remove(other)


def publish_too_large(repository: Path, model: str, version: int) -> None:
    manifest = manifest_for(model, version)
    spec = manifest.preprocess.model_copy(update={"width": 8192, "height": 8192})
    image = manifest.input.model_copy(update={"shape": (8192, 8192, 3)})
    publish(repository, manifest.model_copy(update={"preprocess": spec, "input": image}))


@pytest.mark.parametrize(
    ("publish_broken", "reason"),
    [
        (publish_tampered, "changed after its gate"),
        (publish_newer_schema, "upgrade the server"),
        (publish_denied, "no variant passed its gate"),
        (publish_without_manifest, "manifest.json"),
        (publish_renamed, "directories keep their names"),
        (publish_too_large, "SACCADE_MAX_SLOT_BYTES"),
    ],
)
def test_a_broken_version_is_refused_with_its_reason_while_the_old_one_goes_on(
    server: Server, repository: Path, publish_broken: object, reason: str
) -> None:
    assert callable(publish_broken)
    model = publish_broken.__name__.replace("_", "-")
    publish_fake(repository, model, 1)
    publish_fake(repository, model, 2)
    server.wait_state(model, 2, "ready")
    with traffic(server, model) as seen:
        publish_broken(repository, model, 3)
        refused = server.wait_state(model, 3, "failed")
    assert reason in refused["reason"]
    assert seen.versions == ["2"]
    assert default_version(server, model) == "2"
    by_path = server.predict(model, red_png(1), path="versions/3/predict")
    assert by_path.status_code == 503
    assert reason in by_path.json()["detail"]
    assert server.is_ready()


def test_a_broken_version_is_tried_again_when_it_is_replaced(server: Server, repository: Path, model: str) -> None:
    publish_tampered(repository, model, 2)
    server.wait_state(model, 2, "failed")
    with traffic(server, model) as seen:
        remove(repository / model / "2")
        publish_fake(repository, model, 2)
        wait_until(lambda: seen.versions[-1] == "2", what="the good version 2 answers")


def test_the_oldest_version_is_unloaded_without_a_failed_request(server: Server, repository: Path, model: str) -> None:
    publish_fake(repository, model, 2)
    server.wait_state(model, 2, "ready")
    with traffic(server, model) as seen, Background() as background:
        slow = background.start(lambda: server.predict(model, SLOW_PNG, path="versions/1/predict"))
        publish_fake(repository, model, 3)
        wait_until(lambda: seen.versions[-1] == "3", what="version 3 answers")
        wait_until(lambda: server.version(model, 1) is None, what="version 1 is unloaded")
        assert slow.result().status_code == 200
    assert seen.versions == ["2", "3"]
    gone = server.predict(model, red_png(1), path="versions/1/predict")
    assert gone.status_code == 404
    assert "2, 3" in gone.json()["detail"]


def test_a_deleted_version_is_unloaded_and_the_one_before_answers(server: Server, repository: Path, model: str) -> None:
    publish_fake(repository, model, 2)
    server.wait_state(model, 2, "ready")
    with traffic(server, model) as seen:
        wait_until(lambda: seen.versions[-1] == "2", what="version 2 answers")
        remove(repository / model / "2")
        wait_until(lambda: seen.versions[-1] == "1", what="version 1 answers again")
        wait_until(lambda: server.version(model, 2) is None, what="version 2 is unloaded")


def test_a_deleted_model_is_gone_and_the_server_stays_ready(server: Server, repository: Path, model: str) -> None:
    unready = []
    gate = Gate(repository / ".gate")
    publish_fake(repository, model, 2, content=gate.content)
    server.wait_state(model, 2, "ready")

    def is_gone() -> bool:
        response = server.readiness()
        if response.status_code != 200:
            unready.append(response.text)
        return server.client.get(f"/v1/models/{model}").status_code == 404

    with Background() as background:
        with gate.closed():
            slow = background.start(lambda: server.predict(model, red_png(1)))
            gate.wait_for_runs(1)  # a request in flight keeps the version loaded
            shutil.rmtree(repository / model)
            wait_until(
                lambda: any(event["model"] == model for event in server.events("version_unloading")), what="it is to go"
            )
            assert not is_gone()
        wait_until(is_gone, what="the model is gone")
        assert slow.result().status_code == 200
    assert unready == []
    assert server.predict(model, red_png(1)).status_code == 404


def test_versions_are_back_after_the_worker_was_lost(server: Server, repository: Path, model: str) -> None:
    publish_fake(repository, model, 2)
    server.wait_state(model, 2, "ready")
    server.worker().kill()
    wait_until(lambda: not server.is_ready(), what="not ready")
    server.wait_ready()
    server.wait_state(model, 1, "ready")
    server.wait_state(model, 2, "ready")
    assert server.predict(model, red_png(1)).json()["version"] == "2"


def test_a_version_that_kills_the_worker_twice_is_given_up_and_others_serve(
    server: Server, repository: Path, model: str
) -> None:
    before = server.metric("saccade_worker_restarts_total")
    publish_fake(repository, model, 2, content=CRASH_ON_LOAD)
    failed = server.wait_state(model, 2, "quarantined")
    assert "killed its worker 2 times" in failed["reason"]
    assert server.metric("saccade_worker_restarts_total") == before + 2
    server.wait_state(model, 1, "ready")
    server.wait_ready()
    assert server.predict(model, red_png(1)).json()["version"] == "1"
    assert server.predict("steady", red_png(1)).status_code == 200


def test_names_that_are_no_versions_are_left_alone(server: Server, repository: Path, model: str) -> None:
    for name in ("007", "latest", ".building-9", "0x1"):
        (repository / model / name).mkdir()
    (repository / model / "8").write_text("a file")
    (repository / ".samples").mkdir()
    publish_fake(repository, model, 2)
    server.wait_state(model, 2, "ready")
    assert [version["version"] for version in server.model(model)["versions"]] == ["2", "1"]
    assert ".samples" not in server.client.get("/v1/models").text


def test_a_server_that_starts_on_broken_models_serves_the_sound_ones(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    publish_fake(root, "sound", 1, Task.DETECT)
    publish(root, manifest_for("broken", 1, content=b"gated bytes"), b"other bytes")
    with running_server(root, tmp_path) as server:
        assert server.predict("sound", red_png(200)).status_code == 200
        refused = server.predict("broken", red_png(1))
        assert refused.status_code == 503
        assert "changed after its gate" in refused.json()["detail"]
        remove(root / "sound" / "1")
        wait_until(lambda: not server.is_ready(), what="nothing is left to serve")
        assert "no model could be loaded" in server.readiness().json()["reason"]
        assert server.client.get("/health/startup").status_code == 200
        assert server.client.get("/health/live").status_code == 200
