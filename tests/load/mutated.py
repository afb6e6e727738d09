"""Mutated pictures through the server's decoder: `python -m tests.load.mutated`; exit code 1 for a crash.

Every file is one of the odd pictures of the tests with bytes changed, cut off, put in, or spliced with another. It must
become pixels or a refusal. A child process decodes, so that what ends a process is found and named by its seed.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
from PIL import Image

from saccade.service.errors import BadImage, PayloadTooLarge, UnsupportedMedia
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from tests.support.odd_pictures import REFUSED, TAKEN

_LIMITS = ImageLimits(max_pixels=100_000)
_PORTION = 1000  # files of one seed


def mutated(base: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """One file that is not quite a picture."""
    data = bytearray(base)
    match random.integers(4):
        case 0:  # some bytes are others
            for position in random.integers(len(data), size=random.integers(1, 12)):
                data[position] = random.integers(256)
        case 1:  # the end is missing
            del data[random.integers(1, len(data)) :]
        case 2:  # something stands between
            position = random.integers(len(data))
            data[position:position] = random.bytes(int(random.integers(1, 64)))
        case _:  # it goes on as another file
            data = data[: random.integers(1, len(data))] + bytearray(other[random.integers(len(other)) :])
    return bytes(data)


def portion(seed: int, count: int) -> tuple[Counter[str], float, str, int]:
    """(how files ended, seconds of CPU of the slowest, what that is, most bytes that this process ever had)."""
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    warnings.simplefilter("ignore", UserWarning)
    random = np.random.default_rng(seed)
    bases = [data for data, _ in TAKEN.values()] + [data for data, _ in REFUSED.values()]
    ends: Counter[str] = Counter()
    names = [*TAKEN, *REFUSED]
    slowest_s, slowest = 0.0, ""
    for number in range(count):
        first, second = random.integers(len(bases), size=2)
        data = mutated(bases[first], bases[second], random)
        start_s = time.process_time()  # what other programs take of the machine is not the picture's
        try:
            decode_image(data, _LIMITS)
            ends["pixels"] += 1
        except (BadImage, PayloadTooLarge, UnsupportedMedia):
            ends["refused"] += 1
        except Exception as error:  # what the command is looking for
            ends[f"{type(error).__name__}: seed {seed}"] += 1
        took_s = time.process_time() - start_s
        if took_s > slowest_s:
            slowest_s, slowest = took_s, f"file {number} of seed {seed}, of {names[first]!r}"
    return ends, slowest_s, slowest, 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description="Decodes mutated pictures.")
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="no further portion is begun after so long")
    given = parser.parse_args()
    total: Counter[str] = Counter()
    slowest, peaks, start_s, context = (0.0, ""), list[int](), time.monotonic(), multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(ProcessPoolExecutor(1, context))
        for seed in range(0, given.files, _PORTION):
            if time.monotonic() - start_s > given.seconds:
                break
            try:
                ends, took_s, what, peak = pool.submit(portion, seed, min(_PORTION, given.files - seed)).result()
            except BrokenProcessPool:
                total[f"process ended: seed {seed}"] += 1
                pool = stack.enter_context(ProcessPoolExecutor(1, context))
                continue
            total += ends
            slowest = max(slowest, (took_s, what))
            peaks.append(peak)
    for end, count in sorted(total.items()):
        print(f"{end:22} {count}")
    taken = total["pixels"] + total["refused"]
    print(f"{taken} files as they should, the slowest in {1000 * slowest[0]:.0f} ms of CPU: {slowest[1]}")
    if peaks:
        print(f"a process took {min(peaks) / 2**20:.0f} to {max(peaks) / 2**20:.0f} MiB")
    sys.exit(0 if set(total) <= {"pixels", "refused"} else 1)


if __name__ == "__main__":
    main()
