"""Triton's server loads what `saccade-export triton` wrote: `python -m tests.load.triton_repository --repository DIR`.

The server is that of nvidia-pytriton, which has no onnxruntime backend. So it is started twice: with the repository as
it was written, where only that backend may be missing, and with the Python backend running the same graph, where the
rest of the configuration must hold: answers of several batches are those of the graph alone.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import tritonclient.http

from tests.load.peers.environments import python_of, set_up
from tests.load.peers.servers import packages_of
from tests.support.ports import free_port
from tests.support.server import ROOT, wait_until

_MISSING = "unable to find backend library for backend 'onnxruntime'"
_BACKEND = Path(__file__).with_name("triton_backend") / "model.py"
_TIMEOUT_S = 120.0


@contextlib.contextmanager
def triton(python: Path, models: Path, log: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    home = packages_of(python) / "pytriton" / "tritonserver"
    options = {"model-repository": models, "backend-directory": home / "backends", "http-port": port}
    options |= {"http-address": "127.0.0.1", "allow-grpc": "false", "allow-metrics": "false"}
    command = [str(home / "bin" / "tritonserver"), *(f"--{name}={value}" for name, value in options.items())]
    # The backend's Python finds packages by PATH and PYTHONPATH, not by the environment that Triton runs in.
    variables = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": str(packages_of(python))}
    with (
        log.open("wb") as file,
        subprocess.Popen(command, env=variables, stdout=file, stderr=file) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def only_the_backend_is_missing(python: Path, models: Path, log: Path) -> bool:
    with triton(python, models, log, free_port()) as process:
        process.wait(_TIMEOUT_S)
    return log.read_text("utf-8", "replace").count(_MISSING) > 0


def for_the_python_backend(folder: Path) -> Path:
    """Changes the configuration in place and returns the graph."""
    file = folder / "config.pbtxt"
    text = file.read_text("utf-8")
    (graph,) = folder.glob("1/*.onnx")
    named = f'parameters {{ key: "graph" value: {{ string_value: "{graph.name}" }} }}\n'
    text = text.replace('backend: "onnxruntime"', 'backend: "python"')
    text = text.replace(f'default_model_filename: "{graph.name}"\n', "")  # model.py
    file.write_text(text + named, "utf-8")
    shutil.copyfile(_BACKEND, graph.parent / "model.py")
    return graph


def worst_difference(port: int, model: str, graph: Path) -> float:
    """Of all outputs, between Triton's answers and those of the graph in this process."""
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    shape = session.get_inputs()[0].shape[1:]
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{port}")
    worst = 0.0
    for batch in (1, 3, 8):
        images = np.random.default_rng(batch).integers(0, 256, (batch, *shape), np.uint8)
        given = tritonclient.http.InferInput("images", list(images.shape), "UINT8")
        given.set_data_from_numpy(images)
        answer = client.infer(model, [given])
        for name, alone in zip(names, session.run(names, {"images": images}), strict=True):
            worst = max(worst, float(np.abs(answer.as_numpy(name).reshape(alone.shape) - alone).max()))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description="Triton's server loads an exported repository.")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--model", default="mobilenetv3-small")
    parser.add_argument("--version", default="1")
    parser.add_argument("--work", type=Path, default=ROOT / ".saccade" / "peers", help="where the environment lies")
    given = parser.parse_args()
    set_up(["triton"], given.work)
    python, port = python_of("triton", given.work), free_port()
    with tempfile.TemporaryDirectory() as name:
        models, log = Path(name) / "models", Path(name) / "log"
        export = ["triton", given.model, given.version, "--into", str(models), "--repository", str(given.repository)]
        subprocess.run([sys.executable, "-m", "saccade.export", *export], cwd=ROOT, check=True)
        is_read = only_the_backend_is_missing(python, models, log)
        print(f"as it was written: {'only the backend is missing' if is_read else log.read_text('utf-8', 'replace')}")
        graph = for_the_python_backend(models / given.model)
        client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{port}")
        with triton(python, models, log, port) as process:
            wait_until(lambda: _is_ready(client) or process.poll() is not None, _TIMEOUT_S, "Triton is ready")
            if process.poll() is not None:
                sys.exit(log.read_text("utf-8", "replace"))
            worst = worst_difference(port, given.model, graph)
    print(f"with the Python backend: answers differ by {worst:.1e} at most")
    sys.exit(0 if is_read and worst < 1e-4 else 1)


def _is_ready(client: tritonclient.http.InferenceServerClient) -> bool:
    with contextlib.suppress(OSError):
        return bool(client.is_server_ready())
    return False


if __name__ == "__main__":
    main()
