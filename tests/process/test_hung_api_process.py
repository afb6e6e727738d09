"""HTTP processes that hang, and children that cannot even start."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import psutil

from tests.support.images import red_png
from tests.support.server import ROOT, clean_environment, running_server, wait_until

HANG_TIMEOUT_MS = 1500


def test_a_hung_api_process_is_replaced_and_its_connections_end(three_models: Path, tmp_path: Path) -> None:
    with running_server(three_models, tmp_path, hang_timeout_ms=HANG_TIMEOUT_MS) as server:
        worker = server.worker()
        (hung,) = server.api_processes()
        with socket.create_connection(("127.0.0.1", server.port), timeout=30.0) as waiting:
            hung.send_signal(signal.SIGSTOP)
            waiting.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")

            assert is_ended(waiting), "nothing answered it, so it has to be sent again"
        wait_until(lambda: is_answered(server.base_url), what="the process that replaces it answers")

        assert not psutil.pid_exists(hung.pid)
        assert server.worker().pid == worker.pid, "the worker stays"
        assert server.events("api_process_hangs")[0]["name"] == "api-0"
        text = httpx.get(f"{server.base_url}/metrics", timeout=30).text
        assert "saccade_api_restarts_total 1.0" in text


def is_ended(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def is_answered(base_url: str) -> bool:
    try:
        response = httpx.post(f"{base_url}/v1/models/classifier/predict", content=red_png(3), timeout=5)
    except httpx.TransportError:
        return False
    assert response.status_code == 200, response.text
    return True


def test_a_child_that_dies_while_importing_ends_the_start(three_models: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'saccade.service.api.process' in sys.orig_argv:\n"
        "    sys.modules['uvicorn'] = None  # as if it were not installed\n"
    )
    paths = {"PYTHONPATH": f"{tmp_path}:{clean_environment().get('PYTHONPATH', ROOT)}"}
    program = [sys.executable, "-m", "saccade.service", "serve", "--repository", str(three_models)]
    options = ["--backend", "fake", "--port", "0", "--tuning", "off", "--log-format", "json"]
    ended = subprocess.run(
        [*program, *options], env=clean_environment(paths), capture_output=True, text=True, timeout=60, check=False
    )

    assert ended.returncode == 1
    assert "ModuleNotFoundError: import of uvicorn halted" in ended.stderr
    assert re.search("saccade: api-[01] ended with an error before it could serve", ended.stderr.splitlines()[-1])
