"""Memory of an opened plan, counted before it is taken."""

from __future__ import annotations

import pytest

from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.cuda.buffers import RESERVE_BYTES, ensure_fits, plan_buffers
from saccade.service.errors import OutOfDeviceMemory

IMAGES = TensorSpec(name="images", dtype="uint8", shape=(4, 5, 3))
SCORES = TensorSpec(name="scores", dtype="float32", shape=(10,))
COUNTS = TensorSpec(name="counts", dtype="int32", shape=())
MIB = 1024 * 1024


def test_outputs_lie_side_by_side_and_aligned() -> None:
    plan = plan_buffers(IMAGES, (SCORES, COUNTS), max_batch_size=8, batches_in_flight=2)

    assert [(output.offset, output.row_bytes) for output in plan.outputs] == [(0, 40), (512, 4)]
    assert plan.output_bytes == 512 + 256
    assert (plan.input_bytes, plan.outputs[0].size_bytes(3)) == (8 * 60, 120)


def test_every_batch_in_flight_has_its_own_buffers_and_every_context_its_own_scratch() -> None:
    plan = plan_buffers(IMAGES, (SCORES,), max_batch_size=8, batches_in_flight=3, scratch_bytes=10_000, contexts=2)

    assert plan.device_bytes == 3 * (480 + 512) + 2 * 10_000


def test_more_contexts_than_batches_in_flight_would_idle() -> None:
    assert plan_buffers(IMAGES, (SCORES,), max_batch_size=1, batches_in_flight=1, contexts=2).contexts == 1


def test_too_little_memory_is_refused_with_figures() -> None:
    ensure_fits("it", 100 * MIB, 100 * MIB + RESERVE_BYTES)

    with pytest.raises(OutOfDeviceMemory, match=r"it needs 101 MiB .* and 64 MiB to spare, 164 MiB are free: unload"):
        ensure_fits("it", 100 * MIB + 1, 100 * MIB + RESERVE_BYTES)
