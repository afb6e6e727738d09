"""Speed and memory of `saccade-export check`: `python -m tests.load.data_check --images 2000 10000`.

Writes pictures of 500 x 375 (38 KB, JPEG) in three splits, checks them in a process of its own, and prints images per
second and peak resident memory for each number. Exit 1 below `--least` images/s, or when memory grows by more than
`--growth-kib` per image.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tests.support.data_folders import LABELS, encoded

_CHECK = """
import resource, sys
from pathlib import Path
from saccade.models.contract.specs import Task
from tests.support.data_folders import checked
used = resource.getrusage(resource.RUSAGE_SELF)
before = used.ru_utime + used.ru_stime
report = checked(Path(sys.argv[1]), Task.CLASSIFY)
assert not report.complaints, report.complaints
images = sum(split.images for split in report.splits)
used = resource.getrusage(resource.RUSAGE_SELF)
print(images, report.seconds, used.ru_maxrss, used.ru_utime + used.ru_stime - before)
"""
_SHARES = (("calibration", 0.2), ("tuning", 0.2), ("test", 0.6))


@dataclass(frozen=True, slots=True)
class Measured:
    images: int
    seconds: float
    peak_kib: int
    processor_s: float  # of all threads, which a busy machine changes less than the time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 10000])
    parser.add_argument("--least", type=float, default=500.0)
    parser.add_argument("--growth-kib", type=float, default=10.0)
    arguments = parser.parse_args()
    found = [_measured(count) for count in sorted(arguments.images)]
    for each in found:
        print(
            f"{each.images:6} images  {each.images / each.seconds:6.0f} /s  "
            f"{each.processor_s / each.images * 1000:5.2f} ms of a core each  peak {each.peak_kib / 1024:5.0f} MiB"
        )
    growth = (found[-1].peak_kib - found[0].peak_kib) / max(1, found[-1].images - found[0].images)
    print(f"memory grows by {growth:.1f} KiB per image")
    slowest = min(each.images / each.seconds for each in found)
    sys.exit(slowest < arguments.least or growth > arguments.growth_kib)


def _measured(count: int) -> Measured:
    with tempfile.TemporaryDirectory() as scratch:
        _write(Path(scratch) / "pictures", count)
        command = [sys.executable, "-c", _CHECK, str(Path(scratch) / "pictures")]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return Measured(int(words[0]), float(words[1]), int(words[2]), float(words[3]))


def _write(root: Path, count: int) -> None:
    """All pictures differ: coloured patches that are drawn anew, with noise from a common stock."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 14, (375, 500, 3))
    number = 0
    for split, share in _SHARES:
        for index in range(round(share * count)):
            small = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8))
            patches = np.asarray(small.resize((500, 375), Image.Resampling.BILINEAR))
            pixels = (patches + np.roll(noise, number, axis=1)).clip(0, 255).astype(np.uint8)
            path = root / split / LABELS[index % len(LABELS)] / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(Image.fromarray(pixels), "JPEG", quality=75))
            number += 1


if __name__ == "__main__":
    main()
