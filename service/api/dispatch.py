"""Chooses the device that answers a request. Promises: pure; the least expected wait, equals in turn.

Every API process knows only its own requests. That is enough: what others send shows in how long answers take to
leave, and with it in what is still outstanding here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

_LATEST_SHARE = 0.2  # of the newest observation in the running estimate: follows a change within some ten batches
_UNMEASURED_S = 0.01  # before the first answer of any candidate; a usual batch of one on any device
_EQUAL_S = 1e-6  # below this two waits are the same


@dataclass(frozen=True, slots=True)
class Candidate:
    """An instance that could take the request."""

    device: str
    instance_id: int
    image_s: float | None  # expected seconds per image; None before the first answer


def choose_instance(
    candidates: Sequence[Candidate], outstanding_s: Mapping[str, float], image_count: int, turn: int
) -> Candidate:
    """The candidate whose device would be done first with what it has and these images as well.

    `outstanding_s` is by device. An instance that nobody has measured is taken to be as fast as the fastest that was,
    so that it is tried. Among equals `turn` decides: count it up with every request.
    """
    known = [candidate.image_s for candidate in candidates if candidate.image_s is not None]
    unmeasured_s = min(known, default=_UNMEASURED_S)

    def done_s(candidate: Candidate) -> float:
        image_s = unmeasured_s if candidate.image_s is None else candidate.image_s
        return outstanding_s.get(candidate.device, 0.0) + image_count * image_s

    first_s = min(done_s(candidate) for candidate in candidates)
    equals = [candidate for candidate in candidates if done_s(candidate) <= first_s + _EQUAL_S]
    return equals[turn % len(equals)]


class SpeedEstimates:
    """Seconds per image of every instance, from the answers this process has seen."""

    def __init__(self) -> None:
        self._image_s: dict[int, float] = {}

    def image_s(self, instance_id: int) -> float | None:
        return self._image_s.get(instance_id)

    def observe(self, instance_id: int, infer_s: float, batch_size: int) -> None:
        """An answer arrived whose batch of `batch_size` took `infer_s`."""
        if batch_size < 1:  # it never ran
            return
        seen_s = infer_s / batch_size
        before_s = self._image_s.get(instance_id, seen_s)
        self._image_s[instance_id] = before_s + _LATEST_SHARE * (seen_s - before_s)

    def keep_only(self, instance_ids: Iterable[int]) -> None:
        """Forgets instances that are gone; their numbers never come back."""
        known = set(instance_ids)
        self._image_s = {key: value for key, value in self._image_s.items() if key in known}

    def outstanding_s(self, in_flight: Mapping[int, int]) -> float:
        """Expected seconds for images in flight, counted by instance."""
        measured = [value for key in in_flight if (value := self._image_s.get(key)) is not None]
        unmeasured_s = min(measured, default=_UNMEASURED_S)
        return sum(count * self._image_s.get(key, unmeasured_s) for key, count in in_flight.items())
