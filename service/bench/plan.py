"""How many replicas a rate needs, from the highest rate at which one was measured to keep the objective."""

from __future__ import annotations

import math

from saccade.service.bench.report import PlanFigures

# Load balancers spread requests unevenly, and the rate was measured within some per cent.
USED_SHARE = 0.8
_SPARE = 1  # for a replica that is lost or replaced
_S_PER_HOUR = 3600.0


def plan_for(rate_rps: float, replica_rps: float | None, devices: int, price_per_hour: float | None) -> PlanFigures:
    """Replicas for `rate_rps` requests per second, where one with so many devices carries `replica_rps`.

    None where no rate kept the objective: more replicas do not help then. `price_per_hour` is that of a replica.
    """
    if replica_rps is None:
        return PlanFigures(rate_rps, None, USED_SHARE, 0, 0, 0, None, None)
    needed = max(1, math.ceil(rate_rps / (replica_rps * USED_SHARE)))
    replicas = needed + _SPARE
    per_hour = None if price_per_hour is None else replicas * price_per_hour
    per_million = None if per_hour is None else per_hour / _S_PER_HOUR / rate_rps * 1e6
    return PlanFigures(rate_rps, replica_rps, USED_SHARE, replicas, _SPARE, replicas * devices, per_hour, per_million)
