"""A batch computes what any of its requests asks for, and each request gets what it asked for itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from saccade.models.contract.extras import ExtraKind, ExtraOutput
from saccade.models.contract.specs import TensorSpec
from saccade.service.backends.base import Outputs, UInt8Array
from saccade.service.ipc import messages
from saccade.service.ipc.tensor_slots import SlotArena, layout_of
from saccade.service.worker.instances import LoadedInstance
from saccade.service.worker.scheduling.batching import BatchLimits
from saccade.service.worker.scheduling.latency_model import LatencyModel
from tests.unit.service.worker.looping import LoopingWorker
from tests.unit.service.worker.scripted_backend import ScriptedBackend

EXPLAIN, TRUST = ExtraKind.EXPLAIN.bit, ExtraKind.TRUST.bit
EXTRAS = tuple(
    ExtraOutput(kind=kind, output=TensorSpec(name=kind.value, dtype="int32", shape=(1,)), method="scripted")
    for kind in ExtraKind
)
ASKABLE = 2  # the instance that computes extra outputs


class AskableScript(ScriptedBackend):
    """Extra output k of an image is its byte plus 100 times k's bit."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[int] = []

    def infer_asked(self, images: UInt8Array, asked: int) -> Outputs:
        self.asked.append(asked)
        extras = [images[:, :1].astype(np.int32) + 100 * kind.bit for kind in ExtraKind if kind.bit & asked]
        return [*self.infer(images), *extras]


@pytest.fixture
def worker() -> Iterator[LoopingWorker[AskableScript]]:
    arena = SlotArena.create(16, 4096)
    running = LoopingWorker(arena, AskableScript())
    layout = layout_of(
        TensorSpec(name="images", dtype="uint8", shape=(4,)),
        (TensorSpec(name="answer", dtype="int32", shape=(1,)),),
        EXTRAS,
    )
    limits = BatchLimits((1, 2, 4), 0.0)
    running.loop.add(ASKABLE, LoadedInstance(running.backend, layout, limits, LatencyModel(), extras=EXTRAS))
    running.start()
    yield running
    running.stop()
    arena.close()


def test_neighbours_of_a_batch_get_what_each_asked_for(worker: LoopingWorker[AskableScript]) -> None:
    worker.hold_with(1)
    numbers = [
        worker.submit(value, instance_id=ASKABLE, asked=asked)
        for value, asked in ((3, 0), (4, TRUST), (5, 3), (6, EXPLAIN))
    ]
    worker.backend.gate.set()
    found = worker.outcomes(5)
    rows = [[int(each[0]) for each in found[number].outputs or ()] for number in numbers]
    assert rows == [[6], [8, 204], [10, 105, 205], [12, 106]]
    assert worker.backend.asked == [EXPLAIN | TRUST]  # once, for all four
    assert [len(found[number].layout.outputs) for number in numbers] == [1, 2, 3, 2]  # type: ignore[union-attr]  # they ran


def test_a_batch_that_nobody_asks_more_of_computes_the_answer_alone(worker: LoopingWorker[AskableScript]) -> None:
    number = worker.submit(3, instance_id=ASKABLE)
    outputs = worker.outcomes(1)[number].outputs
    assert outputs is not None
    assert len(outputs) == 1
    assert worker.backend.asked == []


def test_the_parts_of_a_failed_batch_compute_what_their_own_requests_ask(worker: LoopingWorker[AskableScript]) -> None:
    worker.hold_with(1)
    bad = worker.submit(13, instance_id=ASKABLE, asked=EXPLAIN)  # the scripted poison
    good = worker.submit(4, instance_id=ASKABLE)
    worker.backend.gate.set()
    assert {bad: messages.DONE_FAILED, good: messages.DONE_OK}.items() <= worker.statuses(3).items()
    assert worker.backend.asked == [EXPLAIN, EXPLAIN]  # the batch, and the half with the bad image


def test_an_instance_is_not_asked_for_what_it_does_not_compute(worker: LoopingWorker[AskableScript]) -> None:
    number = worker.submit(3, asked=EXPLAIN)  # instance 1 has no extra outputs
    assert worker.statuses(1) == {number: messages.DONE_FAILED}
