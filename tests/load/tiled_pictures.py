"""How a server's answers in tiles differ from the same file's answer to the whole picture, by the picture's size.

    saccade serve --repository repository
    python -m tests.load.tiled_pictures http://127.0.0.1:8000 repository/scenes-super-resolution/1

Pictures are digit scenes side by side, reduced by the network's scale. The whole picture goes through the served
variant's file with the sides of its input changed, which networks of convolutions allow. Where a picture is smaller
than a tile, the tile holds it mirrored beyond its border, where the network alone pads: so the share is also given
without pixels as near as the margin to such a border, and for those pixels how near both are to the truth.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import numpy_helper
from PIL import Image

from saccade.client import Client, ProducedPicture
from saccade.models.contract.manifest import Manifest, read_manifest
from saccade.models.contract.specs import PreprocessSpec
from saccade.models.digits.digit_scenes import SCENE_SIZE, Split, decode_rgb, scene_sample
from saccade.models.metrics.picture_quality import psnr
from saccade.models.metrics.worse_pictures import worse_picture
from saccade.service.vision.produced import levels
from saccade.service.vision.tiles import tile_grid
from tests.support.server import call_saccade

UInt8Array = NDArray[np.uint8]
_SIZES = ("40x24", "127x129", "131x97", "333x257", "1023x767", "1920x1080")
_SEED = 29


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("version", type=Path, help="the served version's folder: repository/model/version")
    parser.add_argument("--sizes", nargs="+", default=_SIZES)
    options = parser.parse_args()
    manifest, _ = read_manifest(options.version)
    inner, borders = "inside of mirrored borders", "dB at them: served, whole"
    columns = ("picture, variant", "tiles", "s", "within a level", inner, borders, "without a server")
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    with Client(options.url) as client:
        for size in options.sizes:
            width, height = map(int, size.split("x"))
            print(f"| {size}, {_row(client, options.version, manifest, width, height)} |", flush=True)


def _row(client: Client, version: Path, manifest: Manifest, width: int, height: int) -> str:
    spec, scale = manifest.preprocess, manifest.task.scale
    truth = digit_picture(width * scale, height * scale)
    pixels = worse_picture(truth, scale, 0.0, b"")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    start_s = time.perf_counter()
    found = client.predict(file.getvalue(), model=manifest.model, version=version.name, deadline_ms=60_000.0)
    seconds = time.perf_counter() - start_s
    assert isinstance(found, ProducedPicture)
    variant = manifest.variant(found.served.variant)
    assert variant is not None
    whole = untiled(version / variant.file, spec, pixels)
    is_near = np.abs(found.pixels.astype(np.int16) - whole) <= 1
    border = ~_inside(width, height, spec, scale)
    levels_off = (each[border].astype(np.float64) - truth[border] for each in (found.pixels, whole))
    decibels = [psnr(each / 255.0, np.zeros(())) for each in levels_off] if border.any() else []
    same = "equal" if (_alone(version, variant.name, file.getvalue()) == found.pixels).all() else "DIFFERENT"
    cells = (
        f"{variant.name} | {tile_grid(width, height, spec).count} | {seconds:.2f} | {is_near.mean():.4%}",
        f"{is_near[~border].mean():.4%}" if not border.all() else "-",
        ", ".join(f"{each:.2f}" for each in decibels) or "-",
        same,
    )
    return " | ".join(cells)


def digit_picture(width: int, height: int) -> UInt8Array:
    """Digit scenes side by side, (height, width, 3)."""
    across, down = -(-width // SCENE_SIZE), -(-height // SCENE_SIZE)
    scenes = [decode_rgb(scene_sample(Split.TEST, _SEED, index).jpeg) for index in range(across * down)]
    rows = [np.concatenate(scenes[row * across : (row + 1) * across], axis=1) for row in range(down)]
    return np.concatenate(rows)[:height, :width]


def untiled(file: Path, spec: PreprocessSpec, pixels: UInt8Array) -> UInt8Array:
    """The file's answer to a picture of any size: every pair of its input's sides among its constants is replaced."""
    model = onnx.load(file)
    height, width = pixels.shape[:2]
    for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim[1:3], (height, width), strict=True):
        dimension.dim_value = side
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    for constant in model.graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype == np.int64 and values.ndim == 1 and values[-2:].tolist() == [spec.height, spec.width]:
            constant.CopyFrom(numpy_helper.from_array(np.array([*values[:-2], height, width]), constant.name))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (answer,) = session.run(["image"], {session.get_inputs()[0].name: pixels[np.newaxis]})
    return levels(answer[0])


def _inside(width: int, height: int, spec: PreprocessSpec, scale: int) -> NDArray[np.bool_]:
    """Which pixels of the answer lie farther than the margin from where a tile goes on mirrored."""
    margin = spec.margin or 0
    ends = [side - margin if side < tile else side for side, tile in ((height, spec.height), (width, spec.width))]
    inside = np.zeros((height * scale, width * scale), np.bool_)
    inside[: max(0, ends[0]) * scale, : max(0, ends[1]) * scale] = True
    return inside


def _alone(version: Path, variant: str, file: bytes) -> UInt8Array:
    """What `saccade predict --repository` answers."""
    with tempfile.NamedTemporaryFile(suffix=".png") as picture:
        picture.write(file)
        picture.flush()
        where = ("--repository", str(version.parents[1]), "--model", version.parent.name, "--version", version.name)
        ended = call_saccade("predict", *where, "--parameter", f"variant={variant}", "--json", picture.name)
    answer = json.loads(ended.stdout)["prediction"]["image"]["base64"]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(answer))))


if __name__ == "__main__":
    main()
