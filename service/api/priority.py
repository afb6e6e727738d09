"""What a request's priority means. Promises: bounded: nobody is passed by a request whose deadline is much later.

Requests run in the order of deadline plus offset. So a high one passes normal ones that are due within a second
before it, and a low one lets those pass that are due within a second after it, and no others: however many high ones
come, what is due two seconds before them goes first, and none is starved.
"""

from __future__ import annotations

from enum import StrEnum

from saccade.service.errors import BadParameter

_OFFSET_S = 1.0  # on a scale with deadlines that people wait for; below it, order is priority first, then deadline


class Priority(StrEnum):
    """As the header `X-Priority` spells it."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


RANK_OFFSET_S = {Priority.HIGH: -_OFFSET_S, Priority.NORMAL: 0.0, Priority.LOW: _OFFSET_S}

# At admission: the share of the time until the deadline that the expected wait may take. Estimates are off by a tenth
# or two; and where there is less time than requests ask for, those of low priority are refused first.
WAIT_SHARE = {Priority.HIGH: 0.95, Priority.NORMAL: 0.8, Priority.LOW: 0.4}
# Share of the slots that requests of a priority leave free for the others.
SLOTS_LEFT = {Priority.HIGH: 0.0, Priority.NORMAL: 0.0, Priority.LOW: 0.25}


def priority_from(header: bytes | None) -> Priority:
    """Of `X-Priority`. Raises BadParameter."""
    if header is None:
        return Priority.NORMAL
    try:
        return Priority(header.decode("latin-1").strip().lower())
    except ValueError as error:
        names = ", ".join(Priority)
        raise BadParameter(f"X-Priority is {header[:20].decode('latin-1')!r}, allowed are: {names}") from error
