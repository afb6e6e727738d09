"""The plan builder on the simulated device. SIMULATED_BUILD says what it does: accept, deny, crash or hang."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import orjson
from numpy.typing import NDArray

from saccade.export.gate import onnxruntime_probe
from saccade.export.gate.device_probe import OpenedStoredPlan
from saccade.export.gate.device_seam import OpenedPlan
from saccade.export.gate.onnxruntime_probe import OnnxRuntimeProbe
from saccade.export.plans.engine_build import Say, StoredPlanProbe, run
from saccade.export.plans.runtime import PresentGpu
from saccade.export.precision.effective_precision import layer_precisions
from saccade.models.contract.manifest import MeasuredDevice
from saccade.models.contract.plans import PlanKey, plan_key
from saccade.service.backends.onnxruntime_cuda import OnnxRuntimeCudaBackend
from saccade.service.repository.plans import PlanStore, StoredPlan
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.supervisor.engines.build_wire import BuildProgress, BuildStage
from tests.support.plan_records import record
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_machine import BARE_FACTS, CAPABILITY, FACTS, VERSION, plan_bytes, simulated_tensorrt
from tests.support.simulated_onnxruntime import ON_CPU

_FORMATS = {"fp32": "Row major linear FP32", "fp16": "Row major linear FP16 format", "int8": "Row major Int8 format"}
_SECONDS = {"int8-trt": 0.010, "int8-trt-sparse24": 0.008}


class SimulatedPlan(OpenedStoredPlan):
    """Layers as the file says, unless the build is to be denied."""

    def __init__(self, version: VerifiedVersion, stored: StoredPlan, is_honest: bool) -> None:
        cuda = SimulatedCuda()
        super().__init__(version, stored, cuda, simulated_tensorrt(cuda, version.manifest))
        self.variant = stored.record.variant
        self._file = version.path / f"{self.variant}.onnx"
        self._is_honest = is_honest

    def layer_information(self) -> str:
        layers = [
            {
                "Name": layer.node,
                "LayerType": "CaskConvolution",
                "Inputs": [{"Format/Datatype": _FORMATS[layer.precision if self._is_honest else "fp32"]}],
                "TacticName": "sm80_xmma_fprop_sparse_conv_x",
                "Metadata": f"[ONNX Layer: {layer.node}]",
            }
            for layer in layer_precisions(onnx.load(self._file))
        ]
        return orjson.dumps({"Layers": layers}).decode()


class BareProbe(OnnxRuntimeProbe):
    """ONNX Runtime on the processor, in the simulated device's memory; fp16 is said to be twice as fast as fp32."""

    def __init__(self, version: VerifiedVersion, store: PlanStore) -> None:
        cuda = SimulatedCuda(one_thread_at_a_time=False)
        gpu = PresentGpu(FACTS.name, CAPABILITY)
        super().__init__(version, store, gpu, cuda, partial(OnnxRuntimeCudaBackend, cuda=cuda, placement=ON_CPU))
        self._names: dict[int, str] = {}

    def open(self, file: Path, outputs: Sequence[str], largest_batch: int, *, is_sparse: bool) -> OpenedPlan:
        opened = super().open(file, outputs, largest_batch, is_sparse=is_sparse)
        self._names[id(opened)] = file.stem
        return opened

    def seconds(
        self, plans: Sequence[OpenedPlan], images: NDArray[np.uint8], repeats: int, budget_s: float
    ) -> NDArray[np.float64]:
        return np.tile([{"fp32": 0.010, "fp16": 0.005}[self._names[id(plan)]] for plan in plans], (repeats, 1))


def simulated_probe(key: PlanKey, version: VerifiedVersion, store: PlanStore, say: Say) -> StoredPlanProbe:
    if key.runtime == "onnxruntime":
        return BareProbe(version, store)
    return SimulatedProbe(version, store, say)


class SimulatedProbe:
    """A StoredPlanProbe."""

    is_recorded = False  # the test is about what a real device's figures lead to
    device = MeasuredDevice(kind="cuda", name=FACTS.name, threads=1)
    runtime = f"tensorrt {VERSION}"

    def __init__(self, version: VerifiedVersion, store: PlanStore, say: Say) -> None:
        self.layers: dict[str, bytes] = {}
        self._version, self._store, self._say = version, store, say

    def key_of(self, variant: str) -> PlanKey:
        found = self._version.manifest.variant(variant)
        assert found is not None
        return plan_key(self._version.manifest, found, "tensorrt", VERSION, (CAPABILITY,))

    def ensure(self, variant: str, *, anew: bool = False) -> StoredPlan:
        manifest, key = self._version.manifest, self.key_of(variant)
        found = self._store.find(manifest.model, manifest.version, variant, key)
        if found is not None and not anew:
            return found
        for share in (0.0, 0.5, 1.0):
            self._say(BuildProgress(BuildStage.BUILDING, share))
        if os.environ.get("SIMULATED_BUILD") == "hang":
            threading.Event().wait()
        if os.environ.get("SIMULATED_BUILD") == "crash":
            print("the simulated builder dies", file=sys.stderr, flush=True)
            os._exit(9)
        plan = plan_bytes(self._version.path, f"{variant}.onnx")
        made = record(
            plan, model=manifest.model, version=manifest.version, variant=variant, key=key, dtypes={"int8": 3}
        )
        return self._store.put(made, plan, replace=anew)

    def open(self, file: Path, outputs: Sequence[str], largest_batch: int, *, is_sparse: bool) -> OpenedPlan:
        opened = SimulatedPlan(self._version, self.ensure(file.stem), os.environ.get("SIMULATED_BUILD") != "deny")
        self.layers[file.stem] = opened.layer_information().encode()
        return opened

    def seconds(
        self, plans: Sequence[OpenedPlan], images: NDArray[np.uint8], repeats: int, budget_s: float
    ) -> NDArray[np.float64]:
        return np.tile([_SECONDS[plan.variant] for plan in plans], (repeats, 1))  # type: ignore[attr-defined]


if __name__ == "__main__":
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    onnxruntime_probe.version_for_gpus = lambda: BARE_FACTS.onnxruntime_version
    sys.exit(run(sys.stdin.buffer, lines, simulated_probe))
