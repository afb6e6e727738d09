"""A GpuJpegDecoder with the code of the CPU path, with which the fake backend decodes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import preprocess_into
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import BadImage
from saccade.service.vision.image_decoder import ImageLimits, read_image
from saccade.service.vision.jpeg_header import EncodedImage


class CpuStandIn:
    """Exercises all of the path except the device: bytes in slots, decoding in the worker, and refused images."""

    def __init__(self, limits: ImageLimits) -> None:
        self._limits = limits

    @property
    def name(self) -> str:
        return "stand-in"

    def decode_into(
        self, images: Sequence[EncodedImage], spec: PreprocessSpec, rows: Sequence[NDArray[np.uint8]]
    ) -> list[bool]:
        return [self._decode(image, spec, row) for image, row in zip(images, rows, strict=True)]

    def _decode(self, image: EncodedImage, spec: PreprocessSpec, row: NDArray[np.uint8]) -> bool:
        try:
            read = read_image(image.data, self._limits.for_network(spec))
        except BadImage:
            return False
        preprocess_into(read.pixels, spec, row)
        return not read.damage  # the image threads can say why

    def close(self) -> None:
        """There is nothing to free."""
