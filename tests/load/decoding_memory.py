"""Measures how much memory the decoding of each kind of picture takes: `python -m tests.load.decoding_memory`.

Each kind is decoded once in a process of its own; the figure is the growth of its resident memory, in bytes per pixel.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from saccade.service.vision.decoding_cost import decoding_cost
from saccade.service.vision.image_decoder import ImageLimits, read_image

SIDE = 5000
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {  # mode, format and options of Pillow
    "JPEG": ("RGB", "JPEG", {}),
    "JPEG, turned": ("RGB", "JPEG", {"exif": 6}),
    "JPEG, progressive": ("RGB", "JPEG", {"progressive": True}),
    "JPEG, progressive 4:4:4": ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    "JPEG, CMYK": ("CMYK", "JPEG", {}),
    "PNG": ("RGB", "PNG", {"compress_level": 1}),
    "PNG, transparent": ("RGBA", "PNG", {"compress_level": 1}),
    "PNG, palette": ("P", "PNG", {"compress_level": 1}),
    "PNG, turned": ("RGBA", "PNG", {"compress_level": 1, "exif": 6}),
    "WebP, turned": ("RGBA", "WEBP", {"quality": 20, "method": 0, "exif": 6}),
    "WebP": ("RGB", "WEBP", {"quality": 20, "method": 0}),
    "WebP, transparent": ("RGBA", "WEBP", {"quality": 20, "method": 0}),
    "WebP, lossless": ("RGB", "WEBP", {"lossless": True, "method": 0}),
    "BMP": ("RGB", "BMP", {}),
}


def main() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    picture = Image.fromarray(noise).resize((SIDE, SIDE))
    with tempfile.TemporaryDirectory() as folder:
        for name, (mode, image_format, options) in KINDS.items():
            path = Path(folder, "picture")
            if "exif" in options:
                exif = Image.Exif()
                exif[0x0112] = options["exif"]
                options = options | {"exif": exif}
            picture.convert(mode).save(path, image_format, **options)
            measured = subprocess.run(
                [sys.executable, "-m", __spec__.name, str(path)], capture_output=True, text=True, check=True
            )
            bound = decoding_cost(path.read_bytes(), SIDE * SIDE).memory_bytes / (SIDE * SIDE)
            print(f"{name:24} {float(measured.stdout):5.1f} bytes per pixel, counted as {bound:.0f}")


def measure(path: Path) -> None:
    """Prints the growth while this process decodes the file."""
    data = path.read_bytes()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = _status("VmRSS")
    pixels = read_image(data, ImageLimits()).pixels
    print((_status("VmHWM") - before) / (pixels.shape[0] * pixels.shape[1]))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    measure(Path(sys.argv[1])) if len(sys.argv) > 1 else main()
