"""What the HTTP side costs by itself, with a backend that computes nothing.

    python -m tests.load.noop
    python -m tests.load.noop --beside CHECKOUT     another state of the project takes turns, with its own server
    python -m tests.load.noop --beside CHECKOUT --python INTERPRETER     run by another interpreter than this one
    python -m tests.load.noop --refused             a photograph of 38 KB to a model that refuses nearly all of them

A JPEG of 2 KB to the fake backend, one HTTP process, the client on the same cores. Each round asks every server in
turn: with 32 connections for requests per second and for the HTTP process's CPU per request, and with one for how much
p50 is above decode, resize and inference in one process without a server. The floor is `bare_server.py`: uvicorn with
an application that answers the same bytes and does nothing else.
"""

from __future__ import annotations

import argparse
import io
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import orjson
import psutil
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
from tests.load.arguments import count_from_1, seconds_above_0
from tests.load.bench import photographs
from tests.support.ports import free_port
from tests.support.server import ROOT, clean_environment, running_server, wait_until
from tests.support.versions import publish_fake

MODEL = "noop"
_BODY_BYTES = 2_000
_SIDE = 96  # pixels; about 2 KB at a usual quality
_BODIES = 16
_CONNECTIONS = 32
_WARM_UP_S = 1.0
_TIMEOUT_S = 10.0
_SLOW = b"an image takes 100 ms"
_SOON = (("deadline_ms", "150"),)  # what nobody behind another one can meet


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


def loaded(
    url: str, bodies: Sequence[bytes], in_flight: int, seconds: float, query: tuple[tuple[str, str], ...] = ()
) -> Report:
    """A closed loop of `saccade bench`."""
    endpoint, shape = endpoint_of(url), RequestShape(query=query)
    images = tuple(ImageFile(f"{index:02d}.jpg", "image/jpeg", body) for index, body in enumerate(bodies))
    session = Session(
        url=url,
        endpoint=endpoint,
        workload=workload_of([ModelShare(MODEL, 1.0, images)], endpoint, shape),
        shape=shape,
        limits=ClientLimits(1, in_flight, in_flight, _TIMEOUT_S),
        seed=0,
        warm_up_s=_WARM_UP_S,
        objective_ms=100.0,
    )
    return measure(session, Closed(in_flight, seconds, _WARM_UP_S), lambda live, duration_s: None).report


@dataclass(frozen=True, slots=True)
class Subject:
    """A server that takes its turns, and its HTTP processes."""

    url: str
    processes: Sequence[psutil.Process]

    def cpu_s(self) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in self.processes)


@dataclass(frozen=True, slots=True)
class Turn:
    """What one server did in one round."""

    requests_per_s: float
    cpu_us: float  # of all HTTP processes, for each request
    p50_ms: float  # with one request in flight; of refusals, of all
    client_cores: float
    failed: int


def turn_of(subject: Subject, bodies: Sequence[bytes], in_flight: int, seconds: float) -> Turn:
    """A turn of answers."""
    single = loaded(subject.url, bodies, 1, seconds / 2)
    turn = full_turn_of(subject, bodies, in_flight, seconds)
    assert single.service is not None
    return replace(turn, p50_ms=single.service.p50_ms, failed=single.failed + turn.failed)


def refused_turn_of(subject: Subject, bodies: Sequence[bytes], in_flight: int, seconds: float) -> Turn:
    """A turn of refusals, among them the few requests that the model takes."""
    return full_turn_of(subject, bodies, in_flight, seconds, _SOON)


def full_turn_of(
    subject: Subject, bodies: Sequence[bytes], in_flight: int, seconds: float, query: tuple[tuple[str, str], ...] = ()
) -> Turn:
    before_s = subject.cpu_s()
    full = loaded(subject.url, bodies, in_flight, seconds, query)
    # The warm-up is in the CPU time, so its requests count as well.
    cpu_s = (subject.cpu_s() - before_s) * seconds / (seconds + _WARM_UP_S)
    latency = full.refusals or full.service
    assert latency is not None
    return Turn(
        full.requests / seconds, cpu_s / full.requests * 1e6, latency.p50_ms, full.client.cpu_cores, full.failed
    )


def run(
    rounds: int, seconds: float, api_processes: int, beside: Path | None, python: str, *, refused: bool
) -> dict[str, Any]:
    """Rounds in which the bare functions and every server have their turns; `python` runs the one of `beside`."""
    bodies, turns = photographs() if refused else small_jpegs(), list[dict[str, Turn]]()
    measured_turn = refused_turn_of if refused else turn_of
    bare: list[float] = []
    with ExitStack() as stack:
        work = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        version_dir = publish_fake(work / "repository", MODEL, 1, **({"content": _SLOW} if refused else {}))
        manifest = read_manifest(version_dir)[0]
        subjects: dict[str, Subject] = {}
        for name, checkout, interpreter in (("here", ROOT, sys.executable), ("beside", beside, python)):
            if checkout is None:
                continue
            (work / name).mkdir()
            environment = {"PYTHONPATH": str(checkout)}
            publish_in(checkout, work / name / "repository")
            server = stack.enter_context(
                running_server(
                    work / name / "repository",
                    work / name,
                    program=(interpreter, "-m", "saccade.service"),
                    folder=checkout,
                    environment=environment,
                    api_processes=api_processes,
                )
            )
            subjects[name] = Subject(server.base_url, server.api_processes())
        answer = server.predict(MODEL, bodies[0]).content
        subjects["floor"] = stack.enter_context(bare_server(answer))
        for _ in range(rounds):
            bare.append(bare_p50_ms(version_dir, manifest, bodies, seconds / 2))
            turns.append(
                {
                    name: measured_turn(subject, bodies, _CONNECTIONS * len(subject.processes), seconds)
                    for name, subject in subjects.items()
                }
            )
    return {
        "rounds": rounds,
        "seconds": seconds,
        "api_processes": api_processes,
        "body_bytes": int(median(len(body) for body in bodies)),
        "bare_p50_ms": round(median(bare), 3),
        **{name: summary([each[name] for each in turns], bare) for name in subjects},
        **{f"here_over_{name}": ratios(turns, name) for name in subjects if name != "here"},
    }


def publish_in(checkout: Path, repository: Path) -> None:
    """As that state of the project publishes: an older one refuses what a newer one writes."""
    code = (
        "import sys, pathlib, tests.support.versions as it; it.publish_fake(pathlib.Path(sys.argv[1]), sys.argv[2], 1)"
    )
    environment = clean_environment({"PYTHONPATH": str(checkout)})
    subprocess.run([sys.executable, "-c", code, str(repository), MODEL], cwd=checkout, env=environment, check=True)


@contextmanager
def bare_server(answer: bytes) -> Iterator[Subject]:
    """The floor, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "tests.load.bare_server", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(answer)
        process.stdin.close()
        wait_until(lambda: is_listening(port), what="the bare server listens")
        yield Subject(f"http://127.0.0.1:{port}", [psutil.Process(process.pid)])
        process.terminate()


def is_listening(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def summary(turns: Sequence[Turn], bare: Sequence[float]) -> dict[str, Any]:
    """Medians; the added latency is of each round's own pair."""
    added = [turn.p50_ms - alone for turn, alone in zip(turns, bare, strict=True)]
    return {
        "requests_per_s": round(median(turn.requests_per_s for turn in turns)),
        "cpu_us_per_request": round(median(turn.cpu_us for turn in turns), 1),
        "p50_ms": round(median(turn.p50_ms for turn in turns), 3),
        "added_p50_ms": round(median(added), 3),
        "client_cpu_cores": round(median(turn.client_cores for turn in turns), 2),
        "failed": sum(turn.failed for turn in turns),
    }


def ratios(turns: Sequence[dict[str, Turn]], other: str) -> dict[str, list[float]]:
    """Median, least and most of the ratios of each round."""

    def of(pick: Callable[[Turn], float]) -> list[float]:
        found = sorted(pick(each["here"]) / pick(each[other]) for each in turns)
        return [round(value, 3) for value in (median(found), found[0], found[-1])]

    return {
        "requests_per_s": of(lambda turn: turn.requests_per_s),
        "cpu_us_per_request": of(lambda turn: turn.cpu_us),
        "p50_ms": of(lambda turn: turn.p50_ms),
    }


def main() -> None:
    """Prints one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=count_from_1, default=5)
    parser.add_argument("--seconds", type=seconds_above_0, default=5.0, help="of each measurement")
    parser.add_argument("--api-processes", type=count_from_1, default=1)
    parser.add_argument("--beside", type=Path, help="another checkout, whose server takes turns")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of that checkout's server")
    parser.add_argument("--refused", action="store_true", help="what a refusal costs")
    given = parser.parse_args()
    each_s = given.seconds / 2 + (3 if given.beside else 2) * (1.5 * given.seconds + 2 * (_WARM_UP_S + 1.0))
    print(f"about {given.rounds * each_s + 5:.0f} s", flush=True)
    form = (given.rounds, given.seconds, given.api_processes)
    found = run(*form, given.beside, given.python, refused=given.refused)
    print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())


if __name__ == "__main__":
    main()
