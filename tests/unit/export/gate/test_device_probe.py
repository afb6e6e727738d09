"""A stored plan in the serving backend, on a simulated device: any number of images, measured memory, layers kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.export.errors import DeviceError
from saccade.export.gate.device_probe import OpenedStoredPlan, batch_bounds
from saccade.models.contract.plans import plan_key
from saccade.service.backends.base import LoadRequest
from saccade.service.repository.plans import PlanStore, StoredPlan
from saccade.service.repository.verify import verify_version
from tests.support.graphs import classifier_graph
from tests.support.plan_records import record
from tests.support.simulated_cuda import SimulatedCuda
from tests.support.simulated_plans import design_of
from tests.support.simulated_tensorrt import SimulatedTensorRt
from tests.support.versions import manifest_for, publish


class SimulatedVersion:
    """A published version with a plan for the simulated device."""

    def __init__(self, root: Path) -> None:
        content = classifier_graph()
        path = publish(root / "repository", manifest_for("digits", 1, content=content), content)
        self.version = verify_version(path)
        self.manifest = self.version.manifest
        self.cuda = SimulatedCuda(eagerness=0.3)
        self.tensorrt = SimulatedTensorRt(self.cuda)
        self.stored = self._put(PlanStore(root / "engines"))

    def _put(self, store: PlanStore) -> StoredPlan:
        manifest, variant = self.manifest, self.manifest.variants[0]
        request = LoadRequest(self.version.path / variant.file, manifest.input, manifest.answer, "cpu", 1, False)
        plan = self.tensorrt.plan_of(design_of(request))
        key = plan_key(manifest, variant, "tensorrt", self.tensorrt.__version__, ("SM90",))
        made = record(plan, model=manifest.model, version=manifest.version, variant=variant.name, key=key)
        return store.put(made, plan)

    def open(self) -> OpenedStoredPlan:
        return OpenedStoredPlan(self.version, self.stored, self.cuda, self.tensorrt)


@pytest.fixture
def version(tmp_path: Path) -> SimulatedVersion:
    return SimulatedVersion(tmp_path)


def test_images_go_in_the_batches_that_a_server_would_form() -> None:
    assert batch_bounds(7, (1, 2, 4)) == [(0, 4), (4, 6), (6, 7)]
    assert batch_bounds(9, (1, 2, 4)) == [(0, 4), (4, 8), (8, 9)]
    assert batch_bounds(0, (1, 2)) == []


def test_any_number_of_images_is_answered_in_order(version: SimulatedVersion) -> None:
    opened = version.open()
    images = np.random.default_rng(1).integers(0, 256, (7, *version.manifest.input.shape), np.uint8)

    answers = opened.infer(images)
    alone = [opened.infer(image[None]) for image in images]
    opened.close()

    for index, answer in enumerate(answers):
        assert np.allclose(answer, np.concatenate([each[index] for each in alone]), atol=1e-6)
    version.cuda.assert_clean()


def test_memory_is_what_the_device_has_less(version: SimulatedVersion) -> None:
    opened = version.open()

    assert opened.memory_bytes == version.cuda.used_bytes > 0
    assert opened.plan_bytes == version.stored.record.plan_bytes
    opened.close()


def test_failing_batch_is_a_named_error(version: SimulatedVersion) -> None:
    opened = version.open()
    version.cuda.fail_once("record")

    with pytest.raises(DeviceError, match="failed on a batch of 1"):
        opened.infer(np.zeros((1, *version.manifest.input.shape), np.uint8))
    opened.close()
