"""One server asked in turns for the same picture: as JPEG, as pixels over /v2, and as pixels over gRPC.

    python -m tests.load.protocols
    python -m tests.load.protocols --repository DIR --model mobilenetv3-small

Without a repository a fake backend answers, which costs nothing. A model of a repository must be a classifier of
224x224 pixels; `python -m tests.load.peers` publishes one below .saccade/peers/subjects. Clients are Triton's own, in
threads of this process. A round asks every way once; ratios are taken round by round.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import tritonclient.grpc
import tritonclient.http

from saccade.models.contract.specs import input_tensor
from tests.support.images import scene_jpeg
from tests.support.ports import free_port
from tests.support.server import Server, running_server
from tests.support.versions import manifest_for, publish

SIDE = 224
CONNECTIONS = 4
Ask = Callable[[], object]


def publish_model(root: Path) -> None:
    """A classifier of 224x224 for the fake backend, which costs nothing."""
    manifest = manifest_for("classifier", 1)
    preprocess = manifest.preprocess.model_copy(update={"width": SIDE, "height": SIDE})
    publish(root, manifest.model_copy(update={"preprocess": preprocess, "input": input_tensor(preprocess)}))


def triton_asks(module: Any, address: str, model: str, tensor: str) -> Ask:
    client = module.InferenceServerClient(address)
    given = module.InferInput(tensor, [1, SIDE, SIDE, 3], "UINT8")
    given.set_data_from_numpy(np.zeros((1, SIDE, SIDE, 3), np.uint8))
    outputs = [module.InferRequestedOutput(name) for name in ("scores", "class_ids")]
    return lambda: client.infer(model, [given], outputs=outputs)


def jpeg_asks(base_url: str, model: str) -> Ask:
    client, jpeg = httpx.Client(base_url=base_url), scene_jpeg(SIDE, SIDE)
    return lambda: client.post(f"/v1/models/{model}/predict", content=jpeg).raise_for_status()


def asked(make: Callable[[], Ask], requests: int, process: psutil.Process) -> tuple[float, float]:
    """(requests per second, milliseconds of the HTTP process's CPU per request)."""
    connected = threading.Barrier(CONNECTIONS + 1)

    def work() -> None:
        ask = make()  # in its own thread: Triton's HTTP client stays where it was made
        ask()
        connected.wait()
        for _ in range(requests // CONNECTIONS):
            ask()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    connected.wait(30)
    start_s, start_cpu_s = time.perf_counter(), sum(process.cpu_times()[:2])
    for thread in threads:
        thread.join()
    cpu_s = sum(process.cpu_times()[:2]) - start_cpu_s
    return requests / (time.perf_counter() - start_s), 1000 * cpu_s / requests


def measure(server: Server, grpc_port: int, model: str, requests: int, rounds: int) -> None:
    tensor = server.client.get(f"/v2/models/{model}").json()["inputs"][0]["name"]
    host = f"127.0.0.1:{server.port}"
    ways: dict[str, Callable[[], Ask]] = {
        "JPEG": lambda: jpeg_asks(server.base_url, model),
        "v2": lambda: triton_asks(tritonclient.http, host, model, tensor),
        "gRPC": lambda: triton_asks(tritonclient.grpc, f"127.0.0.1:{grpc_port}", model, tensor),
    }
    (process,) = server.api_processes()
    rows = [{name: asked(make, requests, process) for name, make in ways.items()} for _ in range(rounds)]
    for name in ways:
        rate, cpu_ms = (statistics.median(row[name][index] for row in rows) for index in (0, 1))
        print(f"{name:>5}: {rate:6.0f} requests/s, {cpu_ms:.2f} ms CPU")
    for name, other in (("v2", "JPEG"), ("gRPC", "v2")):
        rates, cpus = (sorted(row[name][index] / row[other][index] for row in rows) for index in (0, 1))
        rate, cpu = statistics.median(rates), statistics.median(cpus)
        print(f"{name} against {other}: rate {rate:.2f} ({rates[0]:.2f} to {rates[-1]:.2f}), CPU {cpu:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description="The same picture by every protocol, in turns.")
    parser.add_argument("--requests", type=int, default=2000, help="per way and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repository", type=Path)
    parser.add_argument("--model", default="classifier")
    given = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as name:
        root = given.repository or Path(name) / "repository"
        if given.repository is None:
            publish_model(root)
        options = {} if given.repository is None else {"backend": "onnxruntime", "allow_unjudged": "true"}
        with running_server(root, Path(name), grpc_port=port, **options) as server:
            measure(server, port, given.model, given.requests, given.rounds)


if __name__ == "__main__":
    main()
