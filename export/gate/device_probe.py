"""Builds and runs plans of a published version on this machine's GPU, with the serving backend and the plan store.

The measured figures are therefore those of the very plan that later takes traffic, opened by the code that serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from saccade.export.errors import DeviceError, DeviceMissing
from saccade.export.gate.device_seam import OpenedPlan
from saccade.export.plans.progress import BuildProgress
from saccade.export.plans.runtime import PresentGpu, find_tensorrt, present_gpu
from saccade.export.plans.version_plans import ensure_plan, key_for
from saccade.export.qualification.accuracy import Answer
from saccade.export.qualification.benchmark import seconds_per_run
from saccade.models.contract.manifest import Manifest, MeasuredDevice
from saccade.models.contract.plans import PlanKey
from saccade.service.backends.base import Backend
from saccade.service.backends.cuda.driver import CudaDriver
from saccade.service.backends.cuda.runtime_driver import RuntimeDriver
from saccade.service.backends.requests import for_plan, load_request, variant_named
from saccade.service.backends.tensorrt.module import TensorRt
from saccade.service.backends.tensorrt_backend import TensorRtBackend
from saccade.service.device_names import ONLY_GPU
from saccade.service.errors import BackendError
from saccade.service.repository.plans import PlanStore, StoredPlan
from saccade.service.repository.verify import VerifiedVersion

BackendT = TypeVar("BackendT", bound=Backend)
_DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def missing_for_plans(driver: Path = _DRIVER_VERSION) -> tuple[str, ...]:
    """Returns what this machine lacks to build, open and time plans; empty when it lacks nothing."""
    missing: list[str] = []
    if find_tensorrt() is None:
        missing.append("no TensorRT runtime: install `tensorrt`, or the extra `rtx`")
    if present_gpu() is None:
        if driver.exists():
            words = driver.read_text().splitlines()[0]
            missing.append(f"CUDA finds no GPU: the driver is {words!r}")
        else:
            missing.append(f"no NVIDIA driver: {driver} does not exist")
    return tuple(missing)


class TensorRtProbe:
    """The first GPU that this process sees, used through the installed TensorRT."""

    is_recorded = False

    def __init__(self, version: VerifiedVersion, store: PlanStore, progress: BuildProgress | None = None) -> None:
        """Opens the GPU and its runtimes. Raises DeviceMissing naming everything that is not there."""
        missing = missing_for_plans()
        tensorrt, gpu = find_tensorrt(), present_gpu()
        if missing or tensorrt is None or gpu is None:
            raise DeviceMissing(f"plans cannot be built and measured on this machine: {'; '.join(missing)}")
        self._tensorrt: ModuleType = tensorrt
        self._gpu: PresentGpu = gpu
        self._version = version
        self._store = store
        self._progress = progress
        self.layers: dict[str, bytes] = {}  # layer information of the plans opened so far, by variant
        self.device = MeasuredDevice(kind="cuda", name=gpu.name, threads=1)
        self.runtime = f"{tensorrt.__name__} {tensorrt.__version__}"

    def key_of(self, variant: str) -> PlanKey:
        """Returns what a variant's plan must be made from to serve here. Raises BackendError for an unknown variant."""
        return key_for(
            self._version.manifest, variant_named(self._version.manifest, variant), self._tensorrt, self._here
        )

    def ensure(self, variant: str, *, anew: bool = False) -> StoredPlan:
        """Returns a variant's plan and builds it when the store has none. Raises DeviceError or RepositoryError."""
        found = variant_named(self._version.manifest, variant)
        made = ensure_plan(
            self._version, found, self._tensorrt, self._here, self._store, force=anew, progress=self._progress
        )
        return made.stored

    def open(self, file: Path, outputs: Sequence[str], largest_batch: int, *, is_sparse: bool) -> OpenedPlan:
        """Opens the plan of the variant that a file is named after.

        Raises DeviceError when it cannot be built or opened.
        """
        stored = self.ensure(file.stem)
        try:
            opened = OpenedStoredPlan(self._version, stored, RuntimeDriver())
            self.layers[file.stem] = opened.layer_information().encode()
            return opened
        except BackendError as error:
            raise DeviceError(f"{self.runtime} does not open the plan of {file.name}: {error}") from error

    def seconds(
        self, plans: Sequence[OpenedPlan], images: NDArray[np.uint8], repeats: int, budget_s: float
    ) -> NDArray[np.float64]:
        return seconds_per_run([partial(plan.infer, images) for plan in plans], repeats, budget_s)

    @property
    def _here(self) -> str:
        return self._gpu.capability


class OpenedOnGpu(Generic[BackendT]):
    """A plan, opened in the backend that serves."""

    def __init__(self, manifest: Manifest, cuda: CudaDriver, plan_bytes: int, opening: Callable[[], BackendT]) -> None:
        """Opens the plan and runs every allowed size once. Raises BackendError with what to change."""
        cuda.set_device(0)
        free_before = cuda.memory().free_bytes
        self._backend = opening()
        self._sizes = manifest.allowed_batch_sizes
        for size in self._sizes:  # the first run loads kernels and captures CUDA graphs
            self._backend.infer(np.zeros((size, *manifest.input.shape), np.uint8))
        self.memory_bytes = max(0, free_before - cuda.memory().free_bytes)
        self.plan_bytes = plan_bytes

    def infer(self, images: NDArray[np.uint8]) -> Answer:
        """Answers any number of images, in the largest allowed batches that they fill. Raises DeviceError."""
        try:
            parts = [self._backend.infer(images[start:stop]) for start, stop in batch_bounds(len(images), self._sizes)]
        except BackendError as error:
            raise DeviceError(f"the plan failed on a batch of {len(images)}: {error}") from error
        return parts[0] if len(parts) == 1 else [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def close(self) -> None:
        self._backend.close()


class OpenedStoredPlan(OpenedOnGpu[TensorRtBackend]):
    """A stored plan of TensorRT."""

    def __init__(
        self, version: VerifiedVersion, stored: StoredPlan, cuda: CudaDriver, tensorrt: TensorRt | None = None
    ) -> None:
        request = load_request(version.path, version.manifest, stored.record.variant, device=ONLY_GPU, threads=1)
        for_this = for_plan(request, stored.directory, None)
        opening = partial(TensorRtBackend, for_this, tensorrt=tensorrt, cuda=cuda)
        super().__init__(version.manifest, cuda, stored.record.plan_bytes, opening)

    def layer_information(self) -> str:
        return self._backend.layer_information()


def batch_bounds(count: int, allowed_sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Splits a count into consecutive (start, stop) of allowed sizes, as the server forms batches; 1 is allowed."""
    bounds: list[tuple[int, int]] = []
    start = 0
    while start < count:
        size = max(size for size in allowed_sizes if size <= count - start)
        bounds.append((start, start + size))
        start += size
    return bounds


def told_progress(say: Callable[[float], None]) -> BuildProgress:
    """Passes a build's progress on without the names of its stages; it never cancels the build."""

    def progress(stage: str, done_share: float) -> bool:
        say(done_share)
        return True

    return progress
