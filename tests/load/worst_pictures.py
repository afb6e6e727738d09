"""Searches pictures that cost most to decode: `python -m tests.load.worst_pictures --minutes 60`.

Pictures of every kind the server takes are written with drawn sizes, contents and options; the worst ones are varied
further. Each is decoded in a process of its own. Told are the seconds of processor time per megabyte sent (a picture
below one megabyte counts as one) and the memory that decoding took, and what both were. Exit code 1: above 0.5 s a
megabyte, or above 256 MiB.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from PIL import Image

from saccade.service.errors import SaccadeError
from saccade.service.settings import Settings
from saccade.service.vision.image_decoder import ImageLimits, read_image

MOST_S_PER_MB, MOST_MIB = 0.5, 256.0
_LIMITS = ImageLimits(Settings.model_fields["max_pixels"].default)
_KINDS = ("JPEG", "JPEG progressive", "JPEG CMYK", "PNG", "PNG palette", "PNG 16 bit", "WEBP", "WEBP lossless", "BMP")
_CONTENTS = ("flat", "gradient", "noise", "blocks")
_NEW_SHARE = 0.4  # of all tries; the others vary the worst so far
_MB, _MIB = 1e6, 2**20


@dataclass(frozen=True, slots=True)
class Recipe:
    kind: str
    width: int
    height: int
    content: str
    quality: int  # also the compression of a PNG
    orientation: int

    def __str__(self) -> str:
        size = f"{self.width}x{self.height}"
        return f"{self.kind} {size}, {self.content}, quality {self.quality}, orientation {self.orientation}"


@dataclass(frozen=True, slots=True)
class Cost:
    sent_bytes: int
    cpu_s: float
    mib: float

    @property
    def s_per_mb(self) -> float:
        return self.cpu_s / max(1.0, self.sent_bytes / _MB)


def drawn(random: np.random.Generator) -> Recipe:
    pixels = int(_LIMITS.max_pixels * random.uniform(0.02, 1.0))
    width = int(np.clip(np.sqrt(pixels) * random.choice([0.1, 1.0, 1.0, 4.0]), 16, 16_000))
    kind, content = (str(random.choice(names)) for names in (_KINDS, _CONTENTS))
    quality, orientation = int(random.integers(1, 96)), int(random.integers(1, 9))
    return Recipe(kind, width, min(16_000, max(16, pixels // width)), content, quality, orientation)


def varied(recipe: Recipe, random: np.random.Generator) -> Recipe:
    other = drawn(random)
    name = str(random.choice(["kind", "content", "quality", "orientation", "width"]))
    changed = replace(recipe, **{name: getattr(other, name)})
    return replace(changed, height=max(16, min(16_000, _LIMITS.max_pixels // changed.width)))


def written(recipe: Recipe, random: np.random.Generator) -> bytes:
    shape = (recipe.height, recipe.width, 3)
    match recipe.content:
        case "flat":
            pixels = np.full(shape, 90, np.uint8)
        case "gradient":
            pixels = np.broadcast_to((np.arange(recipe.width) % 256).astype(np.uint8)[None, :, None], shape)
        case "noise":
            pixels = np.resize(random.integers(0, 256, (512, recipe.width, 3), np.uint8), shape)
        case _:
            pixels = np.resize(random.integers(0, 256, (64, 64, 3), np.uint8).repeat(8, 0).repeat(8, 1), shape)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    exif = Image.Exif()
    exif[0x0112] = recipe.orientation
    out = io.BytesIO()
    match recipe.kind.split():
        case ["JPEG", *kind]:
            image = image.convert("CMYK") if kind == ["CMYK"] else image
            image.save(out, "JPEG", quality=recipe.quality, progressive=kind == ["progressive"], exif=exif)
        case ["PNG", *kind]:
            if kind:
                image = image.convert("P") if kind == ["palette"] else image.convert("L").convert("I;16")
            image.save(out, "PNG", compress_level=1 + recipe.quality % 9, exif=exif)
        case ["WEBP", *kind]:
            image.save(out, "WEBP", quality=recipe.quality, method=0, lossless=bool(kind), exif=exif)
        case _:
            image.save(out, "BMP")
    return out.getvalue()


def _decode(data: bytes, result: Connection) -> None:
    warnings.simplefilter("ignore")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before, start_s = _status("VmRSS"), time.process_time()
    with suppress(SaccadeError):  # a refusal costs, too
        read_image(data, _LIMITS)
    result.send((time.process_time() - start_s, (_status("VmHWM") - before) / _MIB))


def cost_of(data: bytes) -> Cost:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_decode, args=(data, theirs))
    child.start()
    theirs.close()
    cpu_s, mib = ours.recv()
    child.join()
    return Cost(len(data), cpu_s, mib)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def searched(seconds: float, seed: int) -> tuple[int, dict[str, tuple[Recipe, Cost]]]:
    """How many were tried, and the worst by figure."""
    random, worst, count = np.random.default_rng(seed), dict[str, tuple[Recipe, Cost]](), 0
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        known = list(worst.values())
        is_new = not known or random.random() < _NEW_SHARE
        recipe = drawn(random) if is_new else varied(known[random.integers(len(known))][0], random)
        try:
            cost = cost_of(written(recipe, random))
        except (OSError, ValueError):  # Pillow does not write it, such as a WebP of too many pixels
            continue
        count += 1
        for figure in ("s_per_mb", "mib"):
            if figure not in worst or getattr(cost, figure) > getattr(worst[figure][1], figure):
                worst[figure] = recipe, cost
    return count, worst


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.load.worst_pictures", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    count, worst = searched(60 * given.minutes, given.seed)
    print(f"{count} pictures tried")
    for recipe, cost in worst.values():
        sent = f"{cost.sent_bytes / _MB:.2f} MB"
        print(f"{cost.s_per_mb:.2f} s a MB ({cost.cpu_s:.2f} s), {cost.mib:.0f} MiB, {sent}: {recipe}")
    is_kept = worst["s_per_mb"][1].s_per_mb <= MOST_S_PER_MB and worst["mib"][1].mib <= MOST_MIB
    return int(not is_kept)


if __name__ == "__main__":
    sys.exit(main())
