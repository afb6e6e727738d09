"""Several variants of one version: under load the cheaper one answers, afterwards the better one again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.images import red_of, red_png
from tests.support.requests import Background
from tests.support.server import Server, running_server, wait_until
from tests.support.versions import manifest_for, publish, with_costs, with_files, with_variants

OBJECTIVE_MS = 1000
CLIENTS = 24  # at 100 ms an image 2.4 s of work, at 2 ms a twentieth of the objective


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One image at a time, so that costs add up."""
    root = tmp_path_factory.mktemp("repository")
    manifest = with_variants(manifest_for("digits", 1), fp32=(0.95, 25), int8_cpu=(0.94, 500))
    costly, files = with_costs(manifest, fp32=100, int8_cpu=2)
    publish(root, costly, files=files)
    workspace = tmp_path_factory.mktemp("server")
    settings = {"ladder": "auto", "objective_ms": OBJECTIVE_MS, "max_batch_size": 1}
    with running_server(root, workspace, **settings) as running:
        wait_until(lambda: len(variants_ready(running)) == 2, what="both rungs are loaded")
        yield running


def variants_ready(server: Server) -> list[tuple[str, int]]:
    found = server.version("digits", 1)
    instances = found["instances"] if found else []
    return [(item["variant"], item["rung"]) for item in instances if item["state"] == "ready"]


def rung_of(response: httpx.Response) -> tuple[str, str]:
    assert response.status_code == 200, response.text
    return response.json()["variant"], response.headers["x-saccade-rung"]


def answers(server: Server, variant: str) -> float:
    return server.metric("saccade_answers_by_variant_total", model="digits", version="1", variant=variant)


@contextmanager
def flood(server: Server) -> Iterator[None]:
    """So many clients that always have a request in flight, all of which are answered."""
    stop = threading.Event()

    def flow() -> None:
        red = 0
        while not stop.is_set():
            red = (red + 10) % 250
            answer = server.predict("digits", red_png(red))
            assert answer.status_code == 200, answer.text
            assert red_of(answer.json()["predictions"][0]) == red

    with Background(CLIENTS) as background:
        flowing = [background.start(flow) for _ in range(CLIENTS)]
        try:
            yield
        finally:
            stop.set()
        for each in flowing:
            each.result()


def test_rungs_are_listed_best_first(server: Server) -> None:
    assert sorted(variants_ready(server), key=lambda item: item[1]) == [("fp32", 0), ("int8-cpu", 1)]
    assert server.version("digits", 1)["variant"] == "fp32"  # type: ignore[index]  # it is ready


def test_under_load_the_cheaper_variant_answers_and_afterwards_the_better_one_again(server: Server) -> None:
    wait_until(lambda: rung_of(server.predict("digits", red_png(7))) == ("fp32", "0"), what="the best rung answers")
    with flood(server):
        wait_until(
            lambda: rung_of(server.predict("digits", red_png(7))) == ("int8-cpu", "1"), what="the ladder steps down"
        )
        wait_until(lambda: server.metric("saccade_brownout_rung", model="digits") == 1, what="the metric says so")

        forbidden = server.predict("digits", red_png(7), params={"allow_cheaper": "false"})
        pinned = server.predict("digits", red_png(7), params={"variant": "fp32"})

        assert rung_of(forbidden) == rung_of(pinned) == ("fp32", "0")
        before = answers(server, "int8-cpu")
        wait_until(lambda: answers(server, "int8-cpu") > before + CLIENTS, what="the cheaper variant answers")

    wait_until(lambda: rung_of(server.predict("digits", red_png(7))) == ("fp32", "0"), what="the best rung is back")
    wait_until(lambda: server.metric("saccade_brownout_rung", model="digits") == 0, what="the metric says so")
    assert answers(server, "fp32") > 0


def test_any_loaded_variant_can_be_pinned_at_any_time(server: Server) -> None:
    cheaper = server.predict("digits", red_png(7), params={"variant": "int8-cpu"})
    unknown = server.predict("digits", red_png(7), params={"variant": "fp16"})

    assert rung_of(cheaper) == ("int8-cpu", "1")
    assert unknown.status_code == 422
    assert "loaded: 'fp32', 'int8-cpu'" in unknown.json()["detail"]


def test_a_rung_without_room_is_left_out_with_its_reason(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    manifest = with_variants(manifest_for("digits", 1), fp32=(0.95, 25), int8_cpu=(0.94, 500))
    costly, files = with_costs(manifest, fp32=1, int8_cpu=1)
    files["int8_cpu.onnx"] += b" " * (3 * 1024 * 1024)
    publish(repository, with_files(costly, files), files=files)
    with running_server(repository, tmp_path, ladder="fp32,int8-cpu", device_memory_limit_mb=5) as server:
        found = server.wait_state("digits", 1, "ready")
        wait_until(lambda: server.events("rung_has_no_room"), what="the log says so")

        (left_out,) = [item for item in found["instances"] if item["rung"] == 1]
        assert left_out["state"] == "failed"
        assert left_out["reason"].startswith("needs 6.0 MiB (estimated from its files); cpu has ")
        assert rung_of(server.predict("digits", red_png(3))) == ("fp32", "0")
        assert server.is_ready()
