"""TensorRT is found under the names it comes by."""

from __future__ import annotations

import sys

import pytest

from saccade.service.backends.tensorrt.module import find_tensorrt


def test_wheels_of_tensorrt_for_rtx_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = pytest.importorskip("tensorrt_rtx_bindings")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)  # as where NVIDIA's source distribution is not installed

    found = find_tensorrt("tensorrt_rtx")

    assert found is not None
    assert (found.__name__, found.__version__) == ("tensorrt_rtx", bindings.__version__)
    assert found.Builder is bindings.Builder
