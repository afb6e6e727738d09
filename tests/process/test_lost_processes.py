"""Processes that die or hang. Each loss costs only the requests it held, and the server is back by itself.

Each model kills the worker once: twice, and it would be quarantined.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from saccade.service.worker.process import EXIT_DEVICE_LOST
from tests.support.images import CRASH_PNG, HANG_PNG, LOST_PNG, json_body, red_of, red_png
from tests.support.requests import Background, Gate, held_device, hold_slots, wait_queued
from tests.support.server import Server, running_server, wait_until

HANG_TIMEOUT_MS = 4000


@pytest.fixture(scope="module")
def running(three_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Heals itself, so all tests share it."""
    with running_server(
        three_models,
        tmp_path_factory.mktemp("server"),
        hang_timeout_ms=HANG_TIMEOUT_MS,
        max_batch_size=4,
        max_queue_delay_ms=30,
    ) as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    running.wait_ready()
    running.wait_idle()
    return running


def restarts(server: Server) -> float:
    return server.metric("saccade_worker_restarts_total", device="cpu")


def is_replaced(server: Server, before: float) -> bool:
    """One restart more is counted, and then readiness is back: before, it could be the lost worker's."""
    return restarts(server) == before + 1 and server.is_ready()


def arenas(server: Server) -> int:
    """Shared memories for slots that the HTTP process has."""
    (process,) = server.api_processes()
    return sum("saccade-slots" in str(each.readlink()) for each in Path(f"/proc/{process.pid}/fd").iterdir())


def test_all_three_models_are_ready(server: Server) -> None:
    for model in ("classifier", "detector", "segmenter"):
        version = server.version(model, 1)
        assert version is not None
        assert version["state"] == "ready"
        assert server.predict(model, red_png(200)).status_code == 200


def test_a_killed_worker_costs_only_its_requests_and_comes_back(server: Server, gate: Gate) -> None:
    before = restarts(server)
    worker = server.worker()
    with Background() as background, gate.closed():
        waiting = hold_slots(server, background, lambda: server.predict("classifier", red_png(1)), 3)
        worker.send_signal(signal.SIGKILL)
        reasons = wait_until(lambda: not_ready_reason(server), what="not ready")
        answers = [future.result() for future in waiting]
    assert "worker" in reasons
    assert [answer.status_code for answer in answers] == [503] * 3
    assert all("retry shortly" in answer.json()["detail"] for answer in answers)
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    wait_until(lambda: is_replaced(server, before), what="a new worker serves")
    wait_until(lambda: arenas(server) == 1, what="the slots that the lost worker shared are given back")
    assert server.worker().pid != worker.pid
    assert red_of(server.predict("classifier", red_png(70)).json()["predictions"][0]) == 70
    server.wait_idle()


def not_ready_reason(server: Server) -> str:
    response = server.readiness()
    return "" if response.status_code == 200 else str(response.json()["reason"])


def test_workers_that_end_leave_no_files(server: Server) -> None:
    """What they counted is in files that are no process's own."""

    def owners() -> set[str]:
        return {path.stem.rpartition("_")[2] for path in server.runtime_dir().rglob("*.db")}

    for _ in range(3):
        before = restarts(server)
        assert server.predict("classifier", red_png(9)).status_code == 200
        server.worker().kill()
        wait_until(lambda: is_replaced(server, before), what="the worker is replaced")  # noqa: B023  # called in its turn
    assert server.predict("classifier", red_png(9)).status_code == 200

    living = {str(process.pid) for process in server.family()}
    wait_until(lambda: owners() == {"ended", *living}, what="counts are added up")
    assert len([*server.runtime_dir().rglob("worker-0-*.sock")]) == 1


def test_requests_meet_503_while_the_worker_is_away(server: Server, gate: Gate) -> None:
    before = restarts(server)
    with gate.closed():  # the next worker cannot warm up
        server.worker().kill()
        wait_until(lambda: not_ready_reason(server), what="not ready")
        response = server.predict("classifier", red_png(1))
        assert (response.status_code, "retry-after" in response.headers) == (503, True)
        assert server.client.get("/health/live").status_code == 200
    while not is_replaced(server, before):
        assert server.predict("classifier", red_png(1)).status_code in (200, 503)


def test_a_crash_in_the_middle_of_a_batch_is_answered_and_healed(server: Server, gate: Gate) -> None:
    before = restarts(server)
    images = [red_png(1), CRASH_PNG, red_png(2)]
    with Background() as background:
        with held_device(server, background, gate, "detector"):
            asked = background.start(
                lambda: server.client.post("/v1/models/classifier/predict", json=json_body(*images))
            )
            wait_queued(server, "classifier", 3)
        response = asked.result()
    errors = [prediction.get("error", {}).get("status") for prediction in response.json()["predictions"]]
    assert errors == [503] * 3
    wait_until(lambda: is_replaced(server, before), what="a new worker serves")
    assert red_of(server.predict("detector", red_png(200)).json()["predictions"][0]) == 200
    server.wait_idle()


def test_a_lost_device_answers_what_it_held_and_ends_the_worker_by_a_code_of_its_own(server: Server) -> None:
    before = restarts(server)
    images = [red_png(1), LOST_PNG, red_png(2)]

    response = server.client.post("/v1/models/detector/predict", json=json_body(*images))

    errors = [prediction.get("error", {}).get("status") for prediction in response.json()["predictions"]]
    assert errors[1] == 503  # reported before the process ended: nobody had to notice its end
    assert {errors[0], errors[2]} <= {None, 500, 503}  # in a batch before it, with it, or after it
    wait_until(lambda: is_replaced(server, before), what="a new worker serves")
    assert server.events("device_lost")[-1]["reason"] == "the fake backend was asked to lose its device"
    assert server.events("worker_died")[-1]["exit_code"] == EXIT_DEVICE_LOST
    assert red_of(server.predict("classifier", red_png(200)).json()["predictions"][0]) == 200
    server.wait_idle()


def test_a_hung_worker_is_replaced_and_every_request_has_one_outcome_in_time(server: Server) -> None:
    before = restarts(server)
    worker = server.worker()
    deadline_ms = 600

    def timed(image: bytes, model: str = "classifier") -> tuple[httpx.Response, float]:
        start_s = time.monotonic()
        response = server.predict(model, image, params={"deadline_ms": str(deadline_ms)})
        return response, time.monotonic() - start_s

    with Background() as background:
        hung = background.start(lambda: timed(HANG_PNG, "segmenter"))
        others = [background.start(lambda: timed(red_png(5))) for _ in range(6)]
        patient = background.start(lambda: server.predict("classifier", red_png(6), params={"deadline_ms": "50000"}))
        answers = [future.result() for future in (hung, *others)]
        assert patient.result().status_code in (200, 503), "held by the hung worker, or answered before it hung"
    assert answers[0][0].status_code == 504
    for response, seconds in answers:
        assert response.status_code in (200, 429, 504)
        assert seconds < HANG_TIMEOUT_MS / 1000, "at its deadline, before anybody knows that the worker hangs"
    wait_until(lambda: is_replaced(server, before), what="a new worker serves")
    assert not worker.is_running()
    assert server.events("worker_hangs")
    assert red_of(server.predict("classifier", red_png(71)).json()["predictions"][0]) == 71
    server.wait_idle()


def test_a_killed_api_process_is_replaced_while_the_other_keeps_answering(three_models: Path, tmp_path: Path) -> None:
    with running_server(three_models, tmp_path, api_processes=2) as server:
        server.wait_ready()
        before = {process.pid for process in server.api_processes()}
        assert len(before) == 2
        worker = server.worker()
        killed = server.api_processes()[0]
        killed.kill()
        killed.wait()
        answered = 0

        def is_replaced() -> bool:
            nonlocal answered
            # A new connection every time: the kernel must never choose the process that is gone, or one that is not
            # ready to answer yet.
            response = httpx.post(f"{server.base_url}/v1/models/classifier/predict", content=red_png(3), timeout=30)
            assert response.status_code == 200, response.text
            answered += 1
            return len(server.api_processes()) == 2 and len(server.events("worker_connected")) == 3

        wait_until(is_replaced, what="a second API process is back")
        assert {process.pid for process in server.api_processes()} - before, "one of them is new"
        assert server.worker().pid == worker.pid, "the worker stays"
        # The connection that was the server fixture's own may have died with its process.
        metrics = httpx.get(f"{server.base_url}/metrics", timeout=30).text
    assert f'saccade_requests_total{{model="classifier",outcome="ok",version="1"}} {float(answered)}' in metrics


def test_an_api_process_killed_with_requests_in_flight_frees_the_worker(server: Server, gate: Gate) -> None:
    (api,) = server.api_processes()
    with Background() as background, gate.closed():
        lost = hold_slots(server, background, lambda: server.predict("classifier", red_png(1)), 4)
        api.kill()
        assert all(isinstance(future.exception(), httpx.TransportError) for future in lost)
    wait_until(server.is_ready, what="a new API process serves")
    assert red_of(server.predict("classifier", red_png(72)).json()["predictions"][0]) == 72
    wait_until(lambda: server.metric("saccade_queue_depth") == 0, what="nothing of the dead process waits")


def test_when_the_supervisor_is_killed_its_children_leave(three_models: Path, tmp_path: Path) -> None:
    with running_server(three_models, tmp_path) as server:
        family = server.family()
        assert len(family) == 2
        runtime_dir = server.runtime_dir()
        server.process.kill()
        server.process.wait()
        gone, alive = psutil.wait_procs(family, timeout=15)
        assert (len(gone), alive) == (2, [])
        shutil.rmtree(runtime_dir, ignore_errors=True)  # unless another server that starts has done it
