"""What clients notice of new versions and rollbacks: `python -m tests.load.swaps --repository repository`.

One server with ONNX Runtime and a published model; requests arrive at a constant rate from a process of their own.
Then versions appear one after the other, and afterwards the stable version is taken back again and again. Reported are
failed requests, the 99th percentile around a switch beside the rest of the same run, memory after each swap, and how
long a rollback takes until no request is answered by the version before. Exit code 1 when a limit is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import httpx

from saccade.models.contract.manifest import Manifest, manifest_bytes, read_manifest
from saccade.service.bench.statistics import percentiles
from tests.load.arguments import count_from_1, repository_with_versions, seconds_above_0
from tests.support.images import scene_jpeg
from tests.support.server import ROOT, Server, call_saccade, clean_environment, running_server, wait_until

MOST_P99 = 1.5  # times that of the rest of the run
MOST_MEMORY = 1.05  # times that after the first swap
MOST_ROLLBACK_S = 1.0
_MIB = 1024 * 1024
_AFTER_S = 1.0  # a switch lasts until so long after the old version has left memory
_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Seen:
    """One request: when it was to be sent, when its answer was there, who answered."""

    due_s: float
    end_s: float
    status: int
    version: int

    @property
    def ms(self) -> float:
        return 1000 * (self.end_s - self.due_s)


async def ask_steadily(url: str, rate: float) -> list[tuple[float, float, int, int]]:
    """Sends a picture at each tick, whatever became of those before, until SIGTERM; returns the fields of `Seen`."""
    picture, stop = scene_jpeg(640, 480), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    seen: list[tuple[float, float, int, int]] = []
    waiting: set[asyncio.Task[None]] = set()
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    async with httpx.AsyncClient(timeout=10.0, limits=limits) as client:

        async def ask(due_s: float) -> None:
            try:
                answer = await client.post(url, content=picture, headers={"Content-Type": "image/jpeg"})
                status, version = answer.status_code, int(answer.json().get("version", 0))
            except httpx.HTTPError:
                status, version = 0, 0
            seen.append((due_s, time.monotonic(), status, version))

        start_s = time.monotonic()
        for number in itertools.count():
            due_s = start_s + number / rate
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            if stop.is_set():
                break
            task = asyncio.create_task(ask(due_s))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)
    return seen


@contextmanager
def steady_requests(server: Server, model: str, rate: float, folder: Path) -> Iterator[Callable[[], list[Seen]]]:
    """Yields what ends the requests and returns all of them."""
    out = folder / "seen.json"
    url = f"{server.base_url}/v1/models/{model}/predict"
    command = [sys.executable, "-m", "tests.load.swaps", "--ask", url, str(rate), str(out)]
    process = subprocess.Popen(command, cwd=ROOT, env=clean_environment())

    def ended() -> list[Seen]:
        process.terminate()
        process.wait(60)
        return [Seen(*each) for each in json.loads(out.read_text())]

    try:
        yield ended
    finally:
        process.terminate()
        process.wait(60)


def publish_copy(source: Path, manifest: Manifest, repository: Path, version: int) -> None:
    """Publishes the same files as another version, in one rename."""
    building = repository / manifest.model / f".building-{version}"
    shutil.copytree(source, building, ignore=shutil.ignore_patterns("manifest.*"))
    (building / "manifest.json").write_bytes(manifest_bytes(manifest.model_copy(update={"version": version})))
    building.rename(building.with_name(str(version)))


def answering(server: Server, model: str) -> int:
    return int(server.model(model)["labels"].get("stable", 0))


def answers_by(server: Server, model: str, version: int) -> bool:
    return answering(server, model) == version


def p99_ms(requests: Sequence[Seen]) -> float:
    return percentiles([each.ms for each in requests], (99,))[0]


def resident_mib(server: Server) -> dict[str, float]:
    """The memory of HTTP processes and workers; what several share is divided among them."""
    kinds = {"HTTP": server.api_processes(), "worker": server.children("saccade.service.worker.process")}
    return {kind: sum(each.memory_full_info().pss for each in found) / _MIB for kind, found in kinds.items()}


def fill(server: Server, model: str) -> None:
    """Sends as many requests at once as ever come: memory that a busy moment takes is no memory of a swap."""
    picture = scene_jpeg(640, 480)
    with ThreadPoolExecutor(_CONNECTIONS) as clients:
        list(clients.map(lambda _: server.predict(model, picture), range(10 * _CONNECTIONS)))


def swapped(server: Server, source: Path, repository: Path, swaps: int, rest_s: float, rate: float, work: Path) -> bool:
    """Publishes one version after the other; returns whether the limits are kept."""
    manifest, _ = read_manifest(source)
    model = manifest.model
    memory: list[dict[str, float]] = []
    windows: list[tuple[float, float]] = []
    fill(server, model)
    with steady_requests(server, model, rate, work) as ended:
        time.sleep(rest_s)
        for version in range(2, 2 + swaps):
            start_s = time.monotonic()
            publish_copy(source, manifest, repository, version)
            wait_until(partial(answers_by, server, model, version), 60.0, f"version {version} answers")
            windows.append((start_s, time.monotonic() + _AFTER_S))
            time.sleep(_AFTER_S + rest_s)
            memory.append(resident_mib(server))
        requests = ended()
    around = [each for each in requests if any(start <= each.due_s <= end for start, end in windows)]
    others = [each for each in requests if not any(start <= each.due_s <= end for start, end in windows)]
    failed = sum(each.status != 200 for each in requests)
    slower = p99_ms(around) / p99_ms(others)
    before, after = (sum(each.values()) for each in (memory[0], memory[-1]))
    grown, parts = (
        after / before,
        ", ".join(f"{kind} {memory[0][kind]:.0f} to {memory[-1][kind]:.0f}" for kind in memory[0]),
    )
    seconds = [end - start - _AFTER_S for start, end in windows]
    print(
        f"{swaps} swaps, {len(requests)} requests at {rate:g}/s: {failed} failed; p99 {p99_ms(around):.1f} ms around a "
        f"switch, {p99_ms(others):.1f} ms else ({slower:.2f}, at most {MOST_P99}); a version answers "
        f"{median(seconds):.2f} s after it appeared; memory {before:.0f} MiB after the first swap, "
        f"{after:.0f} after the last ({grown:.3f}, at most {MOST_MEMORY}; {parts})",
        flush=True,
    )
    return failed == 0 and slower <= MOST_P99 and grown <= MOST_MEMORY


def rolled_back(
    server: Server, model: str, repository: Path, times: int, rest_s: float, rate: float, work: Path
) -> bool:
    """Promotes the newest version and takes it back, again and again; returns whether the limits are kept."""
    newest, options = answering(server, model), ("--repository", str(repository), "--url", server.base_url)
    older = newest - 1
    call_saccade("rollout", "promote", model, str(older), *options, "--wait")
    commanded, took = [], []
    with steady_requests(server, model, rate, work) as ended:
        for _ in range(times):
            call_saccade("rollout", "promote", model, str(newest), *options, "--wait")
            time.sleep(rest_s)
            call_saccade("rollout", "rollback", model, str(older), *options)
            commanded.append(time.monotonic())
            time.sleep(MOST_ROLLBACK_S + rest_s)
        requests = ended()
    for at_s in commanded:
        until_s = at_s + MOST_ROLLBACK_S + rest_s / 2
        wrong = [each.due_s for each in requests if at_s <= each.due_s <= until_s and each.version == newest]
        took.append(max(wrong, default=at_s) - at_s)
    failed = sum(each.status != 200 for each in requests)
    print(
        f"{times} rollbacks, {len(requests)} requests: {failed} failed; the last request that the newer version "
        f"answered was sent {median(took):.2f} s (median), {max(took):.2f} s (longest) after the command, "
        f"at most {MOST_ROLLBACK_S}",
        flush=True,
    )
    return failed == 0 and max(took) <= MOST_ROLLBACK_S


def main() -> int:
    if sys.argv[1:2] == ["--ask"]:  # the child of `steady_requests`
        url, rate, out = sys.argv[2:]
        Path(out).write_text(json.dumps(asyncio.run(ask_steadily(url, float(rate)))))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--repository", type=repository_with_versions, default=os.environ.get("SACCADE_REPOSITORY", "repository")
    )
    parser.add_argument("--model", default="digits-classifier")
    parser.add_argument("--times", type=count_from_1, default=20, help="swaps, and then rollbacks")
    parser.add_argument("--rest-s", type=seconds_above_0, default=2.0, help="between two of them")
    parser.add_argument("--rate", type=float, default=60.0, help="requests per second")
    given = parser.parse_args()
    if not any((given.repository / given.model).glob("[0-9]*")):
        parser.error(f"{given.repository} holds no version of {given.model!r}: --model names another one")
    source = max((given.repository / given.model).glob("[0-9]*"), key=lambda path: int(path.name))
    manifest, _ = read_manifest(source)
    with tempfile.TemporaryDirectory() as name:
        work, repository = Path(name), Path(name) / "repository"
        publish_copy(source, manifest, repository, 1)
        settings = {"backend": "onnxruntime", "tuning": "off", "versions_per_model": 1}
        with running_server(repository, work, **settings) as server:
            is_swapped = swapped(server, source, repository, given.times, given.rest_s, given.rate, work)
            is_back = rolled_back(server, given.model, repository, given.times, given.rest_s, given.rate, work)
    return 0 if is_swapped and is_back else 1


if __name__ == "__main__":
    sys.exit(main())
