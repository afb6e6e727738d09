"""Loads and warms one variant: it opens only the verified bytes, runs every allowed batch size, and checks the outputs.

Recorded pictures are run too, and the answers compared with the recorded ones.

Every size runs at least twice, by the same calls as for requests: in all buffers of a pipelined backend at once, and,
where the device decodes JPEGs, with decoded rows. So the first request does not wait for anything to be set up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np

from saccade.models.contract.extras import ExtraOutput, mask_of
from saccade.models.contract.manifest import Manifest, ManifestError, read_manifest
from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.base import (
    AskableBackend,
    Backend,
    CompilingBackend,
    LoadRequest,
    Outputs,
    PipelinedBackend,
    UInt8Array,
)
from saccade.service.backends.registry import load_backend
from saccade.service.backends.requests import for_plan, load_request, variant_named
from saccade.service.errors import BackendError, RepositoryError
from saccade.service.ipc.messages import Load
from saccade.service.ipc.tensor_slots import layout_of
from saccade.service.repository.plan_seal import Seal, engines_secret
from saccade.service.settings import Settings
from saccade.service.worker.batch_filling import JpegRowDecoder
from saccade.service.worker.device_facts import memory_meter
from saccade.service.worker.instances import LoadedInstance
from saccade.service.worker.jpegs import WorkerJpegs
from saccade.service.worker.replay import replay
from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.latency_model import LatencyModel

_WARM_UP_RUNS = 3  # the first run allocates memory; the median of the three is the first estimate of the run time


def load_instance(
    message: Load,
    settings: Settings,
    exclusive: Callable[[], AbstractContextManager[bool]],
    on_warming: Callable[[], None],
    jpegs: WorkerJpegs,
) -> tuple[LoadedInstance, str, int]:
    """Returns a warmed instance, its execution provider, and the memory that it took on its device, in bytes.

    Raises BackendError or RepositoryError with the reason, and DeviceLost when the process must end.
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
    extras = manifest.given_by(variant_named(manifest, message.variant))
    latency = LatencyModel()
    try:
        for size in message.allowed_batch_sizes:
            _warm_up(backend, manifest, size, latency, exclusive)
            _warm_up_extras(backend, manifest.input, extras, size, exclusive)
        replay(lambda images: _alone(backend, images, exclusive), Path(message.version_dir), manifest, message.variant)
        decoder = jpegs.decoder_for(manifest.preprocess, exclusive)
        if decoder is not None:
            _warm_up_jpegs(backend, manifest, message.allowed_batch_sizes, decoder, exclusive)
    except (BackendError, RepositoryError):
        backend.close()
        raise
    if isinstance(backend, CompilingBackend):
        backend.keep_compiled()
    limits = BatchLimits(message.allowed_batch_sizes, settings.max_queue_delay_ms / 1000)
    layout = layout_of(manifest.input, manifest.answer, manifest.extras)
    instance = LoadedInstance(backend, layout, limits, latency, decoder, extras)
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
        key_file = settings.engines_key_file
        seal = Seal(None if key_file is None else engines_secret(key_file))
        request = replace(for_plan(request, Path(message.plan_dir), message.plan_sha256), kernel_seal=seal)
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
    # The images are noise, because a network may process constant images faster than real ones.
    images = np.random.default_rng(batch_size).integers(0, 256, (batch_size, *manifest.input.shape), np.uint8)
    if isinstance(backend, PipelinedBackend):
        with exclusive():
            _fill_pipeline(backend, images)
    for _ in range(_WARM_UP_RUNS):
        with exclusive():
            outputs, run_s = _run(backend, images)
            latency.observe(batch_size, run_s)
    _ensure_shapes(outputs, manifest.answer, batch_size)


def _warm_up_extras(
    backend: Backend,
    images: TensorSpec,
    extras: tuple[ExtraOutput, ...],
    batch_size: int,
    exclusive: Callable[[], AbstractContextManager[bool]],
) -> None:
    """Asks for everything at once, so that the first request that does so waits for nothing to be set up."""
    if extras and isinstance(backend, AskableBackend):
        with exclusive():
            outputs = backend.infer_asked(np.zeros((batch_size, *images.shape), np.uint8), mask_of(extras))
        _ensure_shapes(outputs[-len(extras) :], [extra.output for extra in extras], batch_size)


def _fill_pipeline(pipeline: PipelinedBackend, images: UInt8Array) -> None:
    """Runs a batch in each buffer at once: single runs would all use the first buffer, and graphs are per buffer."""
    started = []
    for _ in range(pipeline.batches_in_flight):
        pipeline.staging(len(images))[...] = images
        started.append(pipeline.start())
    for number in started:
        pipeline.finish(number)


def _run(backend: Backend, images: UInt8Array) -> tuple[Outputs, float]:
    """Runs one batch; returns its outputs and its seconds."""
    if isinstance(backend, PipelinedBackend):
        backend.staging(len(images))[...] = images
        return backend.finish(backend.start())
    start_s = time.monotonic()
    outputs = backend.infer(images)
    return outputs, time.monotonic() - start_s


def _alone(backend: Backend, images: UInt8Array, exclusive: Callable[[], AbstractContextManager[bool]]) -> Outputs:
    """Runs one batch while the device is held."""
    with exclusive():
        return _run(backend, images)[0]


def _warm_up_jpegs(
    backend: Backend,
    manifest: Manifest,
    batch_sizes: Sequence[int],
    decoder: JpegRowDecoder,
    exclusive: Callable[[], AbstractContextManager[bool]],
) -> None:
    """Runs batches whose rows the device decodes, each size twice, because the first run allocates memory."""
    from saccade.service.worker.gpu_jpeg.self_check import photograph  # only workers that decode need it

    jpeg = photograph()
    for size in batch_sizes:
        for _ in range(2):
            with exclusive():
                if isinstance(backend, PipelinedBackend):
                    decoder.decode([jpeg] * size, list(backend.staging(size)))
                    backend.finish(backend.start())
                else:
                    rows = np.zeros((size, *manifest.input.shape), np.uint8)
                    decoder.decode([jpeg] * size, list(rows))
                    backend.infer(rows)


def _ensure_shapes(outputs: Outputs, specs: Sequence[TensorSpec], batch_size: int) -> None:
    for spec, output in zip(specs, outputs, strict=True):
        if output.shape != (batch_size, *spec.shape) or output.dtype != np.dtype(spec.dtype):
            raise BackendError(
                f"output {spec.name!r} is {output.dtype}{output.shape} at batch {batch_size}, "
                f"the manifest declares {spec.dtype}{(batch_size, *spec.shape)}"
            )
