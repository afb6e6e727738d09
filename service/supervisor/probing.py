"""When the supervisor looks at a process that must answer its probes. Pure."""

from __future__ import annotations

_PERIOD_S = 1.0
_LOOKS = 4  # within the time after which a silent process is replaced, where that is short


def next_look_s(waited_s: float | None, limit_s: float) -> float:
    """Returns the seconds until the next look. `waited_s`: since a probe was sent that is not answered; None: none is.

    A process that hangs is found within `limit_s` and one period, which passes before the probe is sent.
    """
    period_s = min(_PERIOD_S, limit_s / _LOOKS)
    left_s = period_s if waited_s is None else limit_s - waited_s
    return min(period_s, left_s) if left_s > 0 else period_s
