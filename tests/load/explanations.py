"""What explanations and trust cost a request and a run, in processor time.

    python -m tests.load.explanations --repository repository
    python -m tests.load.explanations --files repository

A server of every model that gives explanations is asked in turns, one request at a time: plain, for a grid, for a PNG,
for trust. A round asks every way as often; times are the processor time of all of the server's processes, which other
work on the machine hardly changes, and ratios are of pairs in one round. `--files` runs each file in turns without and
with each of its extra outputs at batch 1, and times its plain answer with extra outputs in the file and without them,
opened anew each round; it says whether the answers are the same bits.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import httpx
import numpy as np

from saccade.export.qualification.benchmark import seconds_per_run, speed_ratio
from saccade.models.contract.manifest import read_manifest
from saccade.models.contract.paired_speed import median_interval
from saccade.service.backends.base import LoadRequest, Outputs
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.backends.requests import load_request
from saccade.service.paired_timing import Run, TimingLimits, pairs_of, timed_in_turns
from saccade.service.repository.without_extras import without_extras
from tests.support.images import scene_jpeg
from tests.support.server import Server, running_server

WAYS: dict[str, dict[str, str]] = {
    "plain": {},
    "grid": {"explain": "grid"},
    "png": {"explain": "png"},
    "trust": {"trust": "true"},
}
_RUNS = 1500
_CORES = len(os.sched_getaffinity(0))


def cost(server: Server, model: str, rounds: int, requests: int) -> None:
    """Prints how much more processor time a request takes that asks, at one connection."""
    jpeg = scene_jpeg(256, 256)
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    with httpx.Client(base_url=server.base_url) as client:
        for number in range(rounds + 1):  # the first round warms up
            order = list(WAYS.items())
            for name, parameters in order if number % 2 else reversed(order):
                start_s = cpu_s(server)
                for _ in range(requests):
                    client.post(f"/v1/models/{model}/predict", content=jpeg, params=parameters).raise_for_status()
                if number:
                    seconds[name].append((cpu_s(server) - start_s) / requests)
    plain_ms = 1000 * statistics.median(seconds["plain"])
    for name in (name for name in WAYS if name != "plain"):
        ratios = [each / base for each, base in zip(seconds[name], seconds["plain"], strict=True)]
        found = median_interval(ratios)
        between = "" if found is None else f" ({found.low:.2f} to {found.high:.2f})"
        print(f"{model}: {name} {statistics.median(ratios):.2f}{between} times plain, {plain_ms:.2f} ms of processors")


def cpu_s(server: Server) -> float:
    """What all threads of the server's processes have computed, in seconds; of the scheduler, which counts in ns."""
    tasks = [task for process in server.family() for task in Path(f"/proc/{process.pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def asked_cost(request: LoadRequest) -> str:
    """How much more processor time a run takes that asks, by kind."""
    image = np.random.default_rng(0).integers(0, 256, (1, *request.input.shape), np.uint8)
    with closing(OnnxRuntimeBackend(replace(request, threads=1))) as backend:  # others' waiting would count
        found = []
        for extra in request.extras:
            runs = [partial(backend.infer, image), partial(backend.infer_asked, image, extra.kind.bit)]
            ratio = speed_ratio(seconds_per_run(runs, _RUNS, 60.0, time.process_time), 1)
            found.append(f"{extra.kind} {ratio.ratio:.3f} ({ratio.ci_low:.3f} to {ratio.ci_high:.3f})")
    return f"a run takes {', '.join(found)} times as long"


def plain_cost(repository: Path) -> None:
    """Prints what asking a file costs, and how fast its answer alone is against the same file without extra outputs."""
    for model in sorted(repository.iterdir()):
        version_dir = max(model.glob("[0-9]*"), key=lambda path: int(path.name), default=None)
        if version_dir is None:
            continue
        manifest, _ = read_manifest(version_dir)
        for variant in manifest.accepted_variants():
            if variant.extras and variant.target != "openvino":
                with tempfile.TemporaryDirectory() as name:
                    request = load_request(version_dir, manifest, variant.name, device="cpu", threads=_CORES)
                    told = f"{asked_cost(request)}; plain with extras in the file {_compared(request, Path(name))}"
                    print(f"{manifest.model} {variant.name}: {told}", flush=True)


def _compared(request: LoadRequest, folder: Path) -> str:
    bare = folder / request.file.name
    bare.write_bytes(without_extras(request.file.read_bytes(), request.extras))
    requests = {"with": request, "without": replace(request, file=bare, sha256=None, extras=())}
    rng, sizes = np.random.default_rng(0), (1, 8)
    batches = [rng.integers(0, 256, (size, *request.input.shape), np.uint8) for size in sizes]

    @contextmanager
    def runs_of(each: LoadRequest) -> Iterator[list[Run]]:
        with closing(OnnxRuntimeBackend(each)) as backend:
            yield [partial(backend.infer, batch) for batch in batches]

    answers = []
    for each in requests.values():
        with runs_of(each) as runs:
            answers.append([array for run in runs for array in cast("Outputs", run())])
    same = all(np.array_equal(*pair) for pair in zip(*answers, strict=True))
    limits = TimingLimits(turns=4, budget_s=20.0, block_s=0.05)
    timings = timed_in_turns({name: partial(runs_of, each) for name, each in requests.items()}, limits)
    (found,) = pairs_of(timings, ["without", "with"], "cpu", sizes)["with"]
    return f"{'the same bits' if same else 'OTHER ANSWERS'}, {found.ratio:.3f} times as fast ({found.interval})"


def main() -> None:
    parser = argparse.ArgumentParser(description="What extra outputs cost.")
    parser.add_argument("--repository", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--requests", type=int, default=100, help="per way and round")
    parser.add_argument("--files", type=Path, metavar="REPOSITORY")
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if given.files is not None:
        plain_cost(given.files)
    if given.repository is not None:
        with (
            tempfile.TemporaryDirectory() as name,
            running_server(given.repository, Path(name), backend="onnxruntime") as server,
        ):
            for model in server.client.get("/v1/models").json()["models"]:
                if any("explain" in version["gives"] for version in model["versions"]):
                    cost(server, model["name"], given.rounds, given.requests)


if __name__ == "__main__":
    main()
