"""How long a queue takes on a device, and when padding shortens that. Promises: pure; by the latency table alone."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.service.worker.scheduling.latency_model import LatencyTable

_CLEAR_GAIN = 1.1  # run times are known to some percent: what gains less is as likely to lose


def padded_size(latency: LatencyTable, request_count: int, allowed_sizes: Sequence[int]) -> int | None:
    """The allowed size above `request_count` that these requests had better be padded to; None: they fill batches.

    To end before the batches that the requests fill is not enough: of those, the first ends even sooner, and the
    others take newcomers along. So a padded run must win three comparisons.
    """
    if request_count in allowed_sizes or request_count > allowed_sizes[-1]:
        return None
    padded = min((size for size in allowed_sizes if size > request_count), key=latency.batch_s)
    padded_s, lone_s = latency.batch_s(padded), latency.batch_s(1)
    fits = [size for size in allowed_sizes if size < request_count]
    rest = request_count - fits[-1]
    # A queue that never empties: the run answers clearly more requests per second than any batch that they fill.
    is_faster = _CLEAR_GAIN * padded_s < request_count * min(latency.batch_s(size) / size for size in fits)
    # One that comes as the run begins, and is in the next such run, is not answered later than behind filled batches.
    is_soon = 2 * padded_s <= filled_s(latency, request_count, allowed_sizes) + lone_s
    # One that comes too late for the run, and runs alone, does not cost more than it would together with the rest.
    is_even = padded_s + lone_s <= latency.batch_s(fits[-1]) + filled_s(latency, rest + 1, allowed_sizes)
    return padded if is_faster and is_soon and is_even else None


def filled_s(latency: LatencyTable, request_count: int, allowed_sizes: Sequence[int]) -> float:
    """Seconds to run `request_count` requests in the largest batches they fill, none padded."""
    total_s = 0.0
    left = request_count
    for size in reversed(allowed_sizes):
        if left >= size:
            total_s += (left // size) * latency.batch_s(size)
            left %= size
    return total_s


def drain_s(latency: LatencyTable, request_count: int, allowed_sizes: Sequence[int]) -> float:
    """Seconds to run `request_count` requests: the largest batches they fill, the last one padded where that pays."""
    total_s = 0.0
    left = request_count
    for size in reversed(allowed_sizes):
        if left >= size:
            padded = padded_size(latency, left, allowed_sizes)
            if padded is not None:
                return total_s + latency.batch_s(padded)
            total_s += (left // size) * latency.batch_s(size)
            left %= size
    return total_s


def reach_s(latency: LatencyTable, position: int, allowed_sizes: Sequence[int]) -> float:
    """Seconds until the request at `position` of a queue is done, its own run included.

    It runs in the batches that those before it fill, or together with those behind it in one that is larger.
    """
    largest = allowed_sizes[-1]
    full, before = divmod(position, largest)
    own = next(size for size in allowed_sizes if size > before)
    alone_s = drain_s(latency, before + 1, allowed_sizes)
    return full * latency.batch_s(largest) + min(alone_s, latency.batch_s(own))
