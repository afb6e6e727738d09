"""Models loaded by their first request: all answer, memory stays bounded, pinned ones stay, a flood loads once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import red_of, red_png
from tests.support.requests import Background, Gate, at_once, held_device
from tests.support.server import Server, running_server, wait_until
from tests.support.versions import publish_fake

MIB = 1024 * 1024
NAMES = ("first", "second", "third")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Three models."""
    root = tmp_path / "repository"
    for name in NAMES:
        publish_fake(root, name, 1)
    return root


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[Server]:
    """Room for two, of which one is pinned."""
    settings = {"load_models": "on_demand", "pinned_models": "first", "max_loaded_models": 2}
    with running_server(repository, tmp_path, **settings) as running:
        yield running


def loaded(server: Server) -> set[str]:
    """Models with anything in the worker."""
    listed = server.client.get("/v1/models").json()["models"]
    return {model["name"] for model in listed if any(version["device"] for version in model["versions"])}


def ask(server: Server, name: str, red: int = 9) -> None:
    answer = server.predict(name, red_png(red))
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == name
    assert red_of(answer.json()["predictions"][0]) == red


def test_models_wait_for_their_first_request_and_the_server_is_ready(server: Server) -> None:
    found = server.version("second", 1)

    assert found is not None
    assert (found["state"], found["reason"]) == ("loading", "loads on first request")
    assert (found["on_demand"], found["instances"], found["load_seconds"]) == (True, [], None)
    assert server.version("first", 1)["state"] == "ready"  # type: ignore[index]  # pinned
    assert server.is_ready()
    assert loaded(server) == {"first"}


def test_requests_rotate_over_more_models_than_fit(server: Server) -> None:
    for _ in range(2):
        for name in NAMES:
            ask(server, name)
            assert loaded(server) <= set(NAMES)
            assert len(loaded(server)) <= 2
            assert "first" in loaded(server)

    evicted = [event["model"] for event in server.events("version_evicted")]
    assert evicted == ["second", "third", "second"]
    assert server.outcomes("ok") == 6
    assert server.version("third", 1)["load_seconds"] > 0  # type: ignore[index,operator]  # it is there
    assert server.metric("saccade_model_load_seconds", model="third", version="1") > 0


def test_a_flood_of_first_requests_loads_once(server: Server) -> None:
    answers = at_once(lambda red: server.predict("second", red_png(red)), range(10, 42), threads=32)

    assert [answer.status_code for answer in answers] == [200] * 32
    assert [red_of(answer.json()["predictions"][0]) for answer in answers] == list(range(10, 42))
    assert len(server.events("version_wanted")) == 1
    ready = [event for event in server.events("version_ready") if event["model"] == "second"]
    assert len(ready) == 1


def test_a_version_in_use_is_not_evicted(server: Server, repository: Path, tmp_path: Path) -> None:
    """Whoever needs its place gets 503 at its own deadline."""
    gate = Gate(tmp_path / "gate")
    publish_fake(repository, "second", 2, content=gate.content)
    wait_until(lambda: server.version("second", 2), what="version 2 is known")
    ask(server, "second")
    with Background() as background, held_device(server, background, gate, "second"):
        refused = server.predict("third", red_png(1), params={"deadline_ms": 2000})
        assert server.events("version_evicted") == []

    assert refused.status_code == 503
    assert "third/1 is being loaded, not loaded within the 2 s" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    ask(server, "third")  # it got its place afterwards


def test_memory_bounds_what_is_loaded(tmp_path: Path) -> None:
    """Until it was measured each is taken to fill the device, so whatever is there must leave for it.

    What is measured of a load on a CPU varies by some MiB; these files are large against that.
    """
    repository = tmp_path / "repository"
    for name in NAMES:
        publish_fake(repository, name, 1, content=name.encode().ljust(20 * MIB))
    with running_server(repository, tmp_path, load_models="on_demand", device_memory_limit_mb=40) as server:
        for name in (*NAMES, *NAMES):
            ask(server, name)
        assert [event["model"] for event in server.events("version_evicted")][:2] == ["first", "second"]
        assert server.events("version_has_no_room") == []


def test_a_version_larger_than_memory_says_so(repository: Path, tmp_path: Path) -> None:
    publish_fake(repository, "large", 1, content=b"w" * (20 * MIB))
    with running_server(repository, tmp_path, load_models="on_demand", device_memory_limit_mb=39) as server:
        ask(server, "first")
        refused = server.predict("large", red_png(1))

        assert refused.status_code == 503
        assert "needs 40.0 MiB (estimated from its files); cpu has " in refused.json()["detail"]
        assert loaded(server) == {"first"}, "nothing leaves in vain"


def test_a_new_version_of_a_loaded_model_takes_over_without_being_asked_for(server: Server, repository: Path) -> None:
    ask(server, "second")
    publish_fake(repository, "second", 2)
    server.wait_state("second", 2, "ready")

    assert server.predict("second", red_png(4)).json()["version"] == "2"


def test_the_label_stable_loads_it_too(server: Server) -> None:
    answer = server.predict("third", red_png(4), path="labels/stable/predict")

    assert answer.status_code == 200, answer.text
    assert wait_until(lambda: loaded(server) == {"first", "third"}, what="it is loaded")
