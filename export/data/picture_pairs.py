"""Pictures with the picture that a network should make of each: pairs of files, or clean pictures made worse here.

A part of the data is `input/NAME.png` beside `target/NAME.png`; for depth the target is a 16-bit PNG, in which 0 is
not known. Clean pictures alone are reduced by the network's scale, and noise of the stated strength is added: the same
noise to the same file, whenever it is read.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from saccade.export.data.findings import Findings
from saccade.export.data.found_files import pictures_below
from saccade.export.data.labelled_images import ImageSample
from saccade.export.errors import DataRefused
from saccade.models.contract.specs import TaskSpec
from saccade.models.metrics.picture_quality import can_judge_depth
from saccade.models.metrics.worse_pictures import worse_picture
from saccade.service.errors import SaccadeError
from saccade.service.vision.image_decoder import (
    UPRIGHT,
    USUAL_LIMITS,
    ImageLimits,
    decode_image,
    orientation_of,
    sample_bits,
)

_LEAST_SIDE = 11  # pixels; the window of structural similarity
_DEPTHS = ("I;16", "I;16B", "I", "L")
_QUARTER_TURNS = 5  # EXIF orientations from this one on exchange width and height
Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class PairTruth:
    """What makes a picture into an input and its target; target: None where the picture itself is the target."""

    spec: TaskSpec
    target: Path | None
    noise: float = 0.0  # levels

    def sample(self, path: Path, encoded: bytes, size: Size, limits: ImageLimits = USUAL_LIMITS) -> ImageSample:
        """Raises DataRefused for a target that cannot be read, or does not fit its picture."""
        if self.target is None:
            return made_pair(encoded, self.spec, self.noise, limits)
        try:
            sample = ImageSample(encoded, self.target.read_bytes())
        except OSError as error:
            raise DataRefused(f"{self.target} cannot be read: {error.strerror}") from error
        scale = self.spec.scale
        try:
            height, width = target_of(sample, self.spec, limits).shape[:2]
            _ensure_same_range(sample, self.spec)
        except DataRefused as error:
            raise DataRefused(f"{self.target} {error}") from error
        if (width, height) != (size[0] * scale, size[1] * scale):
            raise DataRefused(
                f"{self.target} is {width}x{height} and its picture {path} is {size[0]}x{size[1]}: with scale {scale} "
                f"a target of {size[0] * scale}x{size[1] * scale} belongs to it"
            )
        _ensure_large_enough(path, width, height)
        return sample


def pair_pictures(
    parts: Mapping[str, Path], spec: TaskSpec, noise: float, findings: Findings
) -> dict[str, list[tuple[Path, PairTruth]]]:
    """Lists each part's pictures. Raises DataRefused for another layout."""
    return {part: _pairs_in(root, spec, noise, findings) for part, root in parts.items()}


def has_targets(root: Path) -> bool:
    return (root / "target").is_dir()


def _pairs_in(root: Path, spec: TaskSpec, noise: float, findings: Findings) -> list[tuple[Path, PairTruth]]:
    inputs, targets = root / "input", root / "target"
    if inputs.is_dir() != targets.is_dir():
        raise DataRefused(f"{root} has one of the folders input and target: pairs of pictures need both")
    if not targets.is_dir():
        if spec.picture == "depth":
            raise DataRefused(f"{root} has no depths: write {root}/input/NAME.jpg and {root}/target/NAME.png, 16-bit")
        if spec.scale == 1 and not noise:
            raise DataRefused(
                f"{root} has no targets: write {root}/input/NAME.png and {root}/target/NAME.png, or for denoising "
                "`data: {path: ..., noise: 25}`, which adds noise of 25 levels to clean pictures"
            )
        return [(path, PairTruth(spec, None, noise)) for path in pictures_below(root, findings)]
    if noise:
        raise DataRefused(f"data.noise is for clean pictures, and {root} has pairs of pictures: leave it out")
    by_name: dict[str, Path] = {}
    for path in pictures_below(targets, findings):
        first = by_name.setdefault(_name(path, targets), path)
        if first != path:
            findings.complain("two targets", f"{first} and {path} are targets of one name: remove one of them")
    found = []
    for path in pictures_below(inputs, findings):
        target = by_name.pop(_name(path, inputs), None)
        if target is None:
            findings.complain("no target", f"{path} has no target: save it as {targets / _name(path, inputs)}.png")
        else:
            found.append((path, PairTruth(spec, target)))
    for target in by_name.values():
        findings.skip("a target without a picture", target)
    return found


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).with_suffix("").as_posix()


def made_pair(encoded: bytes, spec: TaskSpec, noise: float, limits: ImageLimits = USUAL_LIMITS) -> ImageSample:
    """A clean picture as the target, and what is made of it as the input. Raises DataRefused for one that is too small.

    The picture is cut to a multiple of the scale first, and reduced as Pillow's bicubic filter does it.
    """
    try:
        clean = decode_image(encoded, limits)
    except SaccadeError as error:
        raise DataRefused(f"a picture would be refused when served: {error}") from error
    scale = spec.scale
    height, width = (side - side % scale for side in clean.shape[:2])
    _ensure_large_enough("a picture", width, height)
    target = Image.fromarray(clean[:height, :width])
    worse = worse_picture(np.asarray(target), scale, noise, encoded)
    return ImageSample(_png(worse), _png(np.asarray(target)))


def target_of(sample: ImageSample, spec: TaskSpec, limits: ImageLimits) -> NDArray[np.float32]:
    """What the answer is compared with: (h, w, 3) or (h, w) from 0 to 1, or depths (h, w) as they are written.

    Pictures are read as the network's input is, by `limits`. Raises DataRefused for a file that cannot be read, and a
    depth that has colours.
    """
    try:
        if spec.picture == "depth":
            return _depths_of(sample.target, limits)
        larger = replace(limits, max_pixels=limits.max_pixels * spec.scale**2)
        pixels = decode_image(sample.target, larger)
    except (SaccadeError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataRefused(f"cannot be read as a picture ({error}): save it again") from error
    if spec.picture == "grey":
        pixels = np.asarray(Image.fromarray(pixels).convert("L"))
    return pixels.astype(np.float32) / np.float32(255.0)


def can_judge(sample: ImageSample, spec: TaskSpec, limits: ImageLimits) -> bool:
    """Tells whether the target says anything, as depths of which hardly any is known do not."""
    return spec.picture != "depth" or can_judge_depth(target_of(sample, spec, limits))


def may_be_unturned(sample: ImageSample, size: Size) -> bool:
    """Tells whether EXIF turns the picture and not its target, and a target that was not turned would fit as well."""
    turn = orientation_of(sample.encoded)
    return 1 != turn != orientation_of(sample.target) and (turn < _QUARTER_TURNS or size[0] == size[1])


def _depths_of(encoded: bytes, limits: ImageLimits) -> NDArray[np.float32]:
    with Image.open(io.BytesIO(encoded)) as image:
        image.load()
        if image.mode not in _DEPTHS:
            raise DataRefused(f"is {image.mode}: depths are a PNG of 16 bits and one channel, 0 where unknown")
        depths = np.asarray(image, np.float32)
    turn = None if limits.ignores_exif else UPRIGHT.get(orientation_of(encoded))
    return depths if turn is None else turn(depths[:, :, np.newaxis])[:, :, 0]


def _ensure_same_range(sample: ImageSample, spec: TaskSpec) -> None:
    """Raises DataRefused for 16-bit greys that would be scaled otherwise than their input."""
    if spec.picture == "depth":
        return
    used, given = sample_bits(sample.target), sample_bits(sample.encoded)
    if used != given:
        raise DataRefused(
            f"uses {used} bits per sample and its input {given}, so the two would be scaled to different brightness: "
            "save both with 8 bits, or both PNG files with their range (chunk sBIT)"
        )


def _ensure_large_enough(path: Any, width: int, height: int) -> None:
    if min(width, height) < _LEAST_SIDE:
        raise DataRefused(
            f"{path} has a target of {width}x{height}: similarity is measured in windows of {_LEAST_SIDE} pixels, so "
            "leave such pictures out"
        )


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
