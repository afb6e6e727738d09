"""Decodes JPEGs with nvImageCodec: one result per image, in order, and None for an image that cannot be decoded.

The library is told to ignore the EXIF orientation and to decode on the device only: an image that it refuses is decoded
by the CPU path's own decoder, so that there is no third one.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from saccade.service.errors import RuntimeMissing
from saccade.service.vision.resize_plan import DecodedImage
from saccade.service.worker.gpu_jpeg.choice import JpegDecoderSetting

_KEPT_BYTES = 256 << 20  # memory for decoded images that is kept between batches; more is freed


@dataclass(frozen=True, slots=True)
class Engine:
    """One way of decoding; the fastest one depends on the GPU, so each is measured."""

    name: str
    backends: tuple[str, ...]  # nvImageCodec's names, in its order of preference
    options: str


# libjpeg-turbo, which the CPU path uses, interpolates chroma by default.
_SMOOTH_CHROMA = ":fancy_upsampling=1"
# "hardware" comes first and is the only one that "auto" offers: on an H200 it kept 99.9 % of the pixels of every
# baseline file within one level of the CPU path's, and the other two 98.9 to 99.6 %.
ENGINES = (
    Engine("hardware", ("HW_GPU_ONLY", "GPU_ONLY", "HYBRID_CPU_GPU"), _SMOOTH_CHROMA),
    Engine("hybrid", ("GPU_ONLY", "HYBRID_CPU_GPU"), _SMOOTH_CHROMA),
    Engine("gpu", ("GPU_ONLY", "HYBRID_CPU_GPU"), f"{_SMOOTH_CHROMA} nvjpeg_cuda_decoder:hybrid_huffman_threshold=0"),
)
ON_CPU = Engine("cpu", ("CPU_ONLY",), _SMOOTH_CHROMA)  # uses the library without a device, for tests


def offered_engines(setting: JpegDecoderSetting) -> tuple[Engine, ...]:
    """Returns the engines to measure at load: with "gpu" all of them; the self check decides which may serve."""
    return ENGINES if setting == "gpu" else ENGINES[:1]


class NvImageCodec:
    """One decoder. It is not thread-safe; decoded images are valid until the next call."""

    def __init__(self, engine: Engine, device_index: int | None, threads: int) -> None:
        """With `device_index` None it decodes into host memory. Raises RuntimeMissing, which says what to install."""
        codec = _library()
        self._codec = codec
        self._is_on_host = device_index is None
        self._images: list[Any] = []  # memory that the next batch is decoded into
        self._in_use: list[Any] = []
        try:
            self._decoder = codec.Decoder(
                device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY if device_index is None else device_index,
                max_num_cpu_threads=threads,
                backends=[codec.Backend(getattr(codec, name)) for name in engine.backends],
                options=engine.options,
            )
        except RuntimeError as error:
            raise RuntimeMissing(f"nvImageCodec cannot decode on this device: {error}") from error
        self._params = codec.DecodeParams(apply_exif_orientation=False, color_spec=codec.ColorSpec.SRGB)

    def decode(self, encoded: Sequence[bytes], stream: int = 0) -> list[DecodedImage | None]:
        """Returns images as stored, without rotation, ready for work on `stream`; None where decoding failed."""
        streams = [self._code_stream(data) for data in encoded]
        there = [stream_of for stream_of in streams if stream_of is not None]
        images = iter(self._decoded(there, stream))
        return [None if stream_of is None else self._place_of(next(images)) for stream_of in streams]

    def _code_stream(self, data: bytes) -> Any:
        try:
            return self._codec.CodeStream(data)
        except RuntimeError:  # it gives no reason; the CPU path's decoder will
            return None

    def _decoded(self, streams: Sequence[Any], stream: int) -> list[Any]:
        if not streams:
            return []
        is_reusing = len(self._images) >= len(streams)
        reused = self._images[: len(streams)] if is_reusing else None
        images: list[Any] = self._decoder.decode(streams, images=reused, params=self._params, cuda_stream=stream)
        if not is_reusing:
            self._images = [image for image in images if image is not None]
        if sum(image.capacity for image in self._images) > _KEPT_BYTES:
            self._images = []
        self._in_use = images
        return images

    def _place_of(self, image: Any) -> DecodedImage | None:
        if image is None or image.shape[2] != 3:
            return None
        height, width, channels = image.shape
        interface = image.__array_interface__ if self._is_on_host else image.__cuda_array_interface__
        row_bytes = (interface["strides"] or (width * channels,))[0]
        return DecodedImage(interface["data"][0], width, height, row_bytes)

    def close(self) -> None:
        """Frees the decoder's memory."""
        self._images = []
        self._in_use = []
        del self._decoder


def _library() -> Any:
    # The library reads this at import; otherwise it writes a line to stderr for each damaged image.
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")
    try:
        return importlib.import_module("nvidia.nvimgcodec")
    except (ImportError, OSError) as error:
        raise RuntimeMissing(
            f"nvImageCodec is not installed ({error}): pip install 'saccade-serving[gpu-jpeg]'"
        ) from error
