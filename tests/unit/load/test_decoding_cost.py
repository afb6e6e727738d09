"""What decoding costs. Promises held here: the cost is of the bare graph's time, with its interval and the spread."""

from __future__ import annotations

import numpy as np
import pytest

from tests.load.decoding_cost import cost_lines


def test_equal_turns_have_a_cost_without_width() -> None:
    seconds = np.tile([0.108, 0.100], (10, 1))

    cost, deploy, bare = cost_lines(seconds, 8)

    assert cost == "decoding adds 8.0 % (8.0 % to 8.0 %) over 10 turns"
    assert deploy == "deploy: 108.0 ms a batch (108.0 to 108.0, middle half 0.0 % apart)"
    assert bare.startswith("bare: 100.0 ms")


def test_turns_that_other_work_slowed_widen_the_spread_and_hardly_move_the_cost() -> None:
    seconds = np.tile([0.105, 0.100], (20, 1))
    seconds[::3] *= 2.0

    cost, deploy, _ = cost_lines(seconds, 8)

    assert float(cost.split()[2]) == pytest.approx(5.0, abs=0.1)
    assert "105.0 to 210.0" in deploy
