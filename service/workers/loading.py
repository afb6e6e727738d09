"""Loads and warms one variant. Promises: the gated bytes, every allowed batch size run, declared output shapes."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from models.manifest import Manifest, ManifestError, read_manifest
from service.backends.base import Backend, LoadRequest, Outputs
from service.backends.registry import load_backend
from service.errors import BackendError
from service.scheduling.batching import BatchLimits
from service.scheduling.latency_model import LatencyModel
from service.settings import Settings
from service.workers.device_loop import Instance
from service.workers.messages import Load
from service.workers.tensor_slots import layout_of

_WARM_UP_RUNS = 3  # the first one allocates, the median of three is the first estimate


def load_instance(
    message: Load,
    settings: Settings,
    exclusive: Callable[[], AbstractContextManager[bool]],
    on_warming: Callable[[], None],
) -> tuple[Instance, str]:
    """A warmed instance and its execution provider. Raises BackendError or RepositoryError with the reason."""
    try:
        manifest, found = read_manifest(Path(message.version_dir))
    except ManifestError as error:
        raise BackendError(str(error)) from error
    if found != message.manifest_sha256:
        raise BackendError("the manifest changed after it was verified; publish a new version instead")
    backend = load_backend(message.backend, _request_for(message, manifest, settings))
    on_warming()
    latency = LatencyModel()
    try:
        for size in message.allowed_batch_sizes:
            _warm_up(backend, manifest, size, latency, exclusive)
    except BackendError:
        backend.close()
        raise
    limits = BatchLimits(message.allowed_batch_sizes, settings.max_queue_delay_ms / 1000)
    return Instance(backend, layout_of(manifest.input, manifest.answer), limits, latency), backend.provider


def _request_for(message: Load, manifest: Manifest, settings: Settings) -> LoadRequest:
    variant = manifest.variant(message.variant)
    if variant is None:
        raise BackendError(f"the manifest has no variant {message.variant!r}")
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    return LoadRequest(
        file=Path(message.version_dir) / variant.file,
        input=manifest.input,
        outputs=manifest.answer,
        device=settings.device,
        threads=settings.device_threads,
        allow_spinning=settings.allow_spinning,
        sha256=digests[variant.file],
        external_data=tuple((Path(message.version_dir) / name, digests[name]) for name in variant.external_data),
        merges_dequantized=variant.precision != "fp8",  # as its figures were measured, see export/serving.py
        allowed_batch_sizes=message.allowed_batch_sizes,
        plan_dir=Path(message.plan_dir) if message.plan_dir else None,
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
    for _ in range(_WARM_UP_RUNS):
        with exclusive():
            start_s = time.monotonic()
            outputs = backend.infer(images)
            latency.observe(batch_size, time.monotonic() - start_s)
    _ensure_shapes(outputs, manifest, batch_size)


def _ensure_shapes(outputs: Outputs, manifest: Manifest, batch_size: int) -> None:
    for spec, output in zip(manifest.answer, outputs, strict=True):
        if output.shape != (batch_size, *spec.shape) or output.dtype != np.dtype(spec.dtype):
            raise BackendError(
                f"output {spec.name!r} is {output.dtype}{output.shape} at batch {batch_size}, "
                f"the manifest declares {spec.dtype}{(batch_size, *spec.shape)}"
            )
