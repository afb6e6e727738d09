"""Real servers to be mistreated."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from tests.support.requests import Gate
from tests.support.versions import publish_fake


@pytest.fixture(scope="module")
def three_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a classifier, a detector and a segmenter, whose runs wait at the gate."""
    root = tmp_path_factory.mktemp("repository")
    for model, task in (("classifier", Task.CLASSIFY), ("detector", Task.DETECT), ("segmenter", Task.SEGMENT)):
        publish_fake(root, model, 1, task, _gate_of(root).content)
    return root


@pytest.fixture
def gate(three_models: Path) -> Gate:
    """Open; while it is closed, no run of the three models ends."""
    return _gate_of(three_models)


def _gate_of(repository: Path) -> Gate:
    return Gate(repository / ".gate")
