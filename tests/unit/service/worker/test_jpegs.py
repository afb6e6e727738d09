"""Which workers decode JPEGs at all."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.settings import Settings, resolved
from saccade.service.worker.jpegs import WorkerJpegs
from tests.support.images import scene_jpeg

SPEC = PreprocessSpec(width=12, height=10, fit="stretch")


def worker(**settings: Any) -> WorkerJpegs:
    return WorkerJpegs(resolved(Settings(**settings), cores=2))


@pytest.mark.parametrize(
    "settings",
    [
        {"backend": "onnxruntime", "device": "cpu"},
        {"backend": "onnxruntime", "device": "cpu", "jpeg_decoder": "cpu"},
        {"backend": "onnxruntime", "device": "cuda:0", "jpeg_decoder": "cpu"},
        {"backend": "fake"},
        {"backend": "fake", "jpeg_decoder": "cpu"},
    ],
    ids=str,
)
def test_worker_leaves_jpegs_to_the_api_processes(settings: dict[str, Any]) -> None:
    assert worker(**settings).decoder_for(SPEC, nullcontext) is None


def test_gpu_decoding_without_a_gpu_is_said_and_served_from_the_cpu() -> None:
    with capture_logs() as logs:
        assert worker(backend="onnxruntime", device="cpu", jpeg_decoder="gpu").decoder_for(SPEC, nullcontext) is None

    assert [entry["event"] for entry in logs] == ["jpeg_decoder_has_no_gpu"]


def test_fake_backend_decodes_with_the_stand_in_when_told_to() -> None:
    with capture_logs():
        decoder = worker(backend="fake", jpeg_decoder="gpu").decoder_for(SPEC, nullcontext)
    rows = np.zeros((1, 10, 12, 3), np.uint8)

    assert decoder is not None
    assert decoder.decode([scene_jpeg()], list(rows)) == [True]
    assert rows.any()


def test_gpu_without_its_driver_serves_from_the_cpu_with_the_reason() -> None:
    """On a machine with a GPU this one finds a driver; tests/gpu has what happens then."""
    pytest.importorskip("cuda.bindings.runtime")
    jpegs = worker(backend="onnxruntime", device="cuda:0")

    with capture_logs() as logs:
        decoder = jpegs.decoder_for(SPEC, nullcontext)

    if decoder is not None:
        pytest.skip("this machine has a GPU")
    (entry,) = [entry for entry in logs if entry["event"] == "jpeg_decoder_chosen"]
    assert entry["decoder"] == "image threads"
    assert entry["reason"]
