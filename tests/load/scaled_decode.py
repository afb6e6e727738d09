"""What DCT-scaled decoding would cost in fidelity: `python -m tests.load.scaled_decode`, a minute.

libjpeg-turbo can decode to half, a quarter or an eighth of the size, far cheaper than the whole. The server would use
it where the model input then has 99.9 % of its pixels within one level of the whole way. This prints how far it is.
"""

from __future__ import annotations

import io
from collections import defaultdict
from itertools import product

import numpy as np
import simplejpeg
from PIL import Image
from rich.console import Console
from rich.table import Table

from saccade.export.data.fidelity import photograph
from saccade.models.contract.resampling import Window, resized_part

_SOURCES = ((1599, 1065), (2047, 1535), (3001, 2003), (1281, 719), (4000, 3000), (799, 1201))  # width, height
_SIDES = (64, 224)
_KINDS = ("bilinear", "bicubic")
_LEAST_ROOM = 1.5  # decoded size over input size; below, the resize would have nothing to average


def shares() -> dict[tuple[str, int], list[float]]:
    """Shares of pixels within one level, by resize and whole part of the room that was left."""
    found: dict[tuple[str, int], list[float]] = defaultdict(list)
    for (width, height), chroma in product(_SOURCES, (0, 2)):  # Pillow's names of 4:4:4 and 4:2:0
        buffer = io.BytesIO()
        Image.fromarray(photograph(width, height, width)).save(buffer, "JPEG", quality=90, subsampling=chroma)
        whole = simplejpeg.decode_jpeg(buffer.getvalue(), colorspace="RGB")
        for kind, side, factor in product(_KINDS, _SIDES, (2, 4, 8)):
            scaled = simplejpeg.decode_jpeg(
                buffer.getvalue(),
                colorspace="RGB",
                min_height=height // factor,
                min_width=width // factor,
                min_factor=2,
            )
            room = min(scaled.shape[:2]) / side
            if room >= _LEAST_ROOM:
                ways = [
                    resized_part(pixels, (side, side), Window(0, 0, side, side), kind, True)
                    for pixels in (whole, scaled)
                ]
                difference = np.abs(ways[0].astype(int) - ways[1]).max(axis=2)
                found[kind, int(room)].append(float((difference <= 1).mean()))
    return found


def main() -> None:
    table = Table("resize", "decoded / input size", "cases", "worst share within one level", "median")
    for (kind, room), found in sorted(shares().items()):
        table.add_row(kind, f"{room} to {room + 1}", str(len(found)), f"{min(found):.4f}", f"{np.median(found):.4f}")
    Console().print(table)


if __name__ == "__main__":
    main()
