"""Progress of a build. Promises: the share never falls, cancelling ends it, and a listener's failure comes out."""

from __future__ import annotations

import threading

import pytest

from saccade.export.errors import BuildCancelled
from saccade.export.plans.progress import BuildMonitor, PhaseShares
from saccade.export.plans.tensorrt_from_onnx import build_plan, find_tensorrt
from tests.support.residual_network import residual_network

needs_rtx = pytest.mark.skipif(find_tensorrt("tensorrt_rtx") is None, reason="the rtx extra is not installed")


def test_share_counts_phases_within_phases() -> None:
    # The phases of TensorRT for RTX 1.7, shortened: "Building engine" has six steps there.
    shares = PhaseShares()

    assert shares.start("Building engine", None, 4) == 0.0
    assert shares.start("Cloning network graph", "Building engine", 2) == 0.0
    assert shares.step("Cloning network graph", 0) == 0.125
    assert shares.finish("Cloning network graph") == 0.25
    assert shares.step("Building engine", 0) == 0.25
    assert shares.start("Optimizing graph", "Building engine", 10) == 0.25
    assert shares.step("Optimizing graph", 4) == pytest.approx(0.375)
    assert shares.step("Building engine", 1) == 0.5
    assert shares.finish("Building engine") == 1.0


def test_share_does_not_fall_when_a_phase_starts_again() -> None:
    shares = PhaseShares()
    shares.start("Building engine", None, 2)
    shares.start("Timing tactics", "Building engine", 2)
    shares.finish("Timing tactics")

    assert shares.start("Timing tactics", "Building engine", 2) == 0.5
    assert shares.step("of nobody", 3) == 0.5


def test_monitor_may_be_called_from_several_threads() -> None:
    told: list[float] = []
    monitor = BuildMonitor(lambda stage, share: not told.append(share))
    monitor.started("Building engine", None, 400)

    def step(first: int) -> None:
        for number in range(first, 400, 4):
            assert monitor.stepped("Building engine", number)

    threads = [threading.Thread(target=step, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert told == sorted(told)
    assert told[-1] == 1.0
    monitor.ensure_went_on()


def test_listener_that_fails_ends_the_build_and_is_heard() -> None:
    def listener(stage: str, share: float) -> bool:
        raise ConnectionResetError("nobody listens")

    monitor = BuildMonitor(listener)
    monitor.started("Building engine", None, 2)

    assert not monitor.stepped("Building engine", 0)
    with pytest.raises(ConnectionResetError):
        monitor.ensure_went_on()


@needs_rtx
def test_build_tells_how_far_it_is() -> None:
    told: list[tuple[str, float]] = []

    report = build_plan(
        residual_network().SerializeToString(), ("SM89",), (1, 4), progress=lambda *at: not told.append(at)
    )

    assert report.plan is not None
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert len({stage for stage, _ in told}) > 5


@needs_rtx
def test_build_is_cancelled() -> None:
    told: list[float] = []

    with pytest.raises(BuildCancelled, match="nothing was kept"):
        build_plan(
            residual_network().SerializeToString(),
            ("SM89",),
            (1, 4),
            progress=lambda stage, share: bool(told.append(share)),
        )

    assert len(told) == 1
