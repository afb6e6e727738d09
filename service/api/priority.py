"""The priorities of requests, and what each changes: order, admission, and the use of slots.

Requests run in the order of deadline plus offset. A high request therefore overtakes normal ones whose deadline is at
most a second earlier, and a low request is overtaken by normal ones whose deadline is at most a second later, but by no
others. However many high requests come, a request that is due two seconds before them goes first, so none is starved.
Shadows, which nobody waits for, run behind all of them, and enter only where most slots are free.
"""

from __future__ import annotations

from enum import StrEnum

from saccade.service.errors import BadParameter

_SHADOW_OFFSET_S = 1e6  # beyond every deadline
_OFFSET_S = 1.0  # long against usual deadlines: shorter ones are ordered by priority first, then by deadline


class Priority(StrEnum):
    """The priority of a request, as the header `X-Priority` spells the first three."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"
    SHADOW = "shadow"


_NAMES = (Priority.HIGH, Priority.NORMAL, Priority.LOW)
RANK_OFFSET_S = {
    Priority.HIGH: -_OFFSET_S,
    Priority.NORMAL: 0.0,
    Priority.LOW: _OFFSET_S,
    Priority.SHADOW: _SHADOW_OFFSET_S,
}

# The share of the time until the deadline that the expected wait may take at admission. Estimates are wrong by 10 to
# 20 %. Under overload, the smaller share of low requests makes them the first to be refused.
WAIT_SHARE = {Priority.HIGH: 0.95, Priority.NORMAL: 0.8, Priority.LOW: 0.4, Priority.SHADOW: 0.2}
# The share of the slots that requests of a priority must leave free for others.
SLOTS_LEFT = {Priority.HIGH: 0.0, Priority.NORMAL: 0.0, Priority.LOW: 0.25, Priority.SHADOW: 0.75}


def priority_from(header: bytes | None) -> Priority:
    """Reads the header `X-Priority`; None is normal. Raises BadParameter for any other value than the three names."""
    if header is None:
        return Priority.NORMAL
    name = header.decode("latin-1").strip().lower()
    if name not in _NAMES:
        raise BadParameter(f"X-Priority is {header[:20].decode('latin-1')!r}, allowed are: {', '.join(_NAMES)}")
    return Priority(name)
