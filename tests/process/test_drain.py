"""SIGTERM: not ready, stop admitting, finish what is in flight, stop the workers, leave nothing."""

from __future__ import annotations

import signal
from pathlib import Path

import httpx
import psutil

from tests.support.images import HANG_PNG, red_of, red_png
from tests.support.requests import Background, Gate, RawClient, hold_slots
from tests.support.server import Server, running_server, wait_until


def ensure_left_nothing(server: Server, family: list[psutil.Process], runtime_dir: Path) -> None:
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert not runtime_dir.exists()


def test_sigterm_finishes_what_is_in_flight_and_refuses_what_is_new(
    three_models: Path, gate: Gate, tmp_path: Path
) -> None:
    with running_server(three_models, tmp_path, max_batch_size=1) as server, Background() as background:
        family, runtime_dir = server.family(), server.runtime_dir()
        with gate.closed():
            slow = hold_slots(server, background, lambda: server.predict("classifier", red_png(1)), 4)
            server.terminate()
            wait_until(lambda: server.events("draining"), what="the server drains")
            refusals = wait_until(lambda: _refusal(server), what="a new request is refused")
            assert refusals in ("refused", "503")
            wait_until(lambda: _is_closed(server.port), what="the port is closed")
            assert not any(future.done() for future in slow), "still finishing"
        assert [future.result().status_code for future in slow] == [200] * 4
        assert server.wait() == 0
        ensure_left_nothing(server, family, runtime_dir)
        assert server.events("stopped")
        assert not server.events("killed_after_timeout")


def _refusal(server: Server) -> str:
    """How a new connection is turned away; empty while it is still served."""
    try:
        with httpx.Client(base_url=server.base_url, timeout=20.0) as fresh:
            response = fresh.post("/v1/models/classifier/predict?deadline_ms=200", content=red_png(1))
    except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
        return "refused"
    if response.status_code == 503:
        assert "shutting down" in response.json()["detail"]
        assert response.headers["connection"] == "close"
        return "503"
    return ""


def _is_closed(port: int) -> bool:
    """New connections are refused, rather than left waiting for nobody."""
    try:
        RawClient(port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_ctrl_c_serves_on_for_the_drain_delay_and_then_stops_at_once(three_models: Path, tmp_path: Path) -> None:
    with running_server(three_models, tmp_path, drain_delay_ms=2500) as server:
        family, runtime_dir = server.family(), server.runtime_dir()
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: server.readiness().status_code == 503, what="not ready")
        assert "draining" in server.readiness().json()["reason"]
        assert red_of(server.predict("classifier", red_png(8)).json()["predictions"][0]) == 8
        # the client's idle connection must not hold the server
        assert server.wait(timeout_s=10) == 0
        ensure_left_nothing(server, family, runtime_dir)


def test_a_hung_worker_cannot_outlive_the_shutdown_timeout(three_models: Path, tmp_path: Path) -> None:
    with running_server(three_models, tmp_path, shutdown_timeout_ms=1500) as server, Background() as background:
        family, runtime_dir = server.family(), server.runtime_dir()
        answer = background.start(lambda: server.predict("classifier", HANG_PNG, params={"deadline_ms": "700"}))
        wait_until(lambda: server.metric("saccade_slots_in_use") == 1, what="the request is in flight")
        server.terminate()
        assert answer.result().status_code == 504
        assert server.wait(timeout_s=15) == 0
        ensure_left_nothing(server, family, runtime_dir)
        assert [event["name"] for event in server.events("killed_after_timeout")] == ["worker-cpu"]


def test_sigterm_while_the_worker_is_being_replaced_is_prompt(three_models: Path, tmp_path: Path) -> None:
    with running_server(three_models, tmp_path) as server:
        family, runtime_dir = server.family(), server.runtime_dir()
        for deaths in (1, 2, 3, 4):  # the fourth back-off takes longer than the stop may
            server.worker().kill()
            wait_until(lambda deaths=deaths: len(server.events("worker_died")) == deaths, what="the loss is noticed")
        server.terminate()
        assert server.wait(timeout_s=5) == 0
        ensure_left_nothing(server, family, runtime_dir)


def test_sigterm_while_starting_is_prompt(three_models: Path, tmp_path: Path) -> None:
    with running_server(three_models, tmp_path, wait=False) as server:
        server.terminate()
        assert server.wait(timeout_s=15) == 0
        assert server.process.returncode == 0
