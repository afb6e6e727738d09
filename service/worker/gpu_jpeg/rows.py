"""Decodes JPEGs from slots into the rows of a batch, after it has checked their headers again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import BadImage
from saccade.service.vision.image_decoder import ImageLimits
from saccade.service.vision.jpeg_header import EncodedImage, encoded_image
from saccade.service.worker.gpu_jpeg.decoder import GpuJpegDecoder


class JpegRows:
    """A decoder with one version's preprocessing rule, for `worker/batch_filling.py`."""

    def __init__(self, decoder: GpuJpegDecoder, spec: PreprocessSpec, limits: ImageLimits) -> None:
        self._decoder = decoder
        self._spec = spec
        self._limits = limits.for_network(spec)

    def decode(self, jpegs: Sequence[bytes], rows: Sequence[NDArray[np.uint8]]) -> list[bool]:
        """Returns, for each JPEG, whether it was decoded into its row. Raises DeviceLost."""
        opened = [self._opened(data) for data in jpegs]
        there = [(image, row) for image, row in zip(opened, rows, strict=True) if image is not None]
        done = iter(self._decoder.decode_into([image for image, _ in there], self._spec, [row for _, row in there]))
        return [image is not None and next(done) for image in opened]

    def _opened(self, data: bytes) -> EncodedImage | None:
        try:
            return encoded_image(data, self._limits)
        except BadImage:
            return None
