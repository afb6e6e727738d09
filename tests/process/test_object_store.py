"""A server whose repository is in an object store: it starts, follows, and outlives a store that is gone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.images import red_png
from tests.support.object_store import (
    SECRET,
    URL,
    FaultyStore,
    ObjectStoreServer,
    object_store_server,
    store_at,
    upload,
)
from tests.support.ports import free_port
from tests.support.server import Server, run_saccade, running_server, wait_until
from tests.support.traffic import flowing
from tests.support.versions import publish_fake


@pytest.fixture
def object_store(tmp_path: Path) -> Iterator[ObjectStoreServer]:
    with object_store_server(tmp_path) as running:
        yield running


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


def publish(source: Path, version: int, model: str = "cat", **options: str) -> None:
    upload(publish_fake(source, model, version), store_at(), **options)  # type: ignore[arg-type]


def answering(server: Server) -> str | None:
    try:
        response = server.predict("cat", red_png(60))
    except httpx.TransportError:  # the instant in which the port goes from the waiting server to the first process
        return None
    return str(response.json()["version"]) if response.is_success else None


def test_a_server_serves_from_a_store_and_outlives_it(
    object_store: ObjectStoreServer, source: Path, tmp_path: Path
) -> None:
    publish(source, 1)
    settings = {"environment": object_store.environment, "admin_port": 0}
    with running_server(Path(URL), tmp_path, **settings) as server:
        assert answering(server) == "1"

        publish(source, 2)
        wait_until(lambda: answering(server) == "2", what="version 2 answers")

        change = run_saccade(
            "rollout", "promote", "cat", "1", "--repository", URL, environment=object_store.environment
        )
        assert change.returncode == 0, change.stderr
        wait_until(lambda: answering(server) == "1", what="the document rules")
        assert server.model("cat")["serving"]["generation"] == 1
        back = run_saccade("rollout", "rollback", "cat", "2", "--repository", URL, environment=object_store.environment)
        assert back.returncode == 0, back.stderr
        wait_until(lambda: answering(server) == "2", what="the rollback rules")

        upload(publish_fake(source, "cat", 3), store_at(), without=("model.onnx",))
        wait_until(lambda: server.version("cat", 3), what="version 3 is listed as refused")
        assert "which the store does not have" in str(server.version("cat", 3))

        object_store.stop()
        wait_until(lambda: server.events("object_store_unreadable"), what="the server says that the store is gone")
        wait_until(lambda: "cannot be reached" in str(server.version("cat", 2)), what="so does the list of models")
        assert server.is_ready()
        assert answering(server) == "2"

    # The next server finds the copy, and no store.
    with running_server(Path(URL), tmp_path, **settings) as server:
        assert answering(server) == "2"

        object_store.start()  # it lost everything
        wait_until(lambda: "shows no version" in server.logs(), what="the server says that the store is empty")
        assert answering(server) == "2"
        assert SECRET not in server.logs()


def test_the_server_carries_a_rollout_on_and_changes_documents_in_the_store(
    object_store: ObjectStoreServer, source: Path, tmp_path: Path
) -> None:
    publish(source, 1)
    publish(source, 2)
    keys = tmp_path / "keys"
    keys.write_text("admin-key-of-alice scopes=predict,read,admin name=alice\n")
    settings = {"api_keys_file": keys, "admin_port": free_port(), "open_without_key": "metrics,docs"}
    authorization = {"Authorization": "Bearer admin-key-of-alice"}
    with running_server(Path(URL), tmp_path, wait=False, environment=object_store.environment, **settings) as server:
        server.wait_ready()
        server.client.headers.update(authorization)
        patient = ["--min-time", "1", "--min-requests", "50", "--more-errors", "0.05", "--slower", "3"]
        arguments = ["rollout", "start", "cat", "2", "--steps", "50%", "--sample", "0", *patient, "--repository", URL]
        begun = run_saccade(*arguments, environment=object_store.environment)
        assert begun.returncode == 0, begun.stderr
        with flowing(server, "cat") as statuses:
            wait_until(lambda: document().get("labels") == {"stable": 2}, 60.0, "version 2 became stable in the store")
        assert {*statuses} == {200}
        assert document()["changed_by"].startswith("saccade at")

        url = f"http://127.0.0.1:{settings['admin_port']}/admin/v1/models/cat/promote"
        change = httpx.post(url, json={"version": 1, "wait_s": 20}, headers=authorization, timeout=30.0)
        assert (change.status_code, change.json()["in_force"]) == (200, True), change.text
        assert document()["labels"] == {"stable": 1}
        stale = httpx.post(url, json={"version": 2, "expected_generation": 1}, headers=authorization, timeout=30.0)
        assert stale.status_code == 409


def document() -> dict[str, Any]:
    read = store_at().read("cat/serving.json", 10_000)
    found: dict[str, Any] = {} if read is None else json.loads(read.content)
    return found


def test_a_version_that_does_not_come_keeps_no_other_from_serving(
    object_store: ObjectStoreServer, source: Path, tmp_path: Path
) -> None:
    publish(source, 1)
    publish(source, 1, "dog")
    store = FaultyStore(store_at())
    store.remove("dog/1/model.onnx")
    with running_server(Path(URL), tmp_path, environment=object_store.environment) as server:
        assert answering(server) == "1"
        assert server.is_ready()


def test_an_address_without_a_bucket_refuses_the_start(object_store: ObjectStoreServer) -> None:
    result = run_saccade("serve", "--repository", "s3://", "--port", "0", environment=object_store.environment)

    assert result.returncode != 0
    assert "names no bucket" in result.stderr


def test_a_first_start_waits_for_a_store_that_cannot_be_read_and_says_why(
    object_store: ObjectStoreServer, source: Path, tmp_path: Path
) -> None:
    environment = object_store.environment
    with running_server(Path("s3://late/vision"), tmp_path, wait=False, environment=environment) as server:
        wait_until(lambda: "404 Not Found: no such bucket" in server.logs(), what="it says what is wrong")
        assert server.client.get("/health/live").json() == {"status": "ok", "reason": ""}
        assert server.client.get("/health/startup").status_code == 200, "a restart would not help"
        waiting = server.readiness()
        assert (waiting.status_code, waiting.headers["retry-after"]) == (503, "5")
        assert "no such bucket" in waiting.json()["reason"]
        assert answering(server) is None

        object_store.make_bucket("late")
        upload(publish_fake(source, "cat", 1), store_at("s3://late/vision"))
        wait_until(server.is_ready, 40.0, what="it serves what has come")
        assert answering(server) == "1"
        assert SECRET not in server.logs()


def test_a_server_that_waits_for_its_store_ends_by_sigterm(object_store: ObjectStoreServer, tmp_path: Path) -> None:
    with running_server(Path("s3://late/vision"), tmp_path, wait=False, environment=object_store.environment) as server:
        wait_until(lambda: "no such bucket" in server.readiness().text, what="it waits")
        server.terminate()

        assert server.wait() == 0


def test_a_store_that_hangs_delays_no_start_for_long_and_is_told(
    object_store: ObjectStoreServer, source: Path, tmp_path: Path
) -> None:
    publish(source, 1)
    settings = {"environment": object_store.environment}
    with running_server(Path(URL), tmp_path, **settings) as server:
        object_store.hang()
        command = run_saccade("rollout", "status", "cat", "--repository", URL, environment=object_store.environment)
        assert "no answer in time" in command.stderr
        assert f"waiting for {URL}: list cat/" in command.stderr
        wait_until(lambda: "no answer in time" in str(server.version("cat", 1)), 15.0, what="the notice is there")

    with running_server(Path(URL), tmp_path, **settings) as server:  # it waits for less than 30 s
        assert answering(server) == "1"
        object_store.go_on()
        wait_until(lambda: "no answer in time" not in str(server.version("cat", 1)), 30.0, what="the notice goes")


def test_a_damaged_copy_is_not_taken_for_a_version_to_publish_again(
    object_store: ObjectStoreServer, source: Path, tmp_path: Path
) -> None:
    publish(source, 1)
    settings = {"environment": object_store.environment}
    with running_server(Path(URL), tmp_path, **settings) as server:
        assert answering(server) == "1"
    (copied,) = tmp_path.glob("cache/saccade/repositories/*/versions/cat/1/model.onnx")
    copied.write_bytes(b"WEIGHTS")
    with running_server(Path(URL), tmp_path, wait=False, **settings) as server:
        wait_until(lambda: answering(server) == "1", 40.0, what="the copy was fetched again")
        (refused,) = server.events("version_refused")
        assert "the copy on this machine is damaged" in str(refused)
        assert "publish the version again" not in server.logs()
