"""How a backend is driven: every batch is finished, no more are in flight than it takes."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.load.gpu_stages import bare_row, paired_row
from tests.load.gpu_subjects import BackendSubject

IMAGES = np.zeros((4, 8, 8, 3), np.uint8)


class Pipelined:
    """Counts what is in flight."""

    def __init__(self, provider: str, batches_in_flight: int) -> None:
        self.provider = provider
        self.batches_in_flight = batches_in_flight
        self.most = 0
        self.started: list[int] = []
        self._last = 0

    def staging(self, batch_size: int) -> np.ndarray:
        assert len(self.started) < self.batches_in_flight, "no room for another batch"
        return np.empty((batch_size, 8, 8, 3), np.uint8)

    def start(self) -> int:
        self._last += 1
        self.started.append(self._last)
        self.most = max(self.most, len(self.started))
        return self._last

    def finish(self, started: int) -> tuple[list[Any], float]:
        self.started.remove(started)
        return [], 0.002

    def infer(self, images: np.ndarray) -> list[Any]:
        raise AssertionError("a pipelined backend is driven by its parts")

    def close(self) -> None:
        assert not self.started


@pytest.mark.parametrize("batches_in_flight", [1, 2, 3])
def test_flow_keeps_as_many_batches_in_flight_as_there_is_room_for_and_finishes_all(batches_in_flight: int) -> None:
    backend = Pipelined("tensorrt 10.16.1", batches_in_flight)
    subject = BackendSubject(backend)  # type: ignore[arg-type]  # a stand-in

    assert subject.flow(IMAGES, 0.01) > 0
    assert backend.most == batches_in_flight
    subject.close()


@pytest.mark.parametrize("batches_in_flight", [1, 2, 3])
@pytest.mark.parametrize("step_s", [0.3, 0.5, 0.7, 2.0])
def test_flow_ends_whenever_the_time_is_up_between_two_looks_at_the_clock(
    monkeypatch: pytest.MonkeyPatch, batches_in_flight: int, step_s: float
) -> None:
    looks = itertools.count()
    monkeypatch.setattr("tests.load.gpu_subjects.time", SimpleNamespace(perf_counter=lambda: step_s * next(looks)))
    subject = BackendSubject(Pipelined("tensorrt 10.16.1", batches_in_flight))  # type: ignore[arg-type]  # a stand-in

    assert subject.flow(IMAGES, 1.0) > 0
    subject.close()


@pytest.mark.parametrize(("provider", "tells"), [("tensorrt 10.16.1", True), ("CUDAExecutionProvider", False)])
def test_device_time_stands_in_a_row_only_where_it_is_the_devices(provider: str, tells: bool) -> None:
    row = bare_row(BackendSubject(Pipelined(provider, 1)), IMAGES, 0.01)  # type: ignore[arg-type]  # a stand-in

    assert ("device_p50_ms" in row) == tells
    assert row.get("device_p50_ms", 2.0) == 2.0


class Steady:
    """A subject whose batches take fixed times."""

    def __init__(self, clock: list[float], seconds: float) -> None:
        self._clock, self._seconds = clock, seconds

    def run(self, images: np.ndarray) -> None:
        self._clock[0] += self._seconds


def test_ratio_says_how_much_faster_the_first_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.export.qualification import benchmark

    clock = [0.0]
    real = benchmark.seconds_per_run
    monkeypatch.setattr(
        "tests.load.gpu_stages.seconds_per_run",
        lambda runs, repeats, budget_s: real(runs, repeats, budget_s, lambda: clock[0]),
    )

    row = paired_row(Steady(clock, 0.010), Steady(clock, 0.015), IMAGES, 1.0)  # type: ignore[arg-type]  # stand-ins

    assert row["ratio"] == pytest.approx(1.5)
    assert row["first_images_per_s"] == pytest.approx(400.0)
