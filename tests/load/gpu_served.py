"""The stages `limits` and `served` of `make bench-gpu`: a real server under load, beside what bounds it.

Promises: the limits use the project's own decoder and backends on the same cores; a rate counts only while every answer
was right and p99 kept the objective. Client processes share the cores with the server.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.settings import Settings, core_count, resolved
from tests.load.gpu_cases import Runtime, missing_for_serving, served_variants
from tests.load.gpu_decoding import run_device_decoding
from tests.load.gpu_networks import BenchNetwork, generated_images
from tests.load.gpu_rows import Place
from tests.load.gpu_search import Trial, best_trial, next_connections, next_of, shares, trial_of
from tests.load.gpu_stages import Bench, best_bare, plan_of
from tests.support.gpu_machine import GPU, SERVER, GpuMachine

if TYPE_CHECKING:
    from tests.support.server import Server

_BODIES = 32
_QUALITY = 90
_FIRST_REQUESTS = 10  # one by one, as soon as the server is ready
_DECODE_CHUNK = 64  # images per task of the decode limit
_MOST_CONNECTIONS = 1024
_ARENA_BYTES = 4 << 30  # of slots over all HTTP processes: large masks must not ask for all memory
_READY_S = 240.0


def jpegs(network: BenchNetwork) -> list[bytes]:
    """What clients send: generated pictures of the network's usual size."""
    width, height = network.picture
    return [_jpeg(image) for image in generated_images(_BODIES, height, width, seed=3)]


def _jpeg(image: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


def decode_chunk(
    bodies: Sequence[bytes], preprocess: PreprocessSpec, threads: int, seconds: float
) -> tuple[int, float]:
    """Images decoded and resized by one process with as many threads as a server's HTTP process has, and seconds."""
    from saccade.models.contract.preprocessing import preprocess_into
    from saccade.service.vision.image_decoder import ImageLimits, decode_image

    limits = ImageLimits()

    def one(index: int) -> None:
        out = np.empty((preprocess.height, preprocess.width, 3), np.uint8)
        preprocess_into(decode_image(bodies[index % len(bodies)], limits), preprocess, out)

    done, start_s = 0, time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        while done == 0 or time.perf_counter() - start_s < seconds:
            list(pool.map(one, range(_DECODE_CHUNK)))
            done += _DECODE_CHUNK
    return done, time.perf_counter() - start_s


def run_limits(bench: Bench) -> None:
    """Decode and resize alone: on all cores, and by the GPU's engines."""
    run_device_decoding(bench)
    missing = bench.machine.missing((SERVER,) if bench.device == "cpu" else (GPU, SERVER))
    for network in bench.networks:
        bench.measure(Place("limits", network.name, runtime="decode"), missing, partial(_decode_row, bench, network))


def _decode_row(bench: Bench, network: BenchNetwork) -> dict[str, Any]:
    bodies = jpegs(network)
    cores = core_count()
    processes = http_processes(cores)
    threads = max(1, cores // processes)
    arguments = (bodies, network.preprocess, threads, bench.case_s)
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_warm, range(processes)))  # imports take longer than the measurement
        found = [future.result() for future in [pool.submit(decode_chunk, *arguments) for _ in range(processes)]]
    return {
        "images_per_s": round(sum(done / seconds for done, seconds in found), 1),
        "processes": processes,
        "threads_per_process": threads,
        "cores": cores,
        "picture": "x".join(map(str, network.picture)),
        "jpeg_bytes": int(np.median([len(body) for body in bodies])),
    }


def http_processes(cores: int) -> int:
    """As many as the server chooses by itself."""
    return resolved(Settings(), cores).api_processes


def _warm(index: int) -> None:
    time.sleep(0.2)  # so that every process takes one task


def run_served(bench: Bench) -> None:
    """JPEG in, JSON out, at the objective."""
    for network in bench.networks:
        for variant, runtime in served_variants(bench.device):
            missing = missing_for_serving(runtime, bench.machine) or unsupported(runtime, bench.machine)
            asked = "" if bench.jpeg_decoder == "auto" else f" jpegs-{bench.jpeg_decoder}"
            place = Place("served", network.name, variant, runtime.module + asked)
            bench.measure(place, missing, partial(_served_row, bench, network, variant, runtime))


def unsupported(runtime: Runtime, machine: GpuMachine) -> str:
    """Why a server on this machine does not serve with a runtime; empty when it does."""
    if runtime.is_tensorrt and machine.tensorrts and machine.tensorrts[0] != runtime.module:
        return f"a server chooses {machine.tensorrts[0]} where both are installed"
    return ""


def server_options(bench: Bench, network: BenchNetwork, variant: str, runtime: Runtime) -> dict[str, Any]:
    """The settings of `saccade serve`."""
    slot_bytes = 2 * network.preprocess.height * network.preprocess.width * 3 + (1 << 20)
    processes = http_processes(core_count())
    options: dict[str, Any] = {
        "backend": "onnxruntime",
        "device": "cpu" if bench.device == "cpu" else "cuda:0",
        "variant": variant,
        "device_threads": core_count() if bench.device == "cpu" else 1,
        "api_processes": processes,
        "jpeg_decoder": bench.jpeg_decoder,
        "slots": max(16, min(_MOST_CONNECTIONS // processes, _ARENA_BYTES // slot_bytes // processes)),
    }
    if runtime.is_tensorrt:
        # The plan lies where the server looks for it.
        options |= {"backend": "tensorrt", "build_engines": False}
    return options


def _served_row(bench: Bench, network: BenchNetwork, variant: str, runtime: Runtime) -> dict[str, Any]:
    bench.version(network)
    if runtime.is_tensorrt:
        plan_of(bench, network, variant, runtime.module)
    options = server_options(bench, network, variant, runtime)
    bodies = jpegs(network)
    workspace = bench.work / "server"
    workspace.mkdir(parents=True, exist_ok=True)
    with serving(bench.repository(network), workspace, options) as server:
        one_by_one_s = [_answered_s(server, network, bodies[index]) for index in range(_FIRST_REQUESTS)]
        state = server.version(network.name, 1) or {}
        _ensure_served_by(state, variant, options["backend"])
        tried = searched(bench, network, server, bodies, options["api_processes"] * options["slots"])
        jpegs_by = _jpegs_by(server)
        resident = sum(child.memory_info().rss for child in server.family())
    best = best_trial(tried, network.objective_ms)
    limits = {
        "bare": best_bare(bench.rows, network, variant, Runtime(runtime.module)),
        "decode": (bench.rows.find(Place("limits", network.name, runtime="decode")) or {}).get("images_per_s"),
    }
    known = [value for value in limits.values() if value]
    return {
        "objective_ms": network.objective_ms,
        "per_second": round(best.per_second, 1) if best else 0.0,
        "p50_ms": round(best.p50_ms, 2) if best else None,
        "p99_ms": round(best.p99_ms, 2) if best else None,
        "connections": best.connections if best else 0,
        "first_ms": round(one_by_one_s[0] * 1e3, 2),
        "tenth_ms": round(one_by_one_s[9] * 1e3, 2),
        "most_per_second": round(max(trial.per_second for trial in tried), 1),
        "trials": [asdict(trial) for trial in tried],
        "bare_limit": limits["bare"],
        "decode_limit": limits["decode"],
        "share_of_smaller_limit": round(best.per_second / min(known), 3) if best and len(known) == 2 else None,
        "served_by": _served_by(state),
        **jpegs_by,
        "api_processes": options["api_processes"],
        "slots": options["slots"],
        "resident_bytes": int(resident),
        "client": "closed loop, on the server's cores",
    }


def _served_by(state: dict[str, Any]) -> str:
    """Variant and backend, as the server itself says."""
    instances = state.get("instances") or [{}]
    return f"{instances[0].get('variant', '')} {instances[0].get('backend', '')}"


def _jpegs_by(server: Server) -> dict[str, str]:
    """Who decodes, and the figures that it was chosen by, as the server's log says."""
    chosen = server.events("jpeg_decoder_chosen")
    return {
        "jpegs_by": chosen[-1]["decoder"] if chosen else "image threads",
        "why": chosen[-1]["reason"] if chosen else "",
    }


def _ensure_served_by(state: dict[str, Any], variant: str, backend: str) -> None:
    """Raises RuntimeError where something else serves: a row must not carry another one's figures."""
    if _served_by(state) != f"{variant} {backend}":
        raise RuntimeError(f"asked for {variant} {backend}, the server serves {_served_by(state)}: {state}")


@contextmanager
def serving(repository: Path, workspace: Path, options: dict[str, Any]) -> Iterator[Server]:
    """Ready with its model: a first start may warm large batches for minutes. Raises RuntimeError when it fails."""
    from tests.support.server import running_server, wait_until

    with running_server(repository, workspace, wait=False, **options) as server:

        def is_settled() -> bool:
            for found in server.client.get("/v1/models").json()["models"]:
                for version in found["versions"]:
                    if version["state"] == "failed":
                        raise RuntimeError(f"the server loads no model: {version['reason']}")
            return bool(server.events("serving")) and server.is_ready()

        wait_until(is_settled, _READY_S, "the server is ready")
        yield server


def _answered_s(server: Server, network: BenchNetwork, body: bytes) -> float:
    """How long one answer took. Raises RuntimeError with the server's words; refusals would measure nothing."""
    start_s = time.perf_counter()
    response = server.predict(network.name, body)
    taken_s = time.perf_counter() - start_s
    if response.status_code != 200:
        raise RuntimeError(f"the server answers {response.status_code}: {response.text[:300]}")
    return taken_s


def searched(bench: Bench, network: BenchNetwork, server: Server, bodies: list[bytes], most: int) -> list[Trial]:
    """Trials until the search is over, or all numbers that were asked for are, or the time of this stage is."""
    from tests.load import closed_loop

    path = f"/v1/models/{network.name}/predict"
    clients = max(1, core_count() // 4)
    tried: list[Trial] = []
    with ProcessPoolExecutor(clients, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_warm, range(clients)))
        while (connections := _next(bench, tried, network.objective_ms, min(most, _MOST_CONNECTIONS))) is not None:
            running = [
                pool.submit(
                    closed_loop.run, "127.0.0.1", server.port, path, bodies, share, bench.case_s / 4, bench.case_s
                )
                for share in shares(connections, clients)
            ]
            tried.append(trial_of(connections, [future.result() for future in running]))
            bench.say(f"{network.name}: {tried[-1]}")
            if bench.budget.left_s() < 2 * bench.case_s:
                break
    return tried


def _next(bench: Bench, tried: Sequence[Trial], objective_ms: float, most: int) -> int | None:
    if bench.connections:
        return next_of(bench.connections, tried)
    return next_connections(tried, objective_ms, most)
