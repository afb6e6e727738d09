"""Padding on simulated time: nobody is served worse, and clients that a device kept one by one are served at once."""

from __future__ import annotations

import pytest

from tests.support.padding_patterns import (
    BURST_PATTERNS,
    CLOSED_PATTERNS,
    DEVICES,
    H200_S,
    RANDOM_PATTERNS,
    closed_name,
    compare,
)
from tests.support.simulated_batches import Load, Served, poisson, serve, without_padding

LOSS = 0.02  # of throughput, and of p99


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pattern", CLOSED_PATTERNS)
def test_closed_loops_are_not_served_worse_than_without_padding(device: str, pattern: str) -> None:
    compared = compare(DEVICES[device], CLOSED_PATTERNS[pattern], seeds=1)

    assert compared.throughput >= 1 - LOSS
    assert compared.p99 <= 1 + LOSS


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pattern", RANDOM_PATTERNS)
def test_random_arrivals_are_not_served_worse_than_without_padding(device: str, pattern: str) -> None:
    compared = compare(DEVICES[device], RANDOM_PATTERNS[pattern], seeds=4 if pattern.startswith("bursts") else 2)

    assert compared.throughput >= 1 - LOSS
    assert compared.p99 <= 1 + LOSS


@pytest.mark.parametrize("device", DEVICES)
def test_bursts_of_any_size_are_not_served_worse_than_without_padding(device: str) -> None:
    worse = {
        name: compared
        for name, pattern in BURST_PATTERNS.items()
        if (compared := compare(DEVICES[device], pattern, seeds=1)).throughput < 1 - LOSS or compared.p99 > 1 + LOSS
    }

    assert not worse


@pytest.mark.parametrize(("away_s", "gain"), [((0.0001, 0.0003), 2.5), ((0.0005, 0.0015), 1.85)])
def test_eight_clients_get_twice_the_answers_of_a_device_that_ran_them_one_by_one(
    away_s: tuple[float, float], gain: float
) -> None:
    compared = compare(DEVICES["H200"], CLOSED_PATTERNS[closed_name(8, away_s)])

    assert compared.before_per_s == pytest.approx(1 / H200_S[1], rel=0.01), "one by one"
    assert compared.throughput >= gain
    assert compared.p99 <= 0.55


# Two models on one device


def beside(clients: int) -> list[Served]:
    """The busy model, whose clients always wait, and another one that asks for a tenth of the device."""
    quiet = Load(poisson(0.1 / H200_S[1], 2000, seed=3))
    return serve(DEVICES["H200"], [Load(clients=clients, answers=80_000), quiet])


def test_other_model_waits_no_longer_beside_padded_runs_than_beside_filled_ones_of_that_size() -> None:
    padded, quiet = beside(clients=7)
    with without_padding():
        filled, quiet_before = beside(clients=16)

    assert padded.rows > len(padded.waits_s)
    assert filled.images_per_s > 3000, "batches of eight"
    assert quiet.p99_s <= (1 + LOSS) * quiet_before.p99_s
    assert quiet.images_per_s == pytest.approx(quiet_before.images_per_s, rel=LOSS)


def test_models_that_both_pad_share_device_time_and_not_requests() -> None:
    # given equal weights, one model padded to eight by seven clients, the other to 32 by 25
    few, many = serve(DEVICES["H200"], [Load(clients=7, answers=4000), Load(clients=25, answers=14000)])

    assert few.rows > len(few.waits_s)
    assert many.rows > len(many.waits_s)
    assert few.ends_s < many.ends_s
    assert few.device_s / few.ends_s == pytest.approx(0.5, abs=0.02)
