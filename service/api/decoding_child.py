"""The process that decodes slow pictures, at low priority, by processes that it forks and replaces.

What kills a decoder takes no other picture along, a large picture's memory is given back at once, and the kernel ends
one whose deadline has passed, whatever it is doing. Pixels and errors go back by the socket that the picture came by.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import resource
import signal
import socket
import time
import traceback
from io import BufferedRWPair
from pathlib import Path

import msgspec
import numpy as np
from PIL import Image

from saccade.models.contract.preprocessing import UInt8Array, preprocess_into
from saccade.models.contract.specs import PreprocessSpec
from saccade.service.errors import BadImage, SaccadeError
from saccade.service.vision.image_decoder import ImageLimits, ReadImage, read_image
from saccade.service.vision.tiles import ensure_one_tile

PID_BYTES = 4  # an answer begins with who decodes, so that a picture that nobody has begun is told from a lost one
_NICENESS = 5  # a third of what other processes get where all want the processors; at 10 neighbours fare no better
_SPARE_BYTES = 512 * 2**20  # of address space beyond what a picture is expected to take: no picture should need it
_KEPT_BYTES = 64 * 2**20  # after a picture that takes more the process ends; others may have its memory
_CLOSED = 7  # exit code: no more pictures can come
_MIB = 2**20


class Job(msgspec.Struct, frozen=True):
    """A picture to decode; its bytes follow."""

    image_bytes: int
    memory_bytes: int  # expected
    until_s: float  # CLOCK_MONOTONIC
    max_pixels: int
    more_formats: tuple[str, ...]
    ignores_exif: bool
    preprocess: bytes | None  # JSON of what the pixels are fitted into; None: they are wanted as they are


class Decoded(msgspec.Struct, frozen=True):
    """What became of it; pixels of `shape` follow, unless there is an error."""

    shape: tuple[int, ...] = ()
    geometry: tuple[int, ...] = ()
    damage: str = ""
    error: str = ""  # a class of errors.py
    text: str = ""


def write_message(file: BufferedRWPair, message: msgspec.Struct) -> None:
    body = msgspec.msgpack.encode(message)
    file.write(len(body).to_bytes(4, "little") + body)


def read_message(file: BufferedRWPair) -> bytes:
    """The encoded message; empty or cut off where the other side has ended."""
    return file.read(int.from_bytes(file.read(4), "little"))


def serve(control: socket.socket, count: int) -> None:
    """Keeps so many processes that decode, until nobody can send them pictures any more and all have ended."""
    Image.init()  # imports what reads each format, once for all
    gc.freeze()  # collections would have the forks copy what they share
    running = {_forked(control) for _ in range(count)}
    is_open = True
    while running:
        pid, status = os.wait()
        running.discard(pid)
        is_open = is_open and os.waitstatus_to_exitcode(status) != _CLOSED
        if is_open:
            running.add(_forked(control))


def _forked(control: socket.socket) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")  # the kernel's memory killer takes it before others
        code = _decode_all(control)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _decode_all(control: socket.socket) -> int:
    """Answers pictures until a large one was among them; returns the exit code."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if not message:
            return _CLOSED
        with contextlib.suppress(OSError), socket.socket(fileno=descriptors[0]) as picture:  # nobody may wait any more
            with picture.makefile("rwb") as file:
                memory_bytes = answer(file)
            if memory_bytes > _KEPT_BYTES:
                return 0


def answer(file: BufferedRWPair) -> int:
    """Reads a job and writes what became of it, and returns the memory expected for it.

    The process is ended at the job's deadline, and can take little more memory than expected.
    """
    file.write(os.getpid().to_bytes(PID_BYTES, "little"))
    file.flush()
    body = read_message(file)
    if not body:
        return 0
    job = msgspec.msgpack.decode(body, type=Job)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, job.until_s - time.monotonic()))  # its signal ends the process
    data = file.read(job.image_bytes)
    _bound_memory(job)
    try:
        decoded, pixels = _decoded(job, data)
    except SaccadeError as error:
        decoded, pixels = Decoded(error=type(error).__name__, text=str(error)), None
    except MemoryError:
        most = f"{(job.memory_bytes + _SPARE_BYTES) // _MIB:,} MiB"
        text = f"decoding the image takes more than {most}: send a smaller image, or a baseline JPEG"
        decoded, pixels = Decoded(error=BadImage.__name__, text=text), None
    write_message(file, decoded)
    if pixels is not None:
        file.write(np.ascontiguousarray(pixels).data)
    file.flush()
    signal.setitimer(signal.ITIMER_REAL, 0.0)
    return job.memory_bytes


def _bound_memory(job: Job) -> None:
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most_bytes = used_bytes + job.memory_bytes + _SPARE_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or most_bytes < hard:
        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, hard))


def _decoded(job: Job, data: bytes) -> tuple[Decoded, UInt8Array]:
    read = read_image(data, ImageLimits(job.max_pixels, frozenset(job.more_formats), job.ignores_exif))
    if job.preprocess is None:
        return Decoded(read.pixels.shape, damage=read.damage), read.pixels
    return _fitted(read, PreprocessSpec.model_validate_json(job.preprocess))


def _fitted(read: ReadImage, spec: PreprocessSpec) -> tuple[Decoded, UInt8Array]:
    ensure_one_tile(read.pixels, spec)
    pixels = np.empty((spec.height, spec.width, 3), np.uint8)
    geometry = preprocess_into(read.pixels, spec, pixels)
    return Decoded(pixels.shape, geometry, read.damage), pixels


def main() -> None:
    """Entry point of the process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    given = parser.parse_args()
    os.nice(_NICENESS)
    serve(socket.socket(fileno=given.control_fd), given.count)


if __name__ == "__main__":
    main()
