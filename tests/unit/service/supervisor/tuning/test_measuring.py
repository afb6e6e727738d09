"""Measuring forms with a real network: every form gets its figures, and unverified files are not opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from saccade.service.errors import RepositoryError
from saccade.service.supervisor.tuning import measuring
from saccade.service.supervisor.tuning.forms import ProcessForm, TuningTask
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from tests.support.graphs import classifier_graph
from tests.support.versions import publish_fake

FORMS = (ProcessForm(1, 2, False), ProcessForm(2, 1, False))


def task_for(version_dir: Path) -> TuningTask:
    return TuningTask(str(version_dir), "fp32", FORMS, 2, (), False)


@pytest.fixture
def version_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measuring, "_SECONDS", 0.05)
    monkeypatch.setattr(measuring, "_ROUNDS", 1)
    return publish_fake(tmp_path, "classifier", 1, Task.CLASSIFY, classifier_graph())


def test_every_form_is_measured_under_load_and_alone(version_dir: Path) -> None:
    measured = measuring.measure(task_for(version_dir))
    assert [each.form for each in measured] == list(FORMS)
    assert all(each.images_per_s > 0 and each.lone_ms > 0 for each in measured)


def test_form_that_keeps_a_lone_request_waiting_is_not_measured_further(
    version_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "is_soon_enough", lambda lone_ms, first_lone_ms: lone_ms == first_lone_ms)
    assert [each.form for each in measuring.measure(task_for(version_dir))] == [FORMS[0]]


def test_file_that_is_not_the_published_one_is_not_opened(version_dir: Path) -> None:
    (network,) = version_dir.glob("*.onnx")
    network.write_bytes(network.read_bytes() + b"\0")
    with pytest.raises(RepositoryError):
        measuring.measure(task_for(version_dir))


def test_picture_costs_what_a_photograph_does() -> None:
    data = measuring.picture()
    assert 25_000 < len(data) < 50_000
    assert decode_image(data, ImageLimits()).shape == (375, 500, 3)
