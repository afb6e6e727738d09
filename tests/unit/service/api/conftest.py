"""The predictor of the tests beside this file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.service.api.predictor_story import Story, running_story


@pytest.fixture
def story() -> Iterator[Story]:
    with running_story() as made:
        yield made
