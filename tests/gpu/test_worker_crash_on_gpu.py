"""A kernel that touches foreign memory costs its own requests, and the supervisor brings the worker back."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from saccade.models.contract.specs import Task
from saccade.service.repository.plans import PlanStore, engines_root
from tests.gpu.conftest import ensured_to_build
from tests.load.gpu_plans import built_plan
from tests.support.gpu_machine import EXPORTER, GPU, ONNXRUNTIME_CUDA, SERVER, TENSORRTS, GpuMachine
from tests.support.versions import manifest_for, publish

pytestmark = [pytest.mark.gpu, pytest.mark.needs(SERVER), pytest.mark.timeout(400)]
FAULTY = Path(__file__).parent / "faulty"
FAULT = (7, 7, 7)  # as in faulty/sitecustomize.py
MODEL = "digits"
START_S = 120.0


@pytest.fixture(params=["onnxruntime", *TENSORRTS])
def settings(request: pytest.FixtureRequest, machine: GpuMachine, tmp_path: Path) -> dict[str, Any]:
    """A published classifier and how to serve it on the GPU."""
    from tests.support.graphs import classifier_graph

    name: str = request.param
    missing = machine.missing(
        (GPU, SERVER, ONNXRUNTIME_CUDA) if name == "onnxruntime" else (GPU, SERVER, EXPORTER, name)
    )
    if missing:
        pytest.skip(missing)
    repository = tmp_path / "repository"
    content = classifier_graph()
    version = publish(repository, manifest_for(MODEL, 1, Task.CLASSIFY, content=content), content)
    options: dict[str, Any] = {"repository": repository, "device": "cuda:0", "variant": "fp32", "backend": name}
    if name != "onnxruntime":
        ensured_to_build(name, machine)
        built_plan(version, "fp32", name, machine.capability, PlanStore(engines_root(repository)))
        if machine.tensorrts[0] != name:
            pytest.skip(f"a server chooses {machine.tensorrts[0]} where both are installed")
        options |= {"backend": "tensorrt", "build_engines": False}
    return options


@pytest.fixture
def server(settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`saccade serve` whose worker obeys a FAULT."""
    from tests.support.server import running_server

    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(FAULTY), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    )
    options = dict(settings)
    with running_server(options.pop("repository"), tmp_path, wait=False, **options) as running:
        running.wait_ready(START_S)
        yield running


def best_class(server: Any, red: int) -> int:
    from tests.support.images import red_png

    response = server.predict(MODEL, red_png(red))
    assert response.status_code == 200, response.text
    found: int = response.json()["predictions"][0]["classes"][0]["class_id"]
    return found


def lose_the_device(server: Any) -> None:
    from tests.support.images import png

    response = server.predict(MODEL, png(FAULT))

    assert response.status_code == 503, response.text


def kill_the_worker(server: Any) -> None:
    os.kill(server.worker().pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [lose_the_device, kill_the_worker])
def test_worker_whose_device_was_lost_comes_back_and_answers_as_before(server: Any, end: Callable[[Any], None]) -> None:
    from tests.support.server import wait_until

    before = [best_class(server, red) for red in (0, 80, 255)]
    worker = server.worker().pid
    processes = {process.pid for process in server.api_processes()}

    end(server)

    wait_until(lambda: server.worker().pid != worker, START_S, "another worker runs")
    wait_until(server.is_ready, START_S, "the server is ready again")
    assert [best_class(server, red) for red in (0, 80, 255)] == before == [0, 3, 9]
    assert {process.pid for process in server.api_processes()} == processes, "only the worker was replaced"
