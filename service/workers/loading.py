"""Loads and warms one variant. Promises: the gated bytes, every allowed batch size run, declared output shapes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.manifest import Manifest, ManifestError, read_manifest
from service.backends.base import Backend, LoadRequest, Outputs, PipelinedBackend
from service.backends.registry import load_backend
from service.backends.requests import for_plan, load_request
from service.errors import BackendError
from service.scheduling.batching import BatchLimits
from service.scheduling.latency_model import LatencyModel
from service.settings import Settings
from service.workers.device_facts import memory_meter
from service.workers.instances import Instance
from service.workers.jpegs import WorkerJpegs
from service.workers.messages import Load
from service.workers.tensor_slots import layout_of

_WARM_UP_RUNS = 3  # the first one allocates, the median of three is the first estimate


def load_instance(
    message: Load,
    settings: Settings,
    exclusive: Callable[[], AbstractContextManager[bool]],
    on_warming: Callable[[], None],
    jpegs: WorkerJpegs,
) -> tuple[Instance, str, int]:
    """A warmed instance, its execution provider, and the memory that it took on its device, in bytes.

    Raises BackendError or RepositoryError with the reason; DeviceLost when the process must end.
    """
    try:
        manifest, found = read_manifest(Path(message.version_dir))
    except ManifestError as error:
        raise BackendError(str(error)) from error
    if found != message.manifest_sha256:
        raise BackendError("the manifest changed after it was verified; publish a new version instead")
    used_bytes = memory_meter(settings)
    before_bytes = used_bytes()
    backend = load_backend(message.backend, _request_for(message, manifest, settings))
    on_warming()
    latency = LatencyModel()
    try:
        for size in message.allowed_batch_sizes:
            _warm_up(backend, manifest, size, latency, exclusive)
        decoder = jpegs.decoder_for(manifest.preprocess, exclusive)
    except BackendError:
        backend.close()
        raise
    limits = BatchLimits(message.allowed_batch_sizes, settings.max_queue_delay_ms / 1000)
    instance = Instance(backend, layout_of(manifest.input, manifest.answer), limits, latency, decoder)
    return instance, backend.provider, max(0, used_bytes() - before_bytes)


def _request_for(message: Load, manifest: Manifest, settings: Settings) -> LoadRequest:
    request = load_request(
        Path(message.version_dir),
        manifest,
        message.variant,
        device=settings.device,
        threads=settings.device_threads,
        allow_spinning=settings.allow_spinning,
        batch_sizes=message.allowed_batch_sizes,
    )
    if message.plan_dir:
        request = for_plan(request, Path(message.plan_dir), message.plan_sha256)
    return replace(
        request,
        cuda_graphs=settings.cuda_graphs,
        batches_in_flight=settings.batches_in_flight,
        execution_contexts=settings.execution_contexts,
    )


def _warm_up(
    backend: Backend,
    manifest: Manifest,
    batch_size: int,
    latency: LatencyModel,
    exclusive: Callable[[], AbstractContextManager[bool]],
) -> None:
    # Noise, because a constant image can take a shortcut that real ones do not.
    images = np.random.default_rng(batch_size).integers(0, 256, (batch_size, *manifest.input.shape), np.uint8)
    pipeline = backend if isinstance(backend, PipelinedBackend) else None
    # Each of a pipelined backend's buffers runs once, since each has CUDA graphs of its own.
    runs = max(_WARM_UP_RUNS, pipeline.batches_in_flight if pipeline else 0)
    for _ in range(runs):
        with exclusive():
            if pipeline is not None:
                pipeline.staging(batch_size)[...] = images
                outputs, run_s = pipeline.finish(pipeline.start())
            else:
                start_s = time.monotonic()
                outputs = backend.infer(images)
                run_s = time.monotonic() - start_s
            latency.observe(batch_size, run_s)
    _ensure_shapes(outputs, manifest, batch_size)


def _ensure_shapes(outputs: Outputs, manifest: Manifest, batch_size: int) -> None:
    for spec, output in zip(manifest.answer, outputs, strict=True):
        if output.shape != (batch_size, *spec.shape) or output.dtype != np.dtype(spec.dtype):
            raise BackendError(
                f"output {spec.name!r} is {output.dtype}{output.shape} at batch {batch_size}, "
                f"the manifest declares {spec.dtype}{(batch_size, *spec.shape)}"
            )
