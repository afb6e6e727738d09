"""Counts for a rollout: told once, and then they begin anew."""

from __future__ import annotations

from saccade.service.api.tallies import Tally
from saccade.service.running_figures import bin_of, upper_edge_s


def test_tally_is_empty_once_it_was_told() -> None:
    tally = Tally()
    tally.answered(0.01)
    tally.failed()
    tally.compared(0.5)

    told = tally.told("digits", 2, 4)
    assert told is not None
    assert (told.answered, told.errors, told.compared, told.agreement) == (1, 1, 1, 0.5)
    assert tally.told("digits", 2, 4) is None


def test_bins_hold_latencies_within_five_percent() -> None:
    for seconds in (1e-5, 1e-4, 0.0123, 0.5, 30.0):
        edge_s = upper_edge_s(bin_of(seconds))
        assert max(seconds, 1e-4) <= edge_s * (1 + 1e-9)
        assert edge_s <= 1.051 * max(seconds, 1e-4)
