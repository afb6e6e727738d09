"""Tests the client that forms are tried with, on a clock of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from saccade.service.bench.connections import Reply, Ticket
from saccade.service.bench.records import End
from saccade.service.bench.workload import Item
from saccade.service.supervisor.tuning import trial_load
from saccade.service.supervisor.tuning.trial_load import TrialLoad

_SENDING_S, _ANSWERING_S = 0.005, 0.010


class _Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """The clock of a client that takes 5 ms to send a request, which a server answers after 10 ms more."""
    clock = _Clock()

    class Pool:
        def __init__(
            self, address: object, most: int, timeout_s: float, ended: Callable[[Ticket, Reply], None]
        ) -> None:
            self._ended = ended

        def submit(self, ticket: Ticket) -> None:
            clock.now_s += _SENDING_S
            asyncio.get_running_loop().call_soon(self._answer, ticket)

        def _answer(self, ticket: Ticket) -> None:
            clock.now_s += _ANSWERING_S
            self._ended(ticket, Reply(End.ANSWERED, 200))

    monkeypatch.setattr(trial_load, "ConnectionPool", Pool)
    monkeypatch.setattr(trial_load, "time", clock)
    return clock


@pytest.mark.parametrize("connections", [1, 4])
def test_rate_counts_the_time_in_which_the_client_sends(clock: _Clock, connections: int) -> None:
    load = TrialLoad([1], "127.0.0.1", Item("network", "drawn.jpg", b"", b""), connections)
    rate = asyncio.run(load.images_per_s(0.0, 0.0))
    assert rate == pytest.approx(1 / (_SENDING_S + _ANSWERING_S))  # one process does both, one request after the other
