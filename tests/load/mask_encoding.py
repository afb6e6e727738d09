"""`python -m tests.load.mask_encoding`: how long the event loop stands still while a thread renders large masks.

A mask of 1024 x 2048 with 19 classes becomes JSON in a thread, by the server's own function. Meanwhile the event loop
wakes each millisecond; how late it is at most is what another request would have waited. `nothing` is a thread that
never holds the interpreter's lock, for comparison. `smooth` is a mask with long borders, as of a street; `noise` has
speckles everywhere.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from statistics import median
from typing import cast, get_args

import numpy as np
import uvloop
from numpy.typing import NDArray
from PIL import Image

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import Task
from saccade.service.vision.answers import json_of
from saccade.service.vision.parameters import DeadlineRule, GivenParameters, complete
from saccade.service.vision.segmentation import MaskFormat
from tests.support.versions import manifest_for

_HEIGHT, _WIDTH, _CLASSES = 1024, 2048, 19
_PLACE = Geometry(_WIDTH, _HEIGHT, 0, 0, _WIDTH, _HEIGHT)
_TICK_S = 0.001


def masks() -> dict[str, NDArray[np.uint8]]:
    """Class ids (height, width)."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (_CLASSES, 12, 24), np.uint8)
    size = (_WIDTH, _HEIGHT)
    fields = [np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BICUBIC)) for field in coarse]
    smooth = np.argmax(np.stack(fields), axis=0).astype(np.uint8)
    speckled = random.integers(0, _CLASSES, smooth.shape, np.uint8)
    return {"smooth": smooth, "noise": np.where(random.random(smooth.shape) < 0.05, speckled, smooth)}


def manifest() -> Manifest:
    """A segmenter of that many classes."""
    small = manifest_for("segmenter", 1, Task.SEGMENT)
    labels = tuple(f"class {number}" for number in range(_CLASSES))
    return small.model_copy(
        update={
            "labels": labels,
            "task": small.task.model_copy(update={"class_count": _CLASSES, "background_id": None}),
        }
    )


async def paused(work: Callable[[], bytes], pool: ThreadPoolExecutor) -> tuple[float, float, int]:
    """Milliseconds of the work and of the loop's longest pause meanwhile, and the size of the result."""
    start_s = time.perf_counter()
    longest_s = 0.0
    running = asyncio.get_running_loop().run_in_executor(pool, work)
    while not running.done():
        before_s = time.perf_counter()
        await asyncio.sleep(_TICK_S)
        longest_s = max(longest_s, time.perf_counter() - before_s - _TICK_S)
    return 1000 * (time.perf_counter() - start_s), 1000 * longest_s, len(running.result())


def compressing() -> bytes:
    """A tenth of a second that never holds the interpreter's lock: its pauses are the machine's."""
    return zlib.compress(np.random.default_rng(0).bytes(4_000_000))


async def measure(rounds: int) -> None:
    served, rule = manifest(), DeadlineRule(10_000, 10_000)
    works: dict[str, Callable[[], bytes]] = {"nothing": compressing}
    for name, mask in masks().items():
        for mask_format in cast("tuple[MaskFormat, ...]", get_args(MaskFormat)):
            parameters = complete(GivenParameters(mask_format=mask_format), served, rule)
            works[f"{name} {mask_format}"] = partial(json_of, [mask], _PLACE, served, parameters)
    with ThreadPoolExecutor(1) as pool:
        for name, work in works.items():
            await paused(work, pool)
            found = [await paused(work, pool) for _ in range(rounds)]
            work_ms, pause_ms = (median(each[index] for each in found) for index in (0, 1))
            worst_ms = max(each[1] for each in found)
            print(
                f"{name:16} {work_ms:7.1f} ms, longest pause {pause_ms:5.1f} ms (most {worst_ms:.1f}), "
                f"{found[0][2]:,} bytes"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Pauses of the event loop while large masks are rendered.")
    parser.add_argument("--rounds", type=int, default=7)
    uvloop.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
