"""Reads a picture or a depth from an ONNX file whose recipe says task: image; masks have outputs of that shape too."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from saccade.export.convert.tile_margin import UInt8Array, tile_margin
from saccade.export.errors import SourceError
from saccade.export.sources.onnx_colours import distance
from saccade.export.sources.onnx_fits import ensure_outputs_fit
from saccade.export.sources.onnx_pairs import words_of
from saccade.export.sources.onnx_signs import FileSigns, OutputSign, answers_to
from saccade.export.sources.onnx_vectors import only_output
from saccade.export.sources.onnx_words import FileWords, OutputWords
from saccade.models.contract.specs import PictureKind, PreprocessSpec, Task, TaskSpec

DEPTH_WORDS = frozenset(("depth", "depths", "disp", "disparity"))
_BYTES, _SIGNED = 8.0, -0.25  # numbers beyond them are no colours from 0 to 1, or overshoot at edges
_TILE = 256  # pixels, where the file takes any size


def picture(
    signs: FileSigns, outputs: tuple[OutputSign, ...], given: OutputWords, kind: PictureKind | None
) -> tuple[TaskSpec, int | None, OutputWords]:
    """The task, no class count, and the words completed. Raises SourceError where this is no picture of the input."""
    output = only_output(signs, outputs, "image")
    ensure_outputs_fit(signs, outputs, Task.IMAGE, None)
    words = given.model_copy(update={"names": (output.tensor.name,)})
    channels, height, width = _sides(output)
    if height is None or width is None:
        raise SourceError(f"{signs.file}: {output} has no size; export it for pictures of a fixed size")
    kind = kind or _kind(signs, output, channels)
    if (kind == "rgb") != (channels == 3):
        raise SourceError(f"{signs.file}: {output} has {channels} channels, and the recipe says `picture: {kind}`")
    if kind == "depth":
        return TaskSpec(task=Task.IMAGE, picture=kind), None, words
    scale = width // signs.probed[0]
    if not scale or (width, height) != (signs.probed[0] * scale, signs.probed[1] * scale):
        raise SourceError(
            f"{signs.file}: {output} is no whole number of times as large as its pictures of {signs.probed[0]}x"
            f"{signs.probed[1]}: networks that keep a picture's size, or enlarge it 2 to 8 times, are served"
        )
    return (
        TaskSpec(task=Task.IMAGE, picture=kind, scale=scale, values=_values(output, signs.pictures, scale)),
        None,
        words,
    )


def picture_pixels(
    path: Path, signs: FileSigns, words: FileWords, spec: TaskSpec, found: PreprocessSpec | None
) -> tuple[PreprocessSpec, str]:
    """Tiles where a pixel depends on its surroundings alone; else pictures are resized, as `stretch` does it.

    Also returns a sentence for colours that are resized, since answers lose what is finer; empty for others.
    """
    if found is None:
        found = PreprocessSpec(width=_TILE, height=_TILE, fit="stretch")
    if spec.picture == "depth":
        return found, ""
    index = next(
        number for number, each in enumerate(signs.outputs) if each.tensor.name == (words.outputs.names or ("",))[0]
    )
    low, high = spec.values

    def answer(images: UInt8Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        values = answers_to(path, signs, words, images)[index]
        is_last = values.ndim == 4 and values.shape[3] in (1, 3)
        planes = values if is_last or values.ndim == 3 else values.transpose(0, 2, 3, 1)
        return np.asarray((planes - low) / (high - low), np.float32)

    margin = tile_margin(answer, found.width, found.height, spec.scale, is_depth=False)
    if 4 * margin <= min(found.width, found.height):
        return found.model_copy(update={"fit": "tile"}), ""
    size = f"{found.width}x{found.height}"
    return found, (
        f"pictures are resized to {size}, because far pixels are seen: what lies half a tile away changes answers. "
        "Export the network for larger pictures to keep more of them"
    )


def _sides(output: OutputSign) -> tuple[int, int | None, int | None]:
    """Channels, height and width."""
    shape = output.shape
    if len(shape) == 2:
        return 1, shape[0], shape[1]
    if shape[0] in (1, 3):
        return shape[0], shape[1], shape[2]
    if shape[2] in (1, 3):
        return shape[2], shape[0], shape[1]
    raise SourceError(f"{output} has {shape[0]} channels: a picture has three, and greys and depths have one")


def _kind(signs: FileSigns, output: OutputSign, channels: int) -> PictureKind:
    """Raises SourceError for one channel without a name: it may be greys as well as depths."""
    if channels == 3:
        return "rgb"
    if DEPTH_WORDS & set(words_of(output.tensor.name)):
        return "depth"
    raise SourceError(
        f"{signs.file}: {output} may be greys or depths: write `task: {{task: image, picture: grey}}` or `task: "
        "{task: image, picture: depth}`"
    )


def _values(output: OutputSign, pictures: UInt8Array, scale: int) -> tuple[float, float]:
    """What black and white are, by what the file answered to some pictures.

    Networks that sharpen answer below black and above white too, so negative numbers alone do not say that black is -1:
    then the reading is taken in which answers are nearer to the pictures.
    """
    if output.values is None:
        return (0.0, 1.0)
    if float(output.values.max()) > _BYTES:
        return (0.0, 255.0)
    if float(output.values.min()) >= _SIGNED:
        return (0.0, 1.0)
    sent = (pictures / np.float32(255.0)).repeat(scale, 1).repeat(scale, 2).mean(3)
    channels, *_ = _sides(output)
    axis = 1 if output.values.ndim == 4 and output.values.shape[1] == channels else 3
    found = output.values.mean(axis) if output.values.ndim == 4 else output.values
    return min((0.0, 1.0), (-1.0, 1.0), key=lambda read_as: distance(found, read_as, sent))
