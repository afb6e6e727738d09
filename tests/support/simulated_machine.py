"""The machine that simulated children see: one GPU, one TensorRT, and plans that say which file they run."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from saccade.models.contract.manifest import Manifest
from saccade.service.backends.base import LoadRequest
from saccade.service.ipc.messages import DeviceFacts
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_plans import design_of
from tests.support.simulated_tensorrt import Design, SimulatedTensorRt

CAPABILITY, VERSION = "SM90", "10.16.1"
FACTS = DeviceFacts("Simulated GPU", CAPABILITY, "tensorrt", VERSION, "13.0", 8 << 30, 8 << 30)
BARE_FACTS = DeviceFacts(
    "Simulated GPU",
    CAPABILITY,
    memory_total_bytes=8 << 30,
    memory_free_bytes=8 << 30,
    onnxruntime_version=version("onnxruntime"),
)
_MAGIC = b"simulated plan of "


def plan_bytes(version_dir: Path, file: str) -> bytes:
    """A plan that opens in another process, too."""
    return _MAGIC + str(version_dir / file).encode()


class PlansOnDisk(dict[bytes, Design]):
    """Designs made from what their plans say."""

    def __init__(self, manifest: Manifest) -> None:
        super().__init__()
        self._manifest = manifest

    def get(self, plan: bytes, default: Design | None = None) -> Design | None:  # type: ignore[override]
        if not plan.startswith(_MAGIC):
            return default
        file = Path(plan.removeprefix(_MAGIC).decode())
        return design_of(LoadRequest(file, self._manifest.input, self._manifest.answer, "cpu", 1, False))


def simulated_tensorrt(cuda: SimulatedCuda, manifest: Manifest) -> SimulatedTensorRt:
    module = SimulatedTensorRt(cuda, version=VERSION)
    module.designs = PlansOnDisk(manifest)
    return module
