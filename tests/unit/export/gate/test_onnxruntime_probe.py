"""Variants in ONNX Runtime on a simulated GPU: the fastest form is found once, kept as a plan, and opened later."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from saccade.export.errors import DeviceError
from saccade.export.gate.onnxruntime_probe import OnnxRuntimeProbe
from saccade.export.plans.runtime import PresentGpu
from saccade.service.backends.onnxruntime_session import BoundSession
from saccade.service.backends.requests import for_plan, load_request
from saccade.service.errors import PlanRefused
from saccade.service.repository.plans import PlanStore, StoredPlan
from saccade.service.repository.verify import verify_version
from tests.support.graphs import classifier_graph
from tests.support.simulated_onnxruntime import SimulatedRuntime, on_device, simulated
from tests.support.versions import manifest_for, publish

GPU = PresentGpu("Simulated GPU", "SM90")


class Machine:
    """A published fp16 version, a store of plans, and ONNX Runtime on the simulated device."""

    def __init__(self, root: Path, runtime: SimulatedRuntime) -> None:
        content = classifier_graph()
        manifest = manifest_for("digits", 1, content=content)
        half = manifest.variants[0].model_copy(update={"precision": "fp16", "target": "gpu"})
        path = publish(root / "repository", manifest.model_copy(update={"variants": (half,)}), content)
        self.version = verify_version(path)
        self.name = half.name
        self.runtime = runtime
        self.store = PlanStore(root / "engines")

    def probe(self) -> OnnxRuntimeProbe:
        cuda = self.runtime.cuda
        return OnnxRuntimeProbe(self.version, self.store, GPU, cuda, lambda request: on_device(request, self.runtime))

    def load(self, stored: StoredPlan) -> str:
        """Opens the variant as a worker does; returns its form."""
        request = load_request(self.version.path, self.version.manifest, self.name, device="cuda:0", threads=1)
        planned = for_plan(request, stored.directory, stored.record.plan_sha256)
        backend = on_device(planned, self.runtime)
        backend.close()
        return backend.form.name


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "")  # given back afterwards
    monkeypatch.setattr("saccade.export.gate.onnxruntime_probe.version_for_gpus", lambda: onnxruntime.__version__)
    runtime = SimulatedRuntime(simulated(eagerness=0.3))
    runtime.install(monkeypatch)
    speeds = iter([100.0, 300.0])  # of the plain form and of the fused one; a third trial would fail
    monkeypatch.setattr(BoundSession, "images_per_s", lambda self, lane, size: next(speeds))
    return Machine(tmp_path, runtime)


def test_form_is_found_once_and_kept(machine: Machine) -> None:
    probe = machine.probe()
    opened = probe.open(machine.version.path / f"{machine.name}.onnx", ("scores",), 8, is_sparse=False)
    images = np.random.default_rng(1).integers(0, 256, (7, *machine.version.manifest.input.shape), np.uint8)

    answers = opened.infer(images)
    alone = [opened.infer(image[None]) for image in images]
    opened.close()

    assert np.allclose(answers[0], np.concatenate([each[0] for each in alone]), atol=1e-6)
    assert opened.layer_information() == ""
    assert opened.plan_bytes == len(classifier_graph())
    stored = probe.ensure(machine.name)
    assert (stored.record.key.runtime, stored.record.key.capabilities) == ("onnxruntime", ("SM90",))
    assert machine.store.read_plan(stored) == b"nhwc_fused"
    assert machine.load(stored) == "nhwc_fused"
    again = machine.probe().open(machine.version.path / f"{machine.name}.onnx", ("scores",), 8, is_sparse=False)
    again.close()
    machine.runtime.cuda.assert_clean()


def test_plan_of_another_version_of_onnx_runtime_is_refused(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.export.gate.onnxruntime_probe.version_for_gpus", lambda: "1.0.0")
    probe = machine.probe()
    probe.open(machine.version.path / f"{machine.name}.onnx", ("scores",), 8, is_sparse=False).close()

    with pytest.raises(PlanRefused, match=r"built by onnxruntime 1\.0\.0, this machine has"):
        machine.load(probe.ensure(machine.name))
    machine.runtime.cuda.assert_clean()


def test_plan_that_was_changed_is_refused(machine: Machine) -> None:
    probe = machine.probe()
    probe.open(machine.version.path / f"{machine.name}.onnx", ("scores",), 8, is_sparse=False).close()
    stored = probe.ensure(machine.name)
    (stored.directory / "plan").write_bytes(b"plain_____")

    with pytest.raises(PlanRefused, match="not the bytes that were built"):
        machine.load(stored)
    other = replace(stored, record=stored.record.model_copy(update={"plan_sha256": "b" * 64}))
    with pytest.raises(PlanRefused, match="its record says"):
        machine.store.read_plan(other)


def test_file_that_the_gpu_refuses_is_a_named_error(machine: Machine) -> None:
    machine.runtime.refused = {"enable_cuda_graph": "no graphs", "use_tf32": "the device refuses"}

    with pytest.raises(DeviceError, match=r"does not run .*\.onnx on Simulated GPU: .*the device refuses"):
        machine.probe().ensure(machine.name)
    machine.runtime.cuda.assert_clean()
