"""Several devices: all of them work, one that dies takes only its own requests, memory that is not there is refused."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.images import red_of, red_png
from tests.support.requests import Background, Gate, hold_slots
from tests.support.server import Server, running_server, wait_until
from tests.support.versions import publish_fake, remove

FIRST, SECOND = "cuda:0", "MIG-3d3f9f3e-5f5c-5f9d-8f0f-0123456789ab"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def running(three_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Heals itself, so the tests on two devices share it."""
    workspace = tmp_path_factory.mktemp("server")
    with running_server(three_models, workspace, device=f"{FIRST},{SECOND}", max_batch_size=1, slots=4) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    wait_until(lambda: states(running, "classifier") == ["ready", "ready"], what="both devices serve")
    wait_until(lambda: len(connections(running)) >= 2, what="both workers are connected")
    running.wait_idle()
    return running


def instances(server: Server, model: str, version: int = 1) -> list[dict[str, Any]]:
    found = server.version(model, version)
    return list(found["instances"]) if found else []


def states(server: Server, model: str) -> list[str]:
    return [instance["state"] for instance in instances(server, model)]


def connections(server: Server) -> list[dict[str, Any]]:
    return server.events("worker_connected")


def worker_of(server: Server, device: str) -> psutil.Process:
    """By the device that its environment leaves it."""
    visible = {FIRST: "0", SECOND: SECOND}[device]
    workers = server.children("saccade.service.worker.process")
    return next(worker for worker in workers if worker.environ()["CUDA_VISIBLE_DEVICES"] == visible)


def up(server: Server, device: str) -> float:
    return server.metric("saccade_worker_up", device=device)


def test_every_device_has_a_worker_that_sees_it_alone(server: Server) -> None:
    workers = [worker_of(server, device) for device in (FIRST, SECOND)]

    assert len({worker.pid for worker in workers}) == 2
    assert {worker.environ()["CUDA_DEVICE_ORDER"] for worker in workers} == {"PCI_BUS_ID"}
    assert (up(server, FIRST), up(server, SECOND)) == (1, 1)


def test_models_show_their_instances_by_device(server: Server) -> None:
    expected = {"state": "ready", "reason": "", "variant": "fp32", "backend": "fake", "rung": 0}

    assert instances(server, "detector") == [{"device": FIRST, **expected}, {"device": SECOND, **expected}]
    assert server.version("detector", 1)["device"] == f"{FIRST},{SECOND}"  # type: ignore[index]  # it is ready


def test_one_model_uses_both_devices(server: Server, gate: Gate) -> None:
    """Four slots a device: eight requests at once fit only if each takes four."""
    with Background() as background:
        with gate.closed():
            held = hold_slots(server, background, lambda: server.predict("classifier", red_png(1)), 8)
            overloaded = server.predict("classifier", red_png(1))
        answers = [future.result() for future in held]

    assert [answer.status_code for answer in answers] == [200] * 8
    assert overloaded.status_code == 429, "none has a slot left"


def test_a_killed_device_loses_its_own_requests_only_and_the_other_goes_on(server: Server, gate: Gate) -> None:
    restarts = server.metric("saccade_worker_restarts_total", device=SECOND)
    with Background() as background:
        with gate.closed():
            held = hold_slots(server, background, lambda: server.predict("classifier", red_png(1)), 6)
            worker_of(server, SECOND).send_signal(signal.SIGKILL)
            wait_until(lambda: any(future.done() for future in held), what="the loss is answered")
        answers = [future.result() for future in held]

    lost = [answer for answer in answers if answer.status_code == 503]
    assert {answer.status_code for answer in answers} == {200, 503}
    assert 2 <= len(lost) <= 4, "four slots a device, so each had two at least"
    assert all("the device worker stopped with this request" in answer.json()["detail"] for answer in lost)
    assert red_of(server.predict("detector", red_png(201)).json()["predictions"][0]) == 201
    assert server.is_ready()
    wait_until(lambda: states(server, "classifier") == ["ready", "ready"], what="the device is back")
    assert server.metric("saccade_worker_restarts_total", device=SECOND) == restarts + 1
    assert server.metric("saccade_worker_restarts_total", device=FIRST) == 0
    server.wait_idle()


def test_while_a_device_is_away_every_request_is_answered_by_the_other(server: Server) -> None:
    worker_of(server, SECOND).kill()
    wait_until(lambda: up(server, SECOND) == 0, what="its end was noticed")
    answered = 0

    def is_back() -> bool:
        nonlocal answered
        response = server.predict("classifier", red_png(9))
        assert response.status_code == 200, response.text
        answered += 1
        return states(server, "classifier") == ["ready", "ready"]

    wait_until(is_back, what="the device is back")
    assert answered >= 1


def test_spread_gives_each_version_one_device(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    for name in ("first", "second", "third", "fourth"):
        publish_fake(repository, name, 1)
    with running_server(repository, tmp_path, device="cuda:0,cuda:1", placement="spread") as server:
        placed = [instances(server, name) for name in ("first", "second", "third", "fourth")]
        assert [len(found) for found in placed] == [1] * 4
        assert sorted(found[0]["device"] for found in placed) == ["cuda:0"] * 2 + ["cuda:1"] * 2
        for name in ("first", "fourth"):
            assert server.predict(name, red_png(33)).status_code == 200


def test_a_version_without_room_is_refused_with_figures_and_loaded_when_room_is_made(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    large = publish_fake(repository, "large", 1, content=b"w" * MIB)
    with running_server(repository, tmp_path, device="cuda:0", device_memory_limit_mb=3) as server:
        # fits exactly, and only alone, however little the first one was measured to hold
        publish_fake(repository, "larger", 1, content=b"w" * (3 * MIB // 2))
        refused = server.wait_state("larger", 1, "failed")
        assert refused["reason"].startswith("needs 3.0 MiB (estimated from its files); cuda:0 has ")
        assert "of 3.0 MiB free, held by: large/1 fp32 " in refused["reason"]
        assert server.predict("large", red_png(5)).status_code == 200
        assert server.is_ready()

        remove(large)

        server.wait_state("larger", 1, "ready")
        assert server.predict("larger", red_png(6)).status_code == 200
    assert len(server.events("version_has_no_room")) == 1
