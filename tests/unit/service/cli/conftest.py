"""Settings and logs as they were before each test of a program, and a repository of two versions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from saccade.service.settings import PREFIX, Settings
from tests.support.versions import manifest_for, publish


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """`serve` sends logs to a stderr that ends with its test."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(PREFIX + name.upper(), raising=False)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path, manifest_for("digits", 1))
    publish(tmp_path, manifest_for("digits", 2))
    return tmp_path
