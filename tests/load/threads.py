"""How threads and spinning change what these cores can do: `python -m tests.load.threads --repository DIR`.

The limit (decode, resize and inference in one process) with one or all intra-op threads, with and without busy waiting,
and with a session of one thread per core, each with batches of its own. All forms take turns; medians.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from rich.console import Console
from rich.table import Table

from saccade.models.contract.preprocessing import preprocess_into
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.backends.requests import load_request
from saccade.service.settings import core_count
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from tests.load.bench import Served, newest, photographs
from tests.load.limit import Limit

_SECONDS = 2.0


def apart(served: Served, bodies: list[bytes], cores: int) -> float:
    """Images per second of one session per core, each decoding for itself."""
    size = served.manifest.allowed_batch_sizes[-1]
    backends = [_backend(served, 1, spinning=False) for _ in range(cores)]
    counts = [0] * cores
    until_s = time.perf_counter() + _SECONDS

    def work(index: int) -> None:
        rows = np.zeros((size, *served.manifest.input.shape), np.uint8)
        while time.perf_counter() < until_s:
            for place, row in enumerate(rows):
                pixels = decode_image(bodies[(counts[index] + place) % len(bodies)], ImageLimits())
                preprocess_into(pixels, served.manifest.preprocess, row)
            backends[index].infer(rows)
            counts[index] += size

    threads = [threading.Thread(target=work, args=(index,)) for index in range(cores)]
    start_s = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - start_s)


def together(served: Served, bodies: list[bytes], cores: int, threads: int, *, spinning: bool) -> float:
    """Images per second of the limit with one session."""
    limit = Limit(served.path, served.manifest, served.variant, cores, _backend(served, threads, spinning=spinning))
    try:
        found = limit.images_per_s(bodies, _SECONDS)
    finally:
        limit.close()
    return max(found["turns"], found["overlapped"])


def _backend(served: Served, threads: int, *, spinning: bool) -> OnnxRuntimeBackend:
    request = load_request(
        served.path,
        served.manifest,
        served.variant.name,
        device="cpu",
        threads=threads,
        allow_spinning=spinning,
    )
    return OnnxRuntimeBackend(request)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=Path, action="append", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    cores, bodies = core_count(), photographs()
    table = Table("model", "variant", "one thread", "all threads", "all, spinning", f"{cores} sessions of one")
    for served in (each for repository in arguments.repository for each in newest(repository)):
        forms: list[Callable[[], float]] = [
            lambda served=served: together(served, bodies, cores, 1, spinning=False),  # type: ignore[misc]
            lambda served=served: together(served, bodies, cores, cores, spinning=False),  # type: ignore[misc]
            lambda served=served: together(served, bodies, cores, cores, spinning=True),  # type: ignore[misc]
            lambda served=served: apart(served, bodies, cores),  # type: ignore[misc]
        ]
        rates = [[form() for form in forms] for _ in range(arguments.rounds)]
        medians = [f"{median(column):.0f}" for column in zip(*rates, strict=True)]
        table.add_row(served.manifest.model, served.variant.name, *medians)
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
