"""What a step's outcome is keyed by."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from saccade.export import steps
from saccade.export.steps import tool_versions


def test_tools_that_another_distribution_brings_or_that_are_absent_have_a_version_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = {"onnxruntime-gpu": "1.31.1", "numpy": "2.4.6"}

    def version(name: str) -> str:
        if name not in installed:
            raise PackageNotFoundError(name)
        return installed[name]

    monkeypatch.setattr(steps, "version", version)

    found = tool_versions(["numpy", "onnxruntime", "cykooz-resizer"])

    assert found == {"numpy": "2.4.6", "onnxruntime": "1.31.1", "cykooz-resizer": "none"}
