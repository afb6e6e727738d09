"""Counts what a rollout is judged by, for each version, until the supervisor is told."""

from __future__ import annotations

from collections import Counter

from saccade.service.ipc.messages import VersionTally
from saccade.service.running_figures import bin_of


class Tally:
    """The counts of one version since they were last told; only the event loop of the process may call it."""

    __slots__ = ("_agreement", "_answered", "_compared", "_errors", "_latencies")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._answered = 0
        self._errors = 0
        self._latencies: Counter[int] = Counter()
        self._compared = 0
        self._agreement = 0.0

    def answered(self, seconds: float) -> None:
        self._answered += 1
        self._latencies[bin_of(seconds)] += 1

    def failed(self) -> None:
        """Counts a request that the server, not its client, is to blame for."""
        self._errors += 1

    def compared(self, agreement: float) -> None:
        """Counts an image that this version was asked about as a shadow."""
        self._compared += 1
        self._agreement += agreement

    def told(self, model: str, version: int, generation: int) -> VersionTally | None:
        """Returns the counts, and begins anew; None where there are none."""
        if not (self._answered or self._errors or self._compared):
            return None
        bins = tuple(sorted(self._latencies.items()))
        tally = VersionTally(
            model, version, generation, self._answered, self._errors, bins, self._compared, self._agreement
        )
        self.clear()
        return tally
