"""Engines in a running server: built, measured, swapped in and kept, while every request is answered.

Supervisor, API process, worker and builder are real processes; only CUDA and TensorRT are simulated, so nothing here is
said of a GPU.
"""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.pipeline.published_tiny import DENSE, SPARSE, Published
from tests.support.images import scene_jpeg
from tests.support.server import Server, call_saccade, running_server, wait_until

MODEL = "tiny-classifier"


class Place:
    """A repository with one version, and where its plans lie."""

    def __init__(self, published: Published, root: Path) -> None:
        self.root = root
        self.repository = root / "repository"
        self.engines = root / "engines"
        shutil.copytree(published.version_dir, self.repository / MODEL / "1")

    @contextmanager
    def server(
        self, build: str = "accept", *, wait: bool = True, tensorrt: str = "", **settings: Any
    ) -> Iterator[Server]:
        options = {
            "backend": "auto",
            "device": "cuda:0",
            "engines_dir": self.engines,
            "jpeg_decoder": "cpu",
            "allow_unjudged": "true",  # the tiny networks of these tests have no labels
            **settings,
        }
        with running_server(
            self.repository,
            self.root,
            wait=wait,
            program=(sys.executable, "-m", "tests.support.simulated_server"),
            environment={"SIMULATED_BUILD": build, "SIMULATED_TENSORRT": tensorrt},
            **options,
        ) as server:
            yield server

    def plans(self) -> list[dict[str, Any]]:
        result = call_saccade(
            "repository", "engines", "--repository", str(self.repository), "--engines-dir", str(self.engines), "--json"
        )
        assert result.returncode == 0, result.stderr
        found: list[dict[str, Any]] = json.loads(result.stdout)
        return found


@pytest.fixture
def place(published: Published, tmp_path: Path) -> Place:
    return Place(published, tmp_path)


class Traffic:
    """Requests without a pause, until told to stop."""

    def __init__(self, server: Server) -> None:
        self.statuses: list[int] = []
        self.variants: list[str] = []
        self._url = f"{server.base_url}/v1/models/{MODEL}/predict"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        body = scene_jpeg()
        with httpx.Client(timeout=30) as client:
            while not self._stop.is_set():
                answer = client.post(self._url, content=body, headers={"Content-Type": "image/jpeg"})
                self.statuses.append(answer.status_code)
                if answer.is_success:
                    self.variants.append(answer.json()["variant"])


def version(server: Server) -> dict[str, Any]:
    found = server.version(MODEL, 1)
    assert found is not None
    return found


def engine_states(server: Server) -> dict[str, str]:
    return {engine["variant"]: engine["state"] for engine in version(server)["engines"]}


def is_served_by(server: Server, variant: str, backend: str = "tensorrt") -> bool:
    found = version(server)
    serving = [(item["backend"], item["variant"]) for item in found["instances"] if item["state"] == "ready"]
    return serving == [(backend, variant)]


def test_plan_takes_over_without_a_lost_request(place: Place) -> None:
    with place.server() as server, Traffic(server) as traffic:
        wait_until(lambda: is_served_by(server, SPARSE), 60, "the fastest plan serves")
        count = len(traffic.variants)
        wait_until(lambda: len(traffic.variants) > count + 5, what="requests go on")
        final = version(server)
        state = server.metric("saccade_engine_state", variant=SPARSE, state="ready")

    assert set(traffic.statuses) == {200}
    # ONNX Runtime first, then the first plan that was accepted, then the fastest one
    assert list(dict.fromkeys(traffic.variants)) == ["fp32", DENSE, SPARSE]
    assert (final["state"], final["variant"]) == ("ready", SPARSE)
    (engine,) = final["engines"]
    assert (engine["device"], engine["state"], engine["images_per_s"]) == ("cuda:0", "ready", 250.0)
    assert state == 1.0
    assert {(plan["variant"], plan["state"]) for plan in place.plans()} == {(DENSE, "accepted"), (SPARSE, "accepted")}


def test_without_tensorrt_the_fastest_variant_that_passes_in_onnx_runtime_takes_over(
    published_half: Published, tmp_path: Path
) -> None:
    bare = Place(published_half, tmp_path)
    with bare.server(tensorrt="none") as server, Traffic(server) as traffic:
        wait_until(lambda: is_served_by(server, "fp16", "onnxruntime"), 60, "the faster variant serves")
        both = {("fp16", "accepted"), ("fp32", "accepted")}
        wait_until(lambda: {(plan["variant"], plan["state"]) for plan in bare.plans()} == both, 60, "both are judged")
        count = len(traffic.variants)
        wait_until(lambda: len(traffic.variants) > count + 5, what="requests go on")
        wait_until(lambda: engine_states(server).get("fp16") == "ready", what="what serves is shown")
        final = version(server)

    assert set(traffic.statuses) == {200}
    assert list(dict.fromkeys(traffic.variants)) == ["fp32", "fp16"]
    assert "no TensorRT is installed" in final["engines"][-1]["reason"]

    with bare.server("crash", tensorrt="none") as server:
        wait_until(lambda: is_served_by(server, "fp16", "onnxruntime"), what="what was found before serves")
        assert server.events("engine_building") == []


def test_stored_plan_serves_from_the_start(place: Place) -> None:
    with place.server() as server:
        wait_until(lambda: is_served_by(server, SPARSE), 60, "the fastest plan serves")

    with place.server("crash") as server:
        wait_until(lambda: is_served_by(server, SPARSE), what="the stored plan serves")
        assert server.events("engine_building") == []
        assert [event["variant"] for event in server.events("version_ready")] == [SPARSE]


def test_plans_that_their_gate_denies_never_serve_and_are_not_built_again(place: Place) -> None:
    with place.server("deny") as server:
        wait_until(lambda: any(item["state"] == "missing" for item in version(server)["engines"]), 60, "all denied")
        assert server.predict(MODEL, scene_jpeg()).json()["variant"] == "fp32"
        assert "plan_precision" in version(server)["engines"][-1]["reason"]
        assert len(server.events("engine_denied")) == 2

    with place.server("deny") as server:
        wait_until(lambda: any(item["state"] == "missing" for item in version(server)["engines"]), what="known denied")
        assert server.events("engine_building") == []
    assert {plan["state"] for plan in place.plans()} == {"denied"}


def test_builder_that_dies_is_given_up_and_costs_no_request(place: Place) -> None:
    with place.server("crash") as server, Traffic(server) as traffic:
        wait_until(lambda: len(server.events("engine_failed")) == 4, 60, "two attempts for each of two variants")
        wait_until(lambda: any(item["state"] == "missing" for item in version(server)["engines"]), what="given up")
        count = len(traffic.statuses)
        wait_until(lambda: len(traffic.statuses) > count + 5, what="requests go on")
        reasons = [event["reason"] for event in server.events("engine_failed")]
        states = engine_states(server)

    assert set(traffic.statuses) == {200}
    assert set(reasons) == {"the build ended with exit code 9: the simulated builder dies"}
    assert states[DENSE] == states[SPARSE] == "failed"


def test_damaged_plan_is_built_anew(place: Place) -> None:
    with place.server() as server:
        wait_until(lambda: is_served_by(server, SPARSE), 60, "the fastest plan serves")
    (damaged,) = [Path(plan["path"]) / "plan" for plan in place.plans() if plan["variant"] == SPARSE]
    damaged.write_bytes(damaged.read_bytes()[:-3])

    with place.server() as server:
        wait_until(lambda: is_served_by(server, SPARSE), 60, "the plan was built anew")
        failed = server.events("version_failed")
        assert len(failed) == 1
        assert "cut off or replaced" in failed[0]["reason"]
        assert [event["variant"] for event in server.events("engine_building")] == [SPARSE]


def test_nothing_serves_before_the_plan_where_that_is_not_allowed(place: Place) -> None:
    with place.server(wait=False, serve_while_building="false", variant=DENSE) as server:
        seen = [wait_until(lambda: server.version(MODEL, 1), what="the version is known")["state"]]
        wait_until(lambda: is_served_by(server, DENSE), 60, "the plan serves")
        states = [event["variant"] for event in server.events("version_ready")]

    assert states == [DENSE]
    assert seen[0] in ("loading", "building", "warming")


def test_terminating_kills_a_running_build(place: Place) -> None:
    with place.server("hang") as server:
        wait_until(lambda: "building" in engine_states(server).values(), what="a build runs")
        (child,) = server.children("tests.support.simulated_build")
        assert server.stop() == 0

    _, alive = psutil.wait_procs([child], timeout=20)
    assert alive == []


def rungs(server: Server) -> list[tuple[int, str, str]]:
    found = version(server)["instances"]
    return sorted((item["rung"], item["backend"], item["variant"]) for item in found if item["state"] == "ready")


def test_plans_become_rungs_of_a_ladder_while_every_request_is_answered(place: Place) -> None:
    names = f"{DENSE},{SPARSE}"
    with place.server(ladder=names, max_batch_size=1) as server, Traffic(server) as traffic:
        wanted = [(0, "tensorrt", DENSE), (1, "tensorrt", SPARSE)]
        wait_until(lambda: rungs(server) == wanted, 60, "both plans are loaded")
        for rung, name in enumerate((DENSE, SPARSE)):
            answer = server.predict(MODEL, scene_jpeg(), params={"variant": name})
            assert (answer.json()["variant"], answer.headers["x-saccade-rung"]) == (name, str(rung))

    assert set(traffic.statuses) == {200}
    assert list(dict.fromkeys(traffic.variants)) == ["fp32", DENSE], "the cheaper rung is not needed"


def test_on_demand_the_first_request_loads_and_has_plans_built(place: Place) -> None:
    with place.server(load_models="on_demand", max_batch_size=1) as server:
        assert version(server)["reason"] == "loads on first request"
        assert server.events("engine_building") == []

        first = server.predict(MODEL, scene_jpeg())

        assert (first.status_code, first.json()["variant"]) == (200, "fp32")
        wait_until(lambda: is_served_by(server, SPARSE), 60, "the fastest plan serves")
        assert server.predict(MODEL, scene_jpeg()).json()["variant"] == SPARSE
        assert len(server.events("version_wanted")) == 1
