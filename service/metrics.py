"""Declares all metrics, with units and labels; every label has a small fixed set of values.

Each process writes its own values into PROMETHEUS_MULTIPROC_DIR when the supervisor has set it, and the process that is
scraped adds them up. The states of workers and versions are rendered from the supervisor's last catalog.
"""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from pathlib import Path

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Summary,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from saccade.models.contract.extras import UNFAMILIAR_ABOVE
from saccade.service.core import Outcome, VersionState
from saccade.service.ipc.messages import Catalog, ProcessUse
from saccade.service.ipc.metric_files import locked, metric_files
from saccade.service.ipc.metric_series import CountSeries, TimeSeries
from saccade.service.ipc.retired_versions import Names, RetiredVersions, versions_named

MULTIPROCESS_DIR = "PROMETHEUS_MULTIPROC_DIR"
STAGES = ("decode", "queue", "infer", "postprocess", "encode")
# "second_opinion" counts images that a device could not decode, so that the image threads decided on them.
DECODERS = ("image_threads", "device", "second_opinion")
# "failed" shadows count as no agreement, "dropped" ones do not count: the device had no room for them.
SHADOW_OUTCOMES = ("compared", "failed", "dropped")
TRACE_OUTCOMES = ("recorded", "left_out")
SHED_REASONS = ("slots", "wait", "key", "uploads", "deadline", "draining", "not_ready")

# A small network takes 0.5 ms for one image; the default deadline is 10 s.
_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """All metrics of one process; the composition root of each process makes one."""

    def __init__(self, registry: CollectorRegistry, version: str = "") -> None:
        """`version` is that of the program, for a process that is scraped."""
        directory = os.environ.get(MULTIPROCESS_DIR)
        self._files = None if directory is None else metric_files(Path(directory))
        self._version = version
        self._registry = registry
        self._retired = RetiredVersions()
        self.processes: tuple[ProcessUse, ...] = ()  # as the supervisor said last
        self.requests_total = Counter(
            "saccade_requests_total",
            "Requests by outcome",
            ("model", "version", "outcome"),
            registry=registry,
        )
        self.request_duration_seconds = Histogram(
            "saccade_request_duration_seconds",
            "From the first byte of the body to the rendered answer",
            ("model", "version"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.stage_duration_seconds = Histogram(
            "saccade_stage_duration_seconds",
            "Time of one image in one stage",
            ("model", "version", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.decoded_images_total = Counter(
            "saccade_decoded_images_total",
            "Images by who decoded them",
            ("model", "version", "decoder"),
            registry=registry,
        )
        self.nonfinite_total = Counter(
            "saccade_nonfinite_total",
            "Images whose answer held what is no number; each was answered 500",
            ("model", "version"),
            registry=registry,
        )
        self.batch_size = Histogram(
            "saccade_batch_size",
            "Images per executed batch",
            ("model", "version"),
            buckets=_BATCHES,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "saccade_queue_depth",
            "Images waiting for the device",
            ("model",),
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.queue_wait_estimate_seconds = Gauge(
            "saccade_queue_wait_estimate_seconds",
            "Expected time until a request that comes now would begin to run",
            ("model",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.slo_headroom_ratio = Gauge(
            "saccade_slo_headroom_ratio",
            "1 - that time / SACCADE_OBJECTIVE_MS, or the default deadline; below 0 it cannot be kept",
            ("model",),
            registry=registry,
            multiprocess_mode="livemin",
        )
        self.answers_by_variant_total = Counter(
            "saccade_answers_by_variant_total",
            "Answered requests by the variant that answered",
            ("model", "version", "variant"),
            registry=registry,
        )
        self.unfamiliar_ratio = Summary(
            "saccade_unfamiliar_ratio",
            "1 for each picture of the share in SACCADE_TRUST_SAMPLE that is unfamiliar, else 0",
            ("model", "version"),
            registry=registry,
        )
        self.brownout_rung = Gauge(
            "saccade_brownout_rung",
            "Rung of the ladder that answers now; 0 is the best",
            ("model",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.shadows_total = Counter(
            "saccade_shadows_total",
            "Images that a candidate was asked about after stable had answered them",
            ("model", "stable", "candidate", "outcome"),
            registry=registry,
        )
        self.shadow_agreement_ratio = Summary(
            "saccade_shadow_agreement_ratio",
            "How far stable and candidate agree on an image, 0 to 1; sum over count is the mean",
            ("model", "stable", "candidate"),
            registry=registry,
        )
        self.shed_total = Counter(
            "saccade_shed_total",
            "Requests refused before compute",
            ("model", "reason"),
            registry=registry,
        )
        self.traces_total = Counter(
            "saccade_traces_total",
            "Requests of which spans were made, and that the bound on spans left out",
            ("outcome",),
            registry=registry,
        )
        self.slots_in_use = Gauge(
            "saccade_slots_in_use",
            "Requests that hold a slot",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._by_version = (
            self.requests_total,
            self.request_duration_seconds,
            self.stage_duration_seconds,
            self.decoded_images_total,
            self.nonfinite_total,
            self.batch_size,
            self.answers_by_variant_total,
            self.unfamiliar_ratio,
            self.shadows_total,
            self.shadow_agreement_ratio,
        )

    def version_came(self, model: str, version: str) -> None:
        """Keeps the series of a version while it is there."""
        self._retired.came((model, version))

    def version_left(self, model: str, version: str) -> None:
        """Lets the series of versions go, several at once, when as many others have left after them."""
        gone = self._retired.left((model, version))
        if gone:
            self._forget(gone)

    def _forget(self, versions: Set[Names]) -> None:
        def is_gone(labels: Mapping[str, str]) -> bool:
            return not versions.isdisjoint(versions_named(labels))

        for metric in self._by_version:
            found = [sample.labels for family in metric.collect() for sample in family.samples]
            gone = {tuple(value for name, value in each.items() if name != "le") for each in found if is_gone(each)}
            for values in gone:
                metric.remove(*values)
        if self._files is not None:
            self._files.drop(is_gone)

    def count_traces(self, recorded: int, left_out: int) -> None:
        """Counts requests that had their chance to be traced."""
        for outcome, count in zip(TRACE_OUTCOMES, (recorded, left_out), strict=True):
            self.traces_total.labels(outcome).inc(count)

    def exposition(self, catalog: Callable[[], Catalog]) -> bytes:
        """Returns the Prometheus text of all processes. It reads files when there are several: call it in a thread."""
        scrape = self._scrape()
        scrape.register(_CatalogCollector(catalog))
        scrape.register(_ProcessCollector(self._version, self.processes))
        return generate_latest(scrape)

    def collected(self) -> Iterable[Metric]:
        """Returns what all processes counted. It reads files, as above."""
        return self._scrape().collect()

    def _scrape(self) -> CollectorRegistry:
        scrape = CollectorRegistry()
        if MULTIPROCESS_DIR in os.environ:
            scrape.register(_AllProcesses(os.environ[MULTIPROCESS_DIR]))
        else:
            scrape.register(_Registered(self._registry))
        return scrape


class VersionMetrics:
    """The metrics of one model version with their labels looked up once, since `labels()` costs more than observing."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        metrics.version_came(model, version)
        self.duration = TimeSeries(metrics.request_duration_seconds.labels(model, version))
        stages, decoded, ended = metrics.stage_duration_seconds, metrics.decoded_images_total, metrics.requests_total
        self.stages = {stage: TimeSeries(stages.labels(model, version, stage)) for stage in STAGES}
        self.decoded = {name: CountSeries(decoded.labels(model, version, name)) for name in DECODERS}
        self.outcomes = {each: CountSeries(ended.labels(model, version, each.value)) for each in Outcome}
        self.not_finite = CountSeries(metrics.nonfinite_total.labels(model, version))
        self._unfamiliar = metrics.unfamiliar_ratio
        self._answers = metrics.answers_by_variant_total
        self._names = (model, version)
        self._by_variant: dict[str, CountSeries] = {}

    def count_trust(self, score: float) -> None:
        """Counts a picture by its score of trust; one that is no number says nothing."""
        if math.isfinite(score):
            self._unfamiliar.labels(*self._names).observe(float(score > UNFAMILIAR_ABOVE))

    def count_answer(self, variant: str) -> None:
        """Counts a request that this variant answered."""
        counted = self._by_variant.get(variant)
        if counted is None:
            counted = self._by_variant[variant] = CountSeries(self._answers.labels(*self._names, variant))
        counted.inc()


class ShadowMetrics:
    """The metrics of one pair of versions with their labels looked up once."""

    def __init__(self, metrics: Metrics, model: str, stable: int, candidate: int) -> None:
        names = (model, str(stable), str(candidate))
        self.outcomes = {name: metrics.shadows_total.labels(*names, name) for name in SHADOW_OUTCOMES}
        self.agreement = metrics.shadow_agreement_ratio.labels(*names)


class _AllProcesses(Collector):
    """Adds up the files of all processes, while no file of an ended one is being taken into the sums."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def collect(self) -> Iterable[Metric]:
        with locked(Path(self._directory)):
            every = MultiProcessCollector(None, self._directory)  # type: ignore[no-untyped-call]  # untyped upstream
            found: Iterable[Metric] = every.collect()  # type: ignore[no-untyped-call]  # untyped upstream
            return found


class _Registered(Collector):
    """Forwards to the process's own registry when there is only one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        return self._registry.collect()


class _ProcessCollector(Collector):
    """Renders what the supervisor said of the processes, and which program they run."""

    def __init__(self, version: str, processes: tuple[ProcessUse, ...]) -> None:
        self._version = version
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily("saccade_build_info", "The program that runs", labels=["version", "python"])
        build.add_metric([self._version, platform.python_version()], 1.0)
        cpu = CounterMetricFamily(
            "saccade_process_cpu_seconds", "Processor time by kind of process", labels=["process"]
        )
        memory = GaugeMetricFamily(
            "saccade_process_resident_memory_bytes",
            "Resident memory by kind of process; pages that several share count in each",
            labels=["process"],
        )
        descriptors = GaugeMetricFamily(
            "saccade_process_open_fds", "Open files and connections by kind of process", labels=["process"]
        )
        for use in self._processes:
            cpu.add_metric([use.kind], use.cpu_s)
            memory.add_metric([use.kind], use.memory_bytes)
            descriptors.add_metric([use.kind], use.open_fds)
        yield from (build, cpu, memory, descriptors)


class _CatalogCollector(Collector):
    """Renders the states of devices and versions from the supervisor's last catalog."""

    def __init__(self, catalog: Callable[[], Catalog]) -> None:
        self._catalog = catalog

    def collect(self) -> Iterator[Metric]:
        catalog = self._catalog()
        up = GaugeMetricFamily("saccade_worker_up", "Worker answers probes", labels=["device"])
        restarts = CounterMetricFamily("saccade_worker_restarts", "Times a worker was replaced", labels=["device"])
        memory = GaugeMetricFamily(
            "saccade_device_memory_bytes", "Device memory that loaded models were measured to hold", labels=["device"]
        )
        api_restarts = CounterMetricFamily("saccade_api_restarts", "Times an HTTP process was replaced")
        api_restarts.add_metric([], catalog.api_restarts)
        for device in catalog.devices:
            memory.add_metric([device.device], device.memory_bytes)
            up.add_metric([device.device], float(device.up))
            restarts.add_metric([device.device], device.restarts)
        state = GaugeMetricFamily(
            "saccade_model_state", "1 for the current state", labels=["model", "version", "state"]
        )
        info = GaugeMetricFamily(
            "saccade_model_info", "What a version serves", labels=["model", "version", "variant", "digest"]
        )
        engine = GaugeMetricFamily(
            "saccade_engine_state",
            "1 for the current state of a TensorRT plan",
            labels=["model", "version", "variant", "device", "state"],
        )
        progress = GaugeMetricFamily(
            "saccade_engine_build_progress_ratio",
            "Share of the present stage of a plan's build that is done",
            labels=["model", "version", "variant", "device", "stage"],
        )
        load = GaugeMetricFamily(
            "saccade_model_load_seconds",
            "From the order to load until it was warm, of the last load",
            labels=["model", "version"],
        )
        on_demand = GaugeMetricFamily(
            "saccade_model_on_demand", "1 where requests load the version", labels=["model", "version"]
        )
        for item in catalog.versions:
            if item.on_demand:
                on_demand.add_metric([item.model, str(item.version)], 1.0)
            if item.load_seconds:
                load.add_metric([item.model, str(item.version)], item.load_seconds)
            for plan in item.engines:
                where = [item.model, str(item.version), plan.variant, plan.device]
                engine.add_metric([*where, plan.state], 1.0)
                if plan.state == "building":
                    progress.add_metric([*where, plan.stage], plan.share)
            for name in VersionState:
                state.add_metric([item.model, str(item.version), name.value], float(item.state == name.value))
            if item.variant:
                info.add_metric([item.model, str(item.version), item.variant, item.manifest_sha256], 1.0)
        generation = GaugeMetricFamily(
            "saccade_serving_generation", "Generation of the desired state that rules; 0: none does", labels=["model"]
        )
        refused = GaugeMetricFamily(
            "saccade_serving_refused", "1 while a newer desired state does not rule", labels=["model"]
        )
        for model in catalog.models:
            generation.add_metric([model.model], float(model.generation))
            refused.add_metric([model.model], float(bool(model.problem)))
        yield from (
            up,
            restarts,
            api_restarts,
            memory,
            state,
            info,
            load,
            on_demand,
            engine,
            progress,
            generation,
            refused,
        )
