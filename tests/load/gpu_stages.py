"""The stages of `make bench-gpu` that time plans and backends. Promises: one case at a time, each in its own row.

Host times run from images in host memory to answers in host memory; device times are between two events around the run.
Compared plans take turns, so that clocks and temperature hurt both alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from saccade.export.qualification.benchmark import latency_figure, seconds_per_run, speed_ratio, usable_threads
from saccade.models.contract.manifest import Manifest, read_manifest
from saccade.service.backends.base import LoadRequest
from saccade.service.repository.plans import PlanStore, StoredPlan, engines_root
from saccade.service.worker.gpu_jpeg.choice import JpegDecoderSetting
from tests.load.gpu_cases import (
    CPU_PAIRS,
    CPU_RUNTIME,
    DIRECT,
    EVERYTHING,
    PAIRS,
    TORCH_RUNTIME,
    Device,
    Pair,
    Runtime,
    Selection,
    missing_for,
    runtimes_for,
    tensorrt_modules,
    variants_for,
)
from tests.load.gpu_networks import BenchNetwork, generated_images
from tests.load.gpu_plans import PlanNotBuilt, built_plan, effective
from tests.load.gpu_publish import NotPrepared, published
from tests.load.gpu_rows import OUT_OF_TIME, Budget, Place, Rows
from tests.load.gpu_subjects import DirectPlan, Images, Subject, TorchSubject, open_backend
from tests.support.gpu_machine import GpuMachine, imported, reason

Say = Callable[[str], None]
_REPEATS = 2000  # at most; the time of a case ends it earlier


class DeviceGone(Exception):
    """Every later CUDA call of this process fails; only another call of the benchmark can go on."""


def device_is_lost() -> bool:
    """Whether a sticky CUDA error ended what this process can do."""
    from saccade.service.backends.cuda.failures import STICKY

    driver, _ = imported("cuda.bindings.runtime")
    if driver is None:
        return False
    driver.cudaDeviceSynchronize()  # tells an error that was left behind, once
    return int(driver.cudaDeviceSynchronize()[0]) in STICKY.values()


@dataclass(frozen=True, slots=True)
class Bench:
    """One call: what is here, where it writes, how long it may take."""

    machine: GpuMachine
    device: Device
    prepared: Path  # ONNX files, see `gpu_prepare.py`
    work: Path  # repositories and plans of the benchmark
    rows: Rows
    budget: Budget
    networks: tuple[BenchNetwork, ...]
    case_s: float  # of timing per figure
    retry_failed: bool
    say: Say
    selection: Selection = EVERYTHING
    connections: tuple[int, ...] = ()  # that `served` tries; empty: it searches
    jpeg_decoder: JpegDecoderSetting = "auto"  # of `served`

    def repository(self, network: BenchNetwork) -> Path:
        return self.work / "repositories" / network.name

    def store(self, network: BenchNetwork) -> PlanStore:
        return PlanStore(engines_root(self.repository(network)))

    def version(self, network: BenchNetwork) -> tuple[Path, Manifest]:
        """The published version. Raises NotPrepared."""
        everywhere = variants_for("cpu") if self.device == "cpu" else ()
        directory = published(network, self.prepared, self.repository(network), everywhere=everywhere)
        return directory, read_manifest(directory)[0]

    def measure(self, place: Place, missing: str, make: Callable[[], dict[str, Any]]) -> None:
        """One case. Whatever it raises is its row, and the others go on."""
        if self.rows.is_settled(place, retry_failed=self.retry_failed):
            return
        left_out = self.selection.leaves_out(runtime=place.runtime, variant=place.variant)
        if left_out or missing:
            self.rows.not_run(place, left_out or missing)
            return
        if self.budget.left_s() < self.case_s:
            self.rows.not_run(place, OUT_OF_TIME)
            return
        self.rows.begin(place)
        try:
            self.rows.add(place, make())
        except (NotPrepared, PlanNotBuilt) as error:
            self.rows.not_run(place, str(error))
        except Exception as error:  # a runtime raises what it likes, and one case must not end the others
            self.rows.failed(place, reason(error))
            if self.device == "cuda" and device_is_lost():
                raise DeviceGone(f"{place.key} cost this process its device: {reason(error)}") from error
        self.say(f"{place.key}: {self.rows.document['rows'][place.key]}")


def plan_of(bench: Bench, network: BenchNetwork, variant: str, module: str) -> StoredPlan:
    """From the store, or built now. Raises NotPrepared, PlanNotBuilt, or DeviceError with TensorRT's reason."""
    directory, _ = bench.version(network)
    return built_plan(directory, variant, module, bench.machine.capability, bench.store(network))


def open_subject(
    bench: Bench, network: BenchNetwork, variant: str, runtime: Runtime, *, cuda_graphs: bool = True
) -> Subject:
    """Ready to run batches of the network's sizes."""
    if runtime.module == TORCH_RUNTIME:
        return TorchSubject(network, variant)
    if runtime.how == DIRECT:
        plan = plan_of(bench, network, variant, runtime.module)
        return DirectPlan(plan.directory / "plan", runtime.module, cuda_graph=cuda_graphs)
    directory, manifest = bench.version(network)
    found = manifest.variant(variant)
    assert found is not None
    is_cpu = runtime.module == CPU_RUNTIME
    request = LoadRequest(
        file=directory / found.file,
        input=manifest.input,
        outputs=manifest.answer,
        device="cpu" if is_cpu else "cuda:0",
        threads=usable_threads(0) if is_cpu else 1,
        allow_spinning=False,
        sha256=next(entry.sha256 for entry in manifest.files if entry.path == found.file),
        precision=found.precision,
        merges_dequantized=found.precision != "fp8",
        allowed_batch_sizes=manifest.allowed_batch_sizes,
        plan_dir=plan_of(bench, network, variant, runtime.module).directory if runtime.is_tensorrt else None,
        cuda_graphs=cuda_graphs,
    )
    return open_backend("tensorrt" if runtime.is_tensorrt else "onnxruntime", request)


@contextmanager
def opened(
    bench: Bench, network: BenchNetwork, variant: str, runtime: Runtime, *, cuda_graphs: bool = True
) -> Iterator[Subject]:
    subject = open_subject(bench, network, variant, runtime, cuda_graphs=cuda_graphs)
    try:
        yield subject
    finally:
        subject.close()


def images_of(network: BenchNetwork, count: int) -> Images:
    """A few generated images, repeated: making each one anew would take longer than the measurement."""
    few = generated_images(min(count, 4), network.preprocess.height, network.preprocess.width, seed=2)
    return np.ascontiguousarray(np.resize(few, (count, *few.shape[1:])))


def run_plans(bench: Bench) -> None:
    """Builds every plan and reads what the inspector says of it."""
    for network in bench.networks:
        for variant in variants_for(bench.device):
            for module in tensorrt_modules() if bench.device == "cuda" else ():
                runtime = Runtime(module, DIRECT)
                place = Place("plans", network.name, variant, module)
                bench.measure(
                    place,
                    missing_for(runtime, bench.machine),
                    partial(_plan_row, bench, network, variant, runtime),
                )


def _plan_row(bench: Bench, network: BenchNetwork, variant: str, runtime: Runtime) -> dict[str, Any]:
    built = plan_of(bench, network, variant, runtime.module)
    record = built.record
    plan = DirectPlan(built.directory / "plan", runtime.module, cuda_graph=False)
    try:
        plan.run(images_of(network, 1))  # so that the inspector knows shapes
        inspected = effective(plan.layer_information(), bench.version(network)[0] / f"{variant}.onnx", variant)
    finally:
        plan.close()
    return {
        "build_s": record.build_seconds,
        "plan_bytes": record.plan_bytes,
        "network_layers": record.layers,
        "runtime_version": record.key.runtime_version,
        "warnings": list(record.warnings),
        **inspected,
    }


def run_bare(bench: Bench) -> None:
    """Every variant with every runtime at every batch size."""
    for network in bench.networks:
        for variant in variants_for(bench.device):
            for runtime in runtimes_for(variant, bench.device):
                _bare_cases(bench, network, variant, runtime)


def _bare_cases(bench: Bench, network: BenchNetwork, variant: str, runtime: Runtime) -> None:
    """One opening for all batch sizes that are still to do."""
    places = [Place("bare", network.name, variant, runtime.name, size) for size in network.batch_sizes]
    missing = missing_for(runtime, bench.machine)
    opening: list[Subject] = []
    problems: list[Exception] = []  # what opening raised: trying again for each batch size may take minutes

    def row(size: int) -> dict[str, Any]:
        if problems:
            raise problems[0]
        if not opening:
            try:
                opening.append(open_subject(bench, network, variant, runtime))
            except Exception as error:
                problems.append(error)
                raise
        return bare_row(opening[0], images_of(network, size), bench.case_s)

    for place in places:
        bench.measure(place, missing, partial(row, place.batch))
    for subject in opening:
        subject.close()


def bare_row(subject: Subject, images: Images, case_s: float) -> dict[str, Any]:
    """Latency of one batch at a time, then throughput with batches in flight."""
    device_s: list[float] = []

    def run() -> None:
        found = subject.run(images)
        if found is not None:
            device_s.append(found)

    subject.run(images)
    subject.flow(images, 0.0)  # every buffer once: each has graphs of its own
    device_s.clear()
    figure = latency_figure(seconds_per_run([run], _REPEATS, case_s), len(images))
    row: dict[str, Any] = {
        "p50_ms": figure.p50_ms,
        "p99_ms": figure.p99_ms,
        "images_per_s": round(subject.flow(images, case_s), 1),
        "images_per_s_one_at_a_time": figure.images_per_s,
    }
    if device_s:
        p50, p99 = np.percentile(np.array(device_s) * 1e3, [50, 99])
        row |= {"device_p50_ms": round(float(p50), 4), "device_p99_ms": round(float(p99), 4)}
    return row


def run_graphs(bench: Bench) -> None:
    """CUDA graphs on against off at batch 1, in turns."""
    if bench.device == "cpu":
        return
    for network in bench.networks:
        for variant in ("fp16", "int8-trt"):
            runtimes = [each for each in runtimes_for(variant, bench.device) if each.module != TORCH_RUNTIME]
            for runtime in runtimes:
                bench.measure(
                    Place("graphs", network.name, variant, runtime.name, 1),
                    missing_for(runtime, bench.machine),
                    partial(_graphs_row, bench, network, variant, runtime),
                )


def _graphs_row(bench: Bench, network: BenchNetwork, variant: str, runtime: Runtime) -> dict[str, Any]:
    images = images_of(network, 1)
    with (
        opened(bench, network, variant, runtime, cuda_graphs=True) as with_graphs,
        opened(bench, network, variant, runtime, cuda_graphs=False) as without,
    ):
        return paired_row(with_graphs, without, images, bench.case_s)


def run_paired(bench: Bench) -> None:
    """Sparse against dense and precision against precision, at batch 1 and the largest, in turns."""
    is_cpu = bench.device == "cpu"
    runtimes = [Runtime(CPU_RUNTIME)] if is_cpu else [Runtime(module, DIRECT) for module in tensorrt_modules()]
    for network in bench.networks:
        for pair in CPU_PAIRS if is_cpu else PAIRS:
            for runtime in runtimes:
                for size in (network.batch_sizes[0], network.batch_sizes[-1]):
                    bench.measure(
                        Place("paired", network.name, pair.name, runtime.name, size),
                        missing_for(runtime, bench.machine),
                        partial(_pair_row, bench, network, pair, runtime, size),
                    )


def _pair_row(bench: Bench, network: BenchNetwork, pair: Pair, runtime: Runtime, size: int) -> dict[str, Any]:
    with (
        opened(bench, network, pair.first, runtime) as first,
        opened(bench, network, pair.second, runtime) as second,
    ):
        return paired_row(first, second, images_of(network, size), bench.case_s)


def paired_row(first: Subject, second: Subject, images: Images, case_s: float) -> dict[str, Any]:
    """How much faster `first` is: images per second, first / second, with the interval of resampled turns."""
    runs = [lambda: first.run(images), lambda: second.run(images)]
    seconds = seconds_per_run(runs, _REPEATS, 2 * case_s)
    found = speed_ratio(seconds, len(images))
    return {
        "ratio": found.ratio,
        "ci_low": found.ci_low,
        "ci_high": found.ci_high,
        "first_images_per_s": found.deploy_images_per_s,
        "second_images_per_s": found.bare_images_per_s,
        "turns": len(seconds),
    }


def best_bare(rows: Rows, network: BenchNetwork, variant: str, runtime: Runtime) -> float | None:
    """Most images per second of a bare backend over all batch sizes."""
    found = [rows.find(Place("bare", network.name, variant, runtime.name, size)) for size in network.batch_sizes]
    return max((float(row["images_per_s"]) for row in found if row), default=None)
