"""What tests on a GPU stand on. Promises: each is skipped by the name of what is missing; plans are built right here.

A test marked `needs(…)` names components of `tests/support/gpu_machine.py`; all need the GPU. The networks are the
toy of the benchmark in every variant, made by the exporter's functions, and plans are built by whichever TensorRT is
installed, by the product's own builder.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from saccade.models.contract.manifest import Manifest, read_manifest
from saccade.service.backends.base import Backend, LoadRequest, UInt8Array
from saccade.service.backends.registry import load_backend
from saccade.service.repository.plans import PlanStore, StoredPlan, engines_root
from tests.load.gpu_networks import NETWORKS, generated_images
from tests.load.gpu_plans import built_plan
from tests.load.gpu_prepare import VARIANTS, prepare
from tests.load.gpu_publish import published
from tests.support.gpu_machine import EXPORTER, GPU, TENSORRTS, GpuMachine, gpu_machine

NETWORK = NETWORKS["tiny-32"]


@pytest.fixture(scope="session")
def machine() -> GpuMachine:
    return gpu_machine()


@pytest.fixture(autouse=True)
def _is_here(request: pytest.FixtureRequest, machine: GpuMachine) -> None:
    named = [name for marker in request.node.iter_markers("needs") for name in marker.args]
    missing = machine.missing(dict.fromkeys((GPU, *named)))
    if missing:
        pytest.skip(missing)


@dataclass(frozen=True)
class Toy:
    """The published toy network."""

    repository: Path
    directory: Path
    manifest: Manifest

    @property
    def store(self) -> PlanStore:
        return PlanStore(engines_root(self.repository))

    def request(self, variant: str, device: str = "cuda:0") -> LoadRequest:
        """How a server asks for a variant; plans are added by `with_plan`."""
        found = self.manifest.variant(variant)
        assert found is not None
        digests = {entry.path: entry.sha256 for entry in self.manifest.files}
        return LoadRequest(
            file=self.directory / found.file,
            input=self.manifest.input,
            outputs=self.manifest.answer,
            device=device,
            threads=1,
            allow_spinning=False,
            sha256=digests[found.file],
            precision=found.precision,
            merges_dequantized=found.precision != "fp8",
            allowed_batch_sizes=self.manifest.allowed_batch_sizes,
        )


@pytest.fixture(scope="session")
def toy(machine: GpuMachine, tmp_path_factory: pytest.TempPathFactory) -> Toy:
    missing = machine.missing((GPU, EXPORTER))  # session fixtures come before `_is_here`
    if missing:
        pytest.skip(missing)
    root = tmp_path_factory.mktemp("toy")
    prepare(NETWORK, VARIANTS, root / "onnx", lambda text: None)
    directory = published(NETWORK, root / "onnx", root / "repository")
    return Toy(root / "repository", directory, read_manifest(directory)[0])


@pytest.fixture(scope="session", params=TENSORRTS)
def tensorrt(request: pytest.FixtureRequest, machine: GpuMachine) -> str:
    """Module name of an installed TensorRT that builds for the GPU present."""
    name: str = request.param
    missing = machine.missing((GPU, EXPORTER, name))
    if missing:
        pytest.skip(missing)
    return ensured_to_build(name, machine)


def ensured_to_build(name: str, machine: GpuMachine) -> str:
    """Skips where this TensorRT is for other GPUs only, in its own words."""
    from saccade.export.errors import ExportError
    from saccade.export.plans.runtime import present_gpu, required_tensorrt, target_capabilities

    try:
        target_capabilities(required_tensorrt(name), (machine.capability,), present_gpu())
    except ExportError as error:
        pytest.skip(f"{name} builds no plan for this GPU: {error}")
    return name


@dataclass(frozen=True)
class Plans:
    """Plans of the toy by one TensorRT."""

    toy: Toy
    module: str
    capability: str

    def stored(self, variant: str) -> StoredPlan:
        return built_plan(self.toy.directory, variant, self.module, self.capability, self.toy.store)

    def request(self, variant: str) -> LoadRequest:
        return replace(self.toy.request(variant), plan_dir=self.stored(variant).directory)

    def load(self, variant: str, **changes: object) -> Backend:
        return load_backend("tensorrt", replace(self.request(variant), **changes))  # type: ignore[arg-type]  # any field


@pytest.fixture(scope="session")
def plans(toy: Toy, tensorrt: str, machine: GpuMachine) -> Plans:
    return Plans(toy, tensorrt, machine.capability)


@pytest.fixture
def fp16(plans: Plans) -> Iterator[Backend]:
    backend = plans.load("fp16")
    yield backend
    backend.close()


def toy_images(count: int, seed: int = 100) -> UInt8Array:
    return generated_images(count, NETWORK.preprocess.height, NETWORK.preprocess.width, seed)


def copied(outputs: object) -> list[np.ndarray]:
    return [np.array(output) for output in outputs]  # type: ignore[attr-defined]  # Outputs
