"""`python -m tests.load.runtimes`: the files of published versions in every runtime for processors, in turns.

For each model its fp32 and int8 files run in ONNX Runtime and in OpenVINO (fp32 also in bfloat16, where the processor
has it), with a compiled model per batch size as it is served, and with `--dynamic` also with one for all sizes. A ratio
is the speed over that of ONNX Runtime with the same file, or of a dynamic model over the others: the median over rounds
with its interval at 95 %. Time to open and memory, with all allowed batch sizes, are those of a new process.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from saccade.models.contract.manifest import Manifest, read_manifest
from saccade.service.backends.base import Backend, LoadRequest, Outputs, UInt8Array
from saccade.service.backends.openvino_backend import config_for, import_openvino, why_absent
from saccade.service.backends.registry import load_backend
from saccade.service.backends.requests import load_request
from saccade.service.paired_timing import Run, TimingLimits, pairs_of, timed_in_turns
from saccade.service.repository.open import newest_versions
from tests.load.arguments import count_from_1, repository_with_versions, seconds_above_0

_TURNS = 5


@dataclass(frozen=True, slots=True)
class Case:
    """One file in one runtime."""

    name: str
    against: str  # the case that it is compared with; itself: the first of its file
    backend: str
    request: LoadRequest


def cases(version_dir: Path, manifest: Manifest, sizes: tuple[int, ...], threads: int, dynamic: bool) -> list[Case]:
    """The cases of a version, the most exact first."""
    found: list[Case] = []
    for variant in ("fp32", "int8-cpu"):
        if manifest.variant(variant) is None:
            continue
        request = load_request(version_dir, manifest, variant, device="cpu", threads=threads, batch_sizes=sizes)
        kept = [(request.precision, request)]
        if variant == "fp32" and not why_absent("bf16"):
            kept.append(("bf16", replace(request, precision="bf16")))
        found.append(Case(f"{variant}-onnxruntime", f"{variant}-onnxruntime", "onnxruntime", request))
        for precision, each in kept:
            name = f"{precision}-openvino"
            found.append(Case(name, f"{variant}-onnxruntime", "openvino", each))
            found += [Case(f"{name}-dynamic", name, "dynamic", each)] if dynamic else []
    return found


class DynamicOpenVino:
    """One compiled model that takes every batch size, as the product does not serve it."""

    provider = "openvino, dynamic shapes"

    def __init__(self, request: LoadRequest) -> None:
        core = import_openvino().Core()
        config = config_for(request.precision, request.threads)
        self._run = core.compile_model(str(request.file), "CPU", config).create_infer_request()
        self._request = request

    def infer(self, images: UInt8Array) -> Outputs:
        found = self._run.infer({self._request.input.name: images}, share_inputs=True)
        return [found[output.name] for output in self._request.outputs]

    def close(self) -> None:
        del self._run


def opened_case(case: Case) -> Backend:
    return DynamicOpenVino(case.request) if case.backend == "dynamic" else load_backend(case.backend, case.request)


def measured(found: Sequence[Case], sizes: tuple[int, ...], seconds: float) -> Iterator[dict[str, object]]:
    """A row per case that is compared; each batch size is measured for itself."""
    for size in sizes:
        shape = (size, *found[0].request.input.shape)
        images = np.random.default_rng(size).integers(0, 256, shape, np.uint8)

        @contextmanager
        def runs_of(case: Case, batch: np.ndarray) -> Iterator[list[Run]]:
            with closing(opened_case(case)) as backend:
                yield [partial(backend.infer, batch)]

        budget_s = seconds * len(found)
        limits = TimingLimits(_TURNS, budget_s, budget_s / (9 * _TURNS * len(found)))
        timings = timed_in_turns({case.name: partial(runs_of, case, images) for case in found}, limits)
        names = [case.name for case in found]
        pairs = pairs_of(timings, names, "cpu", (size,))
        rates = {name: size / np.median(timings.medians(name)) for name in timings.blocks}
        for case in found:
            row: dict[str, object] = {
                "case": case.name,
                "batch": size,
                "images_per_s": round(rates.get(case.name, 0), 1),
            }
            pair = next((each for each in pairs.get(case.name, ()) if each.against == case.against), None)
            if pair is not None:
                row |= {"against": pair.against, "ratio": pair.ratio, "low": pair.ci_low, "high": pair.ci_high}
            if case.name in timings.failures:
                row["failure"] = timings.failures[case.name]
            yield row


def opened(case: Case) -> dict[str, float]:
    """Seconds to open a case and run every size once, and by how many MB a new process grew."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_opened, (case,))


def _opened(case: Case) -> dict[str, float]:
    # the runtime's own import is paid once by a worker, so it counts neither as time nor as memory
    small = replace(case.request, allowed_batch_sizes=case.request.allowed_batch_sizes[:1])
    opened_case(replace(case, request=small)).close()
    before_mb, start_s = _resident_mb(), time.perf_counter()
    backend = opened_case(case)
    seconds = time.perf_counter() - start_s
    for size in case.request.allowed_batch_sizes:
        backend.infer(np.zeros((size, *case.request.input.shape), np.uint8))
    found = {"open_s": round(seconds, 2), "mb": round(_resident_mb() - before_mb, 1)}
    backend.close()
    return found


def _resident_mb() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repository", type=repository_with_versions, action="append", required=True, help="repeat for several"
    )
    parser.add_argument("--threads", type=count_from_1, default=2)
    parser.add_argument("--seconds", type=seconds_above_0, default=5.0, help="for each case and batch size")
    parser.add_argument("--batch", type=count_from_1, action="append", help="repeat for several; 1 and 8 without")
    parser.add_argument("--dynamic", action="store_true", help="also one compiled model for all batch sizes")
    given = parser.parse_args()
    sizes = tuple(sorted(given.batch or (1, 8)))
    for repository in given.repository:
        for version in newest_versions(repository):
            manifest, _ = read_manifest(version.path)
            found = cases(version.path, manifest, sizes, given.threads, given.dynamic)
            for case in found:
                sized = replace(case.request, allowed_batch_sizes=manifest.allowed_batch_sizes)
                print(json.dumps({"model": manifest.model, "case": case.name} | opened(replace(case, request=sized))))
            for row in measured(found, sizes, given.seconds):
                print(json.dumps({"model": manifest.model, "load": round(os.getloadavg()[0], 1)} | row), flush=True)


if __name__ == "__main__":
    main()
