"""Times variants of a version in turns; `variant_speeds.py` runs this module as a program.

It reads a `Comparison` as JSON from standard input and writes `ComparedHere` to standard output.
"""

from __future__ import annotations

import sys
import timeit
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from saccade.models.contract.manifest import read_manifest
from saccade.models.contract.paired_speed import MIN_ROUNDS
from saccade.service.backends.base import UInt8Array
from saccade.service.backends.registry import backend_name, load_backend
from saccade.service.backends.requests import load_request, variant_named
from saccade.service.errors import RepositoryError
from saccade.service.paired_timing import ROUNDS, Run, TimingLimits, pairs_of, reason_of, timed_in_turns
from saccade.service.supervisor.tuning.program import order_from_parent
from saccade.service.supervisor.tuning.variant_speeds import ComparedHere, Comparison

_TURNS = 5
_AIMED_RUNS = 2 * MIN_ROUNDS + 2  # with warm-up; more than an interval needs, because a busy machine takes longer


def compare(order: Comparison) -> ComparedHere:
    """Times the variants at batch size one and at the largest that the budget allows. Raises RepositoryError."""
    version_dir = Path(order.version_dir)
    manifest, found = read_manifest(version_dir)
    if found != order.manifest_sha256:
        raise RepositoryError("the manifest changed after it was verified")

    @contextmanager
    def runs_of(name: str, sizes: tuple[int, ...]) -> Iterator[list[Run]]:
        request = load_request(
            version_dir,
            manifest,
            name,
            device="cpu",
            threads=order.threads,
            allow_spinning=order.allow_spinning,
            batch_sizes=sizes,
        )
        with closing(load_backend(backend_name(variant_named(manifest, name), "auto"), request)) as backend:
            yield [partial(backend.infer, noise(size)) for size in sizes]

    def noise(size: int) -> UInt8Array:
        return np.random.default_rng(size).integers(0, 256, (size, *manifest.input.shape), np.uint8)

    lone_s = 0.0
    failures: dict[str, str] = {}
    for name in order.variants:
        try:
            with runs_of(name, (1,)) as (run,):
                lone_s += min(timeit.repeat(run, number=1, repeat=3))
        except Exception as error:  # runtimes raise whatever they like; the other variants are still timed
            failures[name] = reason_of(error)
    sizes = sizes_within(order.budget_s, lone_s, order.batch_sizes)
    runs = {name: partial(runs_of, name, sizes) for name in order.variants if name not in failures}
    block_s = order.budget_s / (ROUNDS * _TURNS * max(1, len(runs) * len(sizes)))
    timings = timed_in_turns(runs, TimingLimits(_TURNS, order.budget_s, block_s))
    return ComparedHere(pairs=pairs_of(timings, order.variants, "cpu", sizes), failures=failures | timings.failures)


def sizes_within(budget_s: float, image_s: float, batch_sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Batch size one, and the largest at which enough rounds fit; `image_s` is one image's time in all variants."""
    fitting = [size for size in batch_sizes if (batch_sizes[0] + size) * image_s * _AIMED_RUNS <= budget_s]
    return tuple(sorted({batch_sizes[0], max(fitting, default=batch_sizes[0])}))


def main() -> None:
    """Entry point of the child process."""
    order = Comparison.model_validate_json(order_from_parent())
    sys.stdout.write(compare(order).model_dump_json())


if __name__ == "__main__":
    main()
