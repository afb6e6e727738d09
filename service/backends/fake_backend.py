"""The backend for development, tests and documentation: it answers from the first pixel alone, in microseconds.

Answers are deterministic per image, so tests notice rows that were mixed up. Images whose first pixel has one of the
colours below make the backend misbehave.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.extras import asked_for
from saccade.service.backends.base import LoadRequest, Outputs, UInt8Array
from saccade.service.errors import BackendError, DeviceLost
from saccade.service.repository.verify import verified_bytes

POISON = (1, 2, 3)  # fails the whole batch, as a real kernel error would
CRASH = (3, 2, 1)  # kills the process mid-batch
LOST = (4, 4, 4)  # raises DeviceLost, as a sticky CUDA error would
NOT_FINITE = (5, 5, 5)  # gives scores and boxes that are not numbers, as a division by zero would
HUGE = (6, 6, 6)  # takes memory until the kernel ends the process for it
SLOW = (9, 9, 9)  # makes the batch take SLOW_S
HANG = (8, 8, 8)  # makes `infer` never return
CRASH_ON_LOAD = b"crash on load"  # a file that begins like this kills the process that opens it
NATIVE_LINES = b"native lines"  # a file that begins like this has each load write to stderr as native code does
HANG_IN_WARM_UP = b"hang in warm-up"  # a file that begins like this never ends its first run
# A file that begins like one of these warms up, and misbehaves with images whose first pixel is (any, 100, 200).
CRASH_ON_ANSWER = b"crash on answer"
FAIL_ON_ANSWER = b"fail on answer"
NOT_FINITE_ON_ANSWER = b"not finite on answer"
_ANSWERED = (100, 200)
SLOW_S = 0.4
# A model's file that begins like this sets what batches and images cost.
COST = re.compile(rb"(?:a batch takes (?P<batch>[\d.]+) ms, )?an image takes (?P<image>[\d.]+) ms")
# One that holds this gives other answers, or kills the process, at every so manieth image.
WRONG = re.compile(rb"one answer of (?P<images>\d+) is wrong")
CRASHING = re.compile(rb"one image of (?P<images>\d+) crashes")
# One that holds this has every run last for as long as the gate, a file, is there; a line in it says that one began.
GATED = re.compile(rb"a run waits while (?P<gate>.+) is there")
_BLOCK_BYTES, _MOST_BLOCKS = 64 * 2**20, 64  # of HUGE, where nothing limits the process
_LOOKS_S = 0.002  # between two looks at a gate


class FakeBackend:
    """Every output row holds the first pixel's red value, scaled to the meaning of its tensor."""

    def __init__(self, request: LoadRequest) -> None:
        content = verified_bytes(request.file, request.sha256)
        if content.startswith(CRASH_ON_LOAD):
            os._exit(13)
        if content.startswith(NATIVE_LINES):
            os.write(2, b"".join(b"[cudnn] line %d\n" % number for number in range(200)) + b"the last words\n")
        cost = COST.match(content)
        self._content = content
        self._image_s = 0.0 if cost is None else float(cost["image"]) / 1000
        self._batch_s = 0.0 if cost is None else float(cost["batch"] or 0) / 1000
        self._wrong_at, self._crash_at = (_images_between(found.search(content)) for found in (WRONG, CRASHING))
        gated = GATED.search(content)
        self._gate = b"" if gated is None else gated["gate"]
        self._images = 0
        self._outputs = request.outputs
        self._extras = request.extras

    @property
    def provider(self) -> str:
        return "FakeExecutionProvider"

    def infer_asked(self, images: UInt8Array, asked: int) -> Outputs:
        specs = [extra.output for extra in asked_for(self._extras, asked)]
        extras = [self._fill(spec.name, spec.shape, spec.dtype, images[:, 0, 0, 0]) for spec in specs]
        return [*self.infer(images), *extras]

    def infer(self, images: UInt8Array) -> Outputs:
        first_pixels = [tuple(int(value) for value in image[0, 0]) for image in images]
        _wait_at(self._gate)
        if self._content.startswith(HANG_IN_WARM_UP):
            time.sleep(3600)
        if any(pixel[1:] == _ANSWERED for pixel in first_pixels):
            first_pixels.append(self._mischief())
        if POISON in first_pixels:
            raise BackendError("the fake backend was asked to fail")
        if CRASH in first_pixels:
            os._exit(13)
        if HUGE in first_pixels:
            taken = [b"\1" * _BLOCK_BYTES for _ in range(_MOST_BLOCKS)]
            raise BackendError(f"nothing limits this process: it could take {len(taken)} blocks of memory")
        if LOST in first_pixels:
            raise DeviceLost("the fake backend was asked to lose its device")
        if HANG in first_pixels:
            time.sleep(3600)
        if SLOW in first_pixels:
            time.sleep(SLOW_S)
        if self._image_s or self._batch_s:
            time.sleep(self._batch_s + self._image_s * len(images))
        red = images[:, 0, 0, 0]
        numbers = self._images + 1 + np.arange(len(images))
        self._images += len(images)
        if self._crash_at and not (numbers % self._crash_at).all():
            os._exit(13)
        outputs = [self._fill(name, shape, dtype, red) for name, shape, dtype in self._tensors()]
        if self._wrong_at:
            outputs = [_wrong(output, numbers % self._wrong_at == 0) for output in outputs]
        if NOT_FINITE in first_pixels:
            rows = [index for index in range(len(images)) if first_pixels[index] == NOT_FINITE] or slice(None)
            for index, output in enumerate(outputs):
                if output.dtype.kind == "f":
                    outputs[index] = output.copy()
                    outputs[index][rows] = np.nan
        return outputs

    def _mischief(self) -> tuple[int, ...]:
        """Returns the colour that makes this file misbehave; black is harmless."""
        colours = {CRASH_ON_ANSWER: CRASH, FAIL_ON_ANSWER: POISON, NOT_FINITE_ON_ANSWER: NOT_FINITE}
        return next((colour for start, colour in colours.items() if self._content.startswith(start)), (0, 0, 0))

    def _tensors(self) -> list[tuple[str, tuple[int, ...], str]]:
        return [(spec.name, spec.shape, spec.dtype) for spec in self._outputs]

    def _fill(self, name: str, shape: tuple[int, ...], dtype: str, red: NDArray[np.uint8]) -> NDArray[Any]:
        rows = red.reshape((-1,) + (1,) * len(shape))
        full: NDArray[Any] = np.broadcast_to(rows, (len(red), *shape)).astype(dtype)
        if name == "scores":
            full = full / np.array(255, dtype)
        elif name == "class_ids":
            full = np.broadcast_to(np.arange(shape[0], dtype=dtype), full.shape).copy()
        elif name == "counts":
            full = np.ones_like(full)
        elif name == "boxes" and any(tensor == "prototypes" for tensor, _, _ in self._tensors()):
            full = full * np.array([0, 0, 1, 1], dtype)  # a mask needs a box with an area
        elif name == "mask":
            full = (full > 127).astype(dtype)
        return full

    def close(self) -> None:
        self._outputs = ()


def _wait_at(gate: bytes) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(gate, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, b"a run began\n")
        os.close(descriptor)
        while os.path.exists(gate):
            time.sleep(_LOOKS_S)


def _images_between(found: re.Match[bytes] | None) -> int:
    return 0 if found is None else int(found["images"])


def _wrong(output: NDArray[Any], rows: NDArray[np.bool_]) -> NDArray[Any]:
    """The rows of a classifier's answer with the last class first."""
    if output.ndim != 2 or output.dtype.kind != "i":
        return output
    changed = output.copy()
    changed[rows] = changed[rows, ::-1]
    return changed
