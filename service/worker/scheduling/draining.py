"""Computes from the latency table how long a queue takes on a device, and when padding a batch shortens that."""

from __future__ import annotations

from collections.abc import Sequence

from saccade.service.worker.scheduling.latency_model import LatencyTable

_CLEAR_GAIN = 1.1  # run times are known to within some percent, so a smaller gain may be a loss


def padded_size(latency: LatencyTable, request_count: int, allowed_sizes: Sequence[int]) -> int | None:
    """Returns the allowed size to which these requests should be padded; None where filling batches is better.

    It is not enough that the padded run ends before the filled batches do: the first of those ends even sooner, and the
    later ones take new requests. So a padded run must pass three comparisons.
    """
    if request_count in allowed_sizes or request_count > allowed_sizes[-1]:
        return None
    padded = min((size for size in allowed_sizes if size > request_count), key=latency.batch_s)
    padded_s, lone_s = latency.batch_s(padded), latency.batch_s(1)
    fits = [size for size in allowed_sizes if size < request_count]
    rest = request_count - fits[-1]
    # With a queue that is never empty, the run answers clearly more requests per second than any filled batch.
    is_faster = _CLEAR_GAIN * padded_s < request_count * min(latency.batch_s(size) / size for size in fits)
    # A request that arrives as the run begins, and joins the next such run, is not answered later than otherwise.
    is_soon = 2 * padded_s <= filled_s(latency, request_count, allowed_sizes) + lone_s
    # A request that misses the run, and then runs alone, costs no more than it would together with the others.
    is_even = padded_s + lone_s <= latency.batch_s(fits[-1]) + filled_s(latency, rest + 1, allowed_sizes)
    return padded if is_faster and is_soon and is_even else None


def filled_s(latency: LatencyTable, request_count: int, allowed_sizes: Sequence[int]) -> float:
    """Returns the seconds to run `request_count` requests in the largest batches that they fill, without padding."""
    total_s = 0.0
    left = request_count
    for size in reversed(allowed_sizes):
        if left >= size:
            total_s += (left // size) * latency.batch_s(size)
            left %= size
    return total_s


def drain_s(latency: LatencyTable, request_count: int, allowed_sizes: Sequence[int]) -> float:
    """Returns the seconds to run `request_count` requests in batches, the last one padded where that is faster."""
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
    """Returns the seconds until the request at `position` of a queue is done, with its own run.

    The request runs in the batches that those before it fill, or in a larger one with those behind it.
    """
    largest = allowed_sizes[-1]
    full, before = divmod(position, largest)
    own = next(size for size in allowed_sizes if size > before)
    alone_s = drain_s(latency, before + 1, allowed_sizes)
    return full * latency.batch_s(largest) + min(alone_s, latency.batch_s(own))
