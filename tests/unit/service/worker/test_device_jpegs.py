"""JPEGs in the device loop: decoded into their own rows, sent back alone, also when batches overlap or fail."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.service.errors import DeviceLost
from saccade.service.ipc import messages
from saccade.service.ipc.tensor_slots import SlotArena
from saccade.service.worker.instances import LoadedInstance, Work
from saccade.service.worker.scheduling.batching import BatchLimits
from tests.unit.service.worker.looping import FAR_S, LAYOUT, LoopingWorker
from tests.unit.service.worker.scripted_backend import POISON, ScriptedBackend
from tests.unit.service.worker.scripted_pipeline import ScriptedPipeline

DECODING = 2  # the instance that decodes
BAD, KILLER = 0, 99


class Jpegs:
    """A "JPEG" here is one byte, the value of its image."""

    def decode(self, jpegs: Sequence[bytes], rows: Sequence[NDArray[np.uint8]]) -> list[bool]:
        values = [data[0] for data in jpegs]
        if KILLER in values:
            raise DeviceLost("illegal address")
        for row, value in zip(rows, values, strict=True):
            row[...] = value
        return [value != BAD for value in values]


class DecodingWorker(LoopingWorker[Any]):
    """Its second instance decodes."""

    def __init__(self, arena: SlotArena, backend: ScriptedBackend | ScriptedPipeline) -> None:
        super().__init__(arena, backend)
        self._slots = arena
        self.loop.add(DECODING, LoadedInstance(backend, LAYOUT, BatchLimits((1, 2, 4), 0.0), self.latency, Jpegs()))

    def send(self, request_id: int, value: int, *, encoded_bytes: int = 1, instance_id: int = DECODING) -> None:
        self._slots.tensor(request_id, LAYOUT.input)[...] = value
        now_s = time.monotonic()
        deadline_s = now_s + FAR_S
        work = Work("api", self._slots, request_id, request_id, instance_id, deadline_s, now_s, encoded_bytes)
        self.loop.submit(work)


@pytest.fixture(params=[ScriptedBackend, ScriptedPipeline], ids=["one at a time", "overlapping"])
def worker(request: pytest.FixtureRequest) -> Iterator[DecodingWorker]:
    arena = SlotArena.create(20, 4096)
    yield DecodingWorker(arena, request.param())
    arena.close()


def answers(worker: DecodingWorker, count: int) -> dict[int, int | None]:
    """Request id to answer; None for what was sent back."""
    outcomes = worker.outcomes(count)
    assert {finished.status for finished in outcomes.values()} <= {messages.DONE_OK, messages.DONE_UNDECODED}
    return {
        request_id: None if finished.outputs is None else int(finished.outputs[0][0])
        for request_id, finished in outcomes.items()
    }


def test_jpegs_and_pixels_of_one_batch_get_their_own_answers(worker: DecodingWorker) -> None:
    for request_id, encoded_bytes in enumerate((1, 0, 1, 0)):
        worker.send(request_id, 20 + request_id, encoded_bytes=encoded_bytes)
    worker.start()

    assert answers(worker, 4) == {0: 40, 1: 42, 2: 44, 3: 46}
    worker.stop()


def test_bad_jpeg_goes_back_alone(worker: DecodingWorker) -> None:
    for request_id, value in enumerate((10, BAD, 30, 40)):
        worker.send(request_id, value)
    worker.start()

    assert answers(worker, 4) == {0: 20, 1: None, 2: 60, 3: 80}
    assert worker.outcomes(4)[1].batch_size == 0
    worker.stop()


def test_bad_jpeg_goes_back_once_when_its_batch_is_repeated(worker: DecodingWorker) -> None:
    for request_id, value in enumerate((10, BAD, POISON, 40)):
        worker.send(request_id, value)
    worker.start()

    statuses = worker.statuses(4)

    assert statuses == {
        0: messages.DONE_OK,
        1: messages.DONE_UNDECODED,
        2: messages.DONE_FAILED,
        3: messages.DONE_OK,
    }
    worker.stop()


def test_single_jpeg_is_not_taken_for_pixels(worker: DecodingWorker) -> None:
    worker.send(0, 21)
    worker.start()

    assert answers(worker, 1) == {0: 42}
    worker.stop()


def test_jpeg_for_an_instance_that_does_not_decode_goes_back(worker: DecodingWorker) -> None:
    worker.send(0, 21, instance_id=1)
    worker.start()

    assert answers(worker, 1) == {0: None}
    worker.stop()


def test_decoding_is_timed_apart_from_the_run(worker: DecodingWorker) -> None:
    worker.send(0, 21)
    worker.send(1, 21, encoded_bytes=0, instance_id=1)
    worker.start()

    outcomes = worker.outcomes(2)

    assert outcomes[0].decode_s > 0
    assert outcomes[1].decode_s == 0
    worker.stop()


def test_device_lost_while_decoding_leaves_no_request_without_a_report(worker: DecodingWorker) -> None:
    for request_id, value in enumerate((10, KILLER)):
        worker.send(request_id, value)
    worker.start()

    assert set(worker.statuses(2).values()) == {messages.DONE_DEVICE_LOST}
    worker.join()
    assert isinstance(worker.error, DeviceLost)
