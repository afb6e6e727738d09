"""What a device has room for, and the figures a refusal names."""

from __future__ import annotations

import pytest

from saccade.service.ipc.messages import DeviceFacts
from saccade.service.supervisor.placement.device_memory import DeviceMemory, Holding, Need, capacity_bytes

MIB = 1024 * 1024


def need(mib: float, *, is_measured: bool = False) -> Need:
    return Need(int(mib * MIB), is_measured)


@pytest.mark.parametrize(
    ("free_mib", "total_mib", "limit_mib", "capacity_mib"),
    [
        (1000, 1200, 0, 900),
        (1000, 1200, 500, 500),
        (1000, 1200, 5000, 900),
        (0, 1200, 0, 1100),
        (50, 1200, 0, 0),
        (0, 0, 300, 300),
    ],
)
def test_capacity_is_what_was_free_less_the_reserve_up_to_the_limit(
    free_mib: int, total_mib: int, limit_mib: int, capacity_mib: int
) -> None:
    facts = DeviceFacts(memory_total_bytes=total_mib * MIB, memory_free_bytes=free_mib * MIB)

    assert capacity_bytes(facts, reserve_mb=100, limit_mb=limit_mib) == capacity_mib * MIB


def test_device_without_figures_or_limit_is_not_bounded() -> None:
    assert capacity_bytes(DeviceFacts(), 512, 0) is None
    assert DeviceMemory("cpu", None, (Holding("a/1 fp32", need(9e6)),)).refusal(need(9e6)) is None


def test_what_fits_exactly_fits() -> None:
    memory = DeviceMemory("cuda:0", 10 * MIB, (Holding("a/1 fp32", need(6)),))

    assert memory.refusal(need(4)) is None
    assert memory.refusal(need(4.1)) is not None


def test_refusal_names_need_room_and_holders_largest_first() -> None:
    holdings = (Holding("small/1 fp32", need(100)), Holding("large/3 int8-trt", need(800, is_measured=True)))
    memory = DeviceMemory("cuda:1", 1000 * MIB, holdings)

    reason = memory.refusal(need(250, is_measured=True))

    assert reason is not None
    assert reason.startswith(
        "needs 250 MiB (measured); cuda:1 has 100 of 1,000 MiB free, held by: "
        "large/3 int8-trt 800 MiB (measured), small/1 fp32 100 MiB (estimated from its files)"
    )
    assert "SACCADE_DEVICE_MEMORY_LIMIT_MB" in reason


def test_empty_device_that_is_too_small_says_so() -> None:
    reason = DeviceMemory("cuda:0", MIB, ()).refusal(need(2))

    assert reason is not None
    assert "cuda:0 has 1.0 of 1.0 MiB free, held by: nothing" in reason


def test_measurement_beyond_the_estimate_may_leave_less_than_nothing() -> None:
    memory = DeviceMemory("cuda:0", MIB, (Holding("a/1 fp32", need(3, is_measured=True)),))

    assert memory.free_bytes == -2 * MIB
    assert memory.refusal(need(0.1)) is not None


def test_device_with_a_problem_takes_nothing() -> None:
    assert DeviceMemory("cuda:0", None, (), "the driver is too old").refusal(need(0)) == "the driver is too old"
