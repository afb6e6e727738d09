"""Backends by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.backends.base import LoadRequest
from saccade.service.backends.registry import load_backend
from saccade.service.errors import BackendError
from tests.support.versions import manifest_for


def test_unknown_backend_names_those_that_exist() -> None:
    manifest = manifest_for("digits", 1)
    request = LoadRequest(Path("absent"), manifest.input, manifest.outputs, "cpu", 1, False)

    with pytest.raises(BackendError, match="no backend 'tflite'; there are: fake, onnxruntime, openvino, tensorrt"):
        load_backend("tflite", request)
