"""`python -m tests.load.noop`: what the HTTP side costs by itself, with a backend that computes nothing.

A JPEG of 2 KB to the fake backend, one HTTP process, the client on the same cores. Two figures, medians of rounds that
take turns: requests per second with 32 connections, and how much p50 at one request in flight is above decode, resize
and inference in one process without a server.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
from PIL import Image

from saccade.models.contract.manifest import Manifest, read_manifest
from saccade.models.contract.preprocessing import preprocess_into
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.fake_backend import FakeBackend
from saccade.service.bench.coordinator import ClientLimits, Closed
from saccade.service.bench.images import ImageFile
from saccade.service.bench.report import Report
from saccade.service.bench.session import Session, measure
from saccade.service.bench.workload import ModelShare, RequestShape, endpoint_of, workload_of
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from tests.load.bench import photographs
from tests.support.server import Server, running_server
from tests.support.versions import publish_fake

MODEL = "noop"
_BODY_BYTES = 2_000
_SIDE = 96  # pixels; about 2 KB at a usual quality
_BODIES = 16
_CONNECTIONS = 32
_WARM_UP_S = 1.0
_TIMEOUT_S = 10.0


def small_jpegs() -> list[bytes]:
    """Photographs of about 2 KB."""
    found = []
    for body in photographs()[:_BODIES]:
        image = Image.open(io.BytesIO(body)).resize((_SIDE, _SIDE))
        found.append(min((_jpeg(image, quality) for quality in range(20, 96, 5)), key=_distance))
    return found


def _jpeg(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _distance(body: bytes) -> int:
    return abs(len(body) - _BODY_BYTES)


def bare_p50_ms(version_dir: Path, manifest: Manifest, bodies: Sequence[bytes], seconds: float) -> float:
    """Decode, resize and infer one image after another, without a server."""
    backend = FakeBackend(LoadRequest(version_dir / "model.onnx", manifest.input, manifest.answer, "cpu", 1, False))
    pixels = np.zeros((1, *manifest.input.shape), np.uint8)
    limits = ImageLimits()
    times_ms: list[float] = []
    end_s = time.perf_counter() + seconds
    while (start_s := time.perf_counter()) < end_s:
        body = bodies[len(times_ms) % len(bodies)]
        preprocess_into(decode_image(body, limits), manifest.preprocess, pixels[0])
        backend.infer(pixels)
        times_ms.append((time.perf_counter() - start_s) * 1000)
    return median(times_ms)


def loaded(server: Server, bodies: Sequence[bytes], in_flight: int, seconds: float) -> Report:
    """A closed loop of `saccade bench`."""
    endpoint, shape = endpoint_of(server.base_url), RequestShape()
    images = tuple(ImageFile(f"{index:02d}.jpg", "image/jpeg", body) for index, body in enumerate(bodies))
    session = Session(
        url=server.base_url,
        endpoint=endpoint,
        workload=workload_of([ModelShare(MODEL, 1.0, images)], endpoint, shape),
        shape=shape,
        limits=ClientLimits(1, in_flight, in_flight, _TIMEOUT_S),
        seed=0,
        warm_up_s=_WARM_UP_S,
        objective_ms=100.0,
    )
    return measure(session, Closed(in_flight, seconds, _WARM_UP_S), lambda live, duration_s: None).report


def run(rounds: int, seconds: float, api_processes: int) -> dict[str, Any]:
    """Rounds of bare, one in flight, and full load, in turn."""
    bodies = small_jpegs()
    with tempfile.TemporaryDirectory() as work:
        repository = Path(work) / "repository"
        version_dir = publish_fake(repository, MODEL, 1)
        manifest = read_manifest(version_dir)[0]
        bare: list[float] = []
        single: list[Report] = []
        full: list[Report] = []
        with running_server(repository, Path(work), api_processes=api_processes) as server:
            for _ in range(rounds):
                bare.append(bare_p50_ms(version_dir, manifest, bodies, seconds / 2))
                single.append(loaded(server, bodies, 1, seconds))
                full.append(loaded(server, bodies, _CONNECTIONS * api_processes, seconds))
    return summary(bare, single, full, api_processes) | {
        "body_bytes": int(median(len(body) for body in bodies)),
        "rounds": rounds,
        "seconds": seconds,
    }


def summary(
    bare: Sequence[float], single: Sequence[Report], full: Sequence[Report], api_processes: int
) -> dict[str, Any]:
    """Medians; the added latency is of each round's own pair."""
    p50s = [report.service.p50_ms for report in single if report.service is not None]
    added = [served - alone for served, alone in zip(p50s, bare, strict=True)]
    per_second = median(report.throughput_rps for report in full)
    return {
        "api_processes": api_processes,
        "requests_per_s": round(per_second, 1),
        "requests_per_s_per_api_process": round(per_second / api_processes, 1),
        "client_cpu_cores": round(median(report.client.cpu_cores for report in full), 2),
        "bare_p50_ms": round(median(bare), 3),
        "served_p50_ms": round(median(p50s), 3),
        "added_p50_ms": round(median(added), 3),
        "failed": sum(report.failed for report in [*single, *full]),
    }


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--api-processes", type=int, default=1)
    given = parser.parse_args()
    each_s = 2.5 * given.seconds + 2 * (_WARM_UP_S + 1.0)
    print(f"about {given.rounds * each_s + 5:.0f} s", flush=True)
    found = run(given.rounds, given.seconds, given.api_processes)
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
