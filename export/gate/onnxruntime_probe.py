"""Measures variants of a published version in ONNX Runtime on this machine's GPU, where no TensorRT can use it.

What is kept as the plan is the form in which the CUDA provider ran the file fastest, so the figures are those of the
very form that later takes traffic.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import DeviceError, DeviceMissing
from saccade.export.gate.device_probe import OpenedOnGpu
from saccade.export.gate.device_seam import OpenedPlan
from saccade.export.plans.runtime import PresentGpu, present_gpu
from saccade.export.plans.version_plans import usable_plan
from saccade.export.qualification.benchmark import seconds_per_run
from saccade.models.contract.manifest import MeasuredDevice, Variant
from saccade.models.contract.plans import PlanKey, PlanRecord, plan_key
from saccade.service.backends.base import LoadRequest
from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.backends.onnxruntime_backend import version_for_gpus
from saccade.service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from saccade.service.backends.onnxruntime_forms import form_bytes
from saccade.service.backends.requests import for_plan, load_request, variant_named
from saccade.service.device_names import ONLY_GPU
from saccade.service.errors import BackendError
from saccade.service.repository.plans import PlanStore, StoredPlan
from saccade.service.repository.verify import VerifiedVersion

OpenBackend = Callable[[LoadRequest], OnnxRuntimeCudaBackend]


class OpenedFile(OpenedOnGpu[OnnxRuntimeCudaBackend]):
    """A variant's file, open in the fastest form that its plan names, or that was found now."""

    def layer_information(self) -> str:
        return ""  # the provider computes in the types of the file

    @property
    def form(self) -> bytes:
        return form_bytes(self._backend.form)


class OnnxRuntimeProbe:
    """The first GPU that this process sees, used through ONNX Runtime."""

    is_recorded = False

    def __init__(
        self, version: VerifiedVersion, store: PlanStore, gpu: PresentGpu, cuda: CudaDriver, open_backend: OpenBackend
    ) -> None:
        self._version = version
        self._store = store
        self._gpu = gpu
        self._cuda = cuda
        self._open_backend = open_backend
        self._runtime_version = version_for_gpus()
        self._made: dict[str, OpenedFile] = {}  # opened while their form was found
        self.layers: dict[str, bytes] = {}  # there is no inspector
        self.device = MeasuredDevice(kind="cuda", name=gpu.name, threads=1)
        self.runtime = f"onnxruntime {self._runtime_version}"

    def key_of(self, variant: str) -> PlanKey:
        """Returns what a variant's plan must be made from to serve here. Raises BackendError for an unknown variant."""
        found = variant_named(self._version.manifest, variant)
        return plan_key(self._version.manifest, found, "onnxruntime", self._runtime_version, (self._gpu.capability,))

    def ensure(self, variant: str, *, anew: bool = False) -> StoredPlan:
        """Returns a variant's plan, and finds the fastest form where the store has none.

        Raises DeviceError or RepositoryError.
        """
        manifest, key = self._version.manifest, self.key_of(variant)
        stored = None if anew else usable_plan(self._store, manifest, variant, key)
        if stored is not None:
            return stored
        start_s = time.monotonic()
        opened = self._made[variant] = self._opened(variant_named(manifest, variant), None)
        record = PlanRecord(
            model=manifest.model,
            version=manifest.version,
            variant=variant,
            key=key,
            plan_sha256=hashlib.sha256(opened.form).hexdigest(),
            plan_bytes=len(opened.form),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            build_seconds=round(time.monotonic() - start_s, 3),
            layers=0,
            dtypes={},
        )
        return self._store.put(record, opened.form, replace=True)

    def open(self, file: Path, outputs: Sequence[str], largest_batch: int, *, is_sparse: bool) -> OpenedPlan:
        """Opens the variant that a file is named after. Raises DeviceError where the GPU does not take it."""
        stored = self.ensure(file.stem)
        opened = self._made.pop(file.stem, None)
        return opened or self._opened(variant_named(self._version.manifest, file.stem), stored)

    def seconds(
        self, plans: Sequence[OpenedPlan], images: NDArray[np.uint8], repeats: int, budget_s: float
    ) -> NDArray[np.float64]:
        return seconds_per_run([partial(plan.infer, images) for plan in plans], repeats, budget_s)

    def _opened(self, variant: Variant, stored: StoredPlan | None) -> OpenedFile:
        manifest = self._version.manifest
        request = load_request(self._version.path, manifest, variant.name, device=ONLY_GPU, threads=1)
        if stored is not None:
            request = for_plan(request, stored.directory, None)
        try:
            return OpenedFile(manifest, self._cuda, manifest.bytes_of(variant), partial(self._open_backend, request))
        except BackendError as error:
            raise DeviceError(f"{self.runtime} does not run {variant.file} on {self._gpu.name}: {error}") from error


def gpu_probe(version: VerifiedVersion, store: PlanStore) -> OnnxRuntimeProbe:
    """Opens the GPU of this machine. Raises DeviceMissing."""
    gpu = present_gpu()
    if gpu is None or not version_for_gpus():
        what = "CUDA finds no GPU" if gpu is None else "the installed ONNX Runtime has no provider for GPUs"
        raise DeviceMissing(f"nothing can be measured in ONNX Runtime on a GPU of this machine: {what}")
    from saccade.service.backends.cuda.runtime_driver import RuntimeDriver  # needs cuda-python

    return OnnxRuntimeProbe(version, store, gpu, RuntimeDriver(), OnnxRuntimeCudaBackend)
