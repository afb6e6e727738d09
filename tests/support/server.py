"""A real `saccade serve` process for tests, which is ready when it says so and is gone at the end."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import httpx
import psutil
import structlog
from prometheus_client.parser import text_string_to_metric_families

from saccade.service.cli.program import main

ROOT = Path(__file__).resolve().parents[2]
START_TIMEOUT_S = 90.0  # two seconds on an idle machine, 20 more with tuning; the cores may be shared with a training
POLL_S = 0.02

ResultT = TypeVar("ResultT")


def wait_until(predicate: Callable[[], ResultT], timeout_s: float = 20.0, what: str = "") -> ResultT:
    """The first truthy value of `predicate`. Raises AssertionError at the deadline, saying what it waited for."""
    deadline_s = time.monotonic() + timeout_s
    tick = threading.Event()
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline_s:
            raise AssertionError(f"not within {timeout_s:g} s: {what or predicate}; last value {value!r}")
        tick.wait(POLL_S)


def clean_environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment without its own SACCADE_* settings."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SACCADE_")}
    return {**kept, "COLUMNS": "200", **(extra or {})}


def run_saccade(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a `saccade` command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "saccade.service", *arguments],
        cwd=ROOT,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def call_saccade(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`run_saccade` without the second that a new interpreter takes: the same entry point, in this process."""
    streams = [io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2)]
    code = 0
    logging_before = structlog.get_config()
    with (
        patch.object(sys, "argv", ["saccade", *arguments]),
        patch.dict(os.environ, clean_environment(environment), clear=True),
        contextlib.redirect_stdout(streams[0]),
        contextlib.redirect_stderr(streams[1]),
    ):
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        finally:  # the command logs to streams that are closed with it
            structlog.configure(**logging_before)
            structlog.contextvars.clear_contextvars()
    texts = [stream.buffer.getvalue().decode() for stream in streams]  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(arguments, code, *texts)


class Server:
    """A running server. Every setting is passed on as a command-line option."""

    def __init__(self, process: subprocess.Popen[bytes], log_path: Path) -> None:
        self.process = process
        self.log_path = log_path
        self.port = self._await_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.client = httpx.Client(base_url=self.base_url, timeout=30.0)
        wait_until(self.is_live, START_TIMEOUT_S, "an API process listens")

    def _await_port(self) -> int:
        """The supervisor says where before anything else."""

        def port() -> int | None:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.logs()}")
            started = self.events("starting")
            return int(started[0]["port"]) if started else None

        found = wait_until(port, START_TIMEOUT_S, "the server listens")
        assert found is not None
        return found

    # What it says

    def logs(self) -> str:
        return self.log_path.read_text("utf-8", "replace")

    def events(self, name: str) -> list[dict[str, Any]]:
        """Log events of one name; lines that are not events are skipped."""
        found = []
        for line in self.logs().splitlines():
            if line.startswith("{"):
                document = json.loads(line)
                if document.get("event") == name:
                    found.append(document)
        return found

    def is_live(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return self.client.get("/health/live").is_success
        return False

    def readiness(self) -> httpx.Response:
        return self.client.get("/health/ready")

    def is_ready(self) -> bool:
        """False also while nothing answers."""
        with contextlib.suppress(httpx.TransportError):
            return self.readiness().status_code == 200
        return False

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        wait_until(self.is_ready, timeout_s, "the server is ready")

    def wait_serving(self) -> None:
        """Ready, and every API process knows every version."""
        wait_until(lambda: self.events("serving"), START_TIMEOUT_S, "all processes serve")
        self.wait_ready()

    def model(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = self.client.get(f"/v1/models/{name}").json()
        return document

    def version(self, model: str, version: int) -> dict[str, Any] | None:
        """One entry of `versions` in /v1/models/{model}; None while there is none."""
        versions = self.model(model).get("versions", [])
        return next((item for item in versions if item["version"] == str(version)), None)

    def wait_state(self, model: str, version: int, state: str) -> dict[str, Any]:
        def in_state() -> dict[str, Any] | None:
            found = self.version(model, version)
            return found if found and found["state"] == state else None

        found = wait_until(in_state, 30.0, f"{model}/{version} is {state}")
        assert found is not None
        return found

    def metric(self, name: str, **labels: str) -> float:
        """Sum of all samples of `name` that carry these labels; 0 when there are none."""
        lines = self.client.get("/metrics").text.splitlines()
        text = "\n".join(line for line in lines if line.startswith(name))  # parsing all takes longer than a request
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def outcomes(self, outcome: str, **labels: str) -> float:
        return self.metric("saccade_requests_total", outcome=outcome, **labels)

    def wait_idle(self) -> None:
        """Every slot is free again."""
        wait_until(lambda: self.metric("saccade_slots_in_use") == 0, 15.0, "all slots are free")

    # What it consists of

    def children(self, module: str) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(self.process.pid).children():
            with contextlib.suppress(psutil.Error):
                if module in child.cmdline():
                    found.append(child)
        return found

    def api_processes(self) -> list[psutil.Process]:
        return self.children("saccade.service.api.process")

    def worker(self) -> psutil.Process:
        """The device worker, awaited while it is being replaced."""
        return wait_until(lambda: self.children("saccade.service.worker.process"), what="a worker runs")[0]

    def family(self) -> list[psutil.Process]:
        """The supervisor's children, all of them."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def runtime_dir(self) -> Path:
        return Path(self.events("worker_connected")[-1]["socket"]).parent

    # Requests

    def predict(self, model: str, body: bytes, **arguments: Any) -> httpx.Response:
        """One raw image; `arguments` go to httpx, `path` replaces the part behind the model."""
        path = arguments.pop("path", "predict")
        headers = {"Content-Type": "application/octet-stream", **arguments.pop("headers", {})}
        return self.client.post(f"/v1/models/{model}/{path}", content=body, headers=headers, **arguments)

    # The end

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = 40.0) -> int:
        return self.process.wait(timeout_s)

    def stop(self) -> int:
        """SIGTERM and wait; kills what is left, so that a failing test leaves nothing behind."""
        family = self.family() if self.process.poll() is None else []
        self.client.close()
        if self.process.poll() is None:
            self.terminate()
        try:
            return self.wait()
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()
        finally:
            for child in family:
                with contextlib.suppress(psutil.Error):
                    child.kill()


@contextlib.contextmanager
def running_server(
    repository: Path,
    workspace: Path,
    *,
    wait: bool = True,
    program: Sequence[str] = (sys.executable, "-m", "saccade.service"),
    environment: dict[str, str] | None = None,
    folder: Path = ROOT,
    **settings: Any,
) -> Iterator[Server]:
    """`saccade serve` on a free port; serving every settled model unless `wait` is False; started in `folder`."""
    options = {
        "repository": repository,
        "port": 0,
        "backend": "fake",
        "repository_poll_ms": 100,
        "device_threads": 1,
        "tuning": "off",
        "objective_ms": 10_000,  # by default ten runs of the fake model, which a busy machine's pauses exceed
        "api_processes": 1,
        "log_format": "json",
        **settings,
    }
    log_path = workspace / "server.log"
    command = [*program, "serve"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=clean_environment(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    server: Server | None = None
    try:
        server = Server(process, log_path)
        if wait:
            server.wait_serving()
        yield server
    finally:
        if server is not None:
            server.stop()
        elif process.poll() is None:
            process.kill()
            process.wait()
