"""What a request's priority means. Promises: bounded: nobody is passed by a request whose deadline is much later.

Requests run in the order of deadline plus offset. So a high one passes normal ones that are due within a second
before it, and a low one lets those pass that are due within a second after it, and no others: however many high ones
come, what is due two seconds before them goes first, and none is starved.
"""

from __future__ import annotations

from enum import StrEnum

_OFFSET_S = 1.0  # on a scale with deadlines that people wait for; below it, order is priority first, then deadline


class Priority(StrEnum):
    """As the header `X-Priority` spells it."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


RANK_OFFSET_S = {Priority.HIGH: -_OFFSET_S, Priority.NORMAL: 0.0, Priority.LOW: _OFFSET_S}
