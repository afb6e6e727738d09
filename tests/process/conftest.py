"""Real servers to be mistreated."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from tests.support.versions import publish_fake


@pytest.fixture(scope="module")
def three_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a classifier, a detector and a segmenter."""
    root = tmp_path_factory.mktemp("repository")
    publish_fake(root, "classifier", 1)
    publish_fake(root, "detector", 1, Task.DETECT)
    publish_fake(root, "segmenter", 1, Task.SEGMENT)
    return root
