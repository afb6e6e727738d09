"""Has slow pictures decoded in processes of their own (`decoding_child.py`), so that nothing here waits for them.

The process that forks them is started for the first such picture, ends when there was none for a minute, and is started
again when it was killed. A picture whose process dies fails alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from io import BufferedRWPair

import msgspec
import numpy as np
from numpy.typing import NDArray

from saccade.models.contract.preprocessing import Geometry
from saccade.models.contract.specs import PreprocessSpec
from saccade.service import errors
from saccade.service.api import decoding_child
from saccade.service.api.decoding_child import PID_BYTES, Decoded, Job, read_message, write_message
from saccade.service.errors import DeadlineExceeded, DecoderLost, SaccadeError
from saccade.service.ipc.child_process import inherited_environment
from saccade.service.vision.image_decoder import ImageLimits, ReadImage

_IDLE_S = 60.0
_LATE_S = 1.0  # after which a picture's process that should have ended is taken for stopped
_BEGINS_WITHIN_S = 30.0  # of the process's start, on the busiest machine
_ENDS_WITHIN_S = 5.0
_TRIES = 3  # of a picture that nobody began: its process had just been killed, which the second try notices


class DecodingApart:
    """The decoding processes of one API process; so many threads call `read` and `fit` at one time as there are."""

    def __init__(self, count: int, program: str = decoding_child.__name__) -> None:
        self._arguments = ("-m", program, "--count", str(count))
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._running = 0
        self._started_s = self._used_s = 0.0

    def read(self, data: bytes, limits: ImageLimits, memory_bytes: int, until_s: float) -> ReadImage:
        """`read_image` in a process that is ended at `until_s`, on the monotonic clock.

        Raises what that raises, DeadlineExceeded or DecoderLost.
        """
        decoded, pixels = self._done(data, _job(data, limits, memory_bytes, until_s, None), None)
        return ReadImage(pixels, decoded.damage)

    def fit(
        self,
        data: bytes,
        limits: ImageLimits,
        memory_bytes: int,
        until_s: float,
        spec: PreprocessSpec,
        out: NDArray[np.uint8],
    ) -> tuple[Geometry, str]:
        """`read`, and fits the pixels into `out`; returns where they lie in it, and how they are damaged."""
        decoded, _ = self._done(data, _job(data, limits, memory_bytes, until_s, spec), out)
        return Geometry(*decoded.geometry), decoded.damage

    async def run(self) -> None:
        """Ends the process when it has had nothing to do for a while."""
        while True:
            await asyncio.sleep(_IDLE_S / 4)
            if self._process is not None:
                await asyncio.to_thread(self.end_if_idle)

    def end_if_idle(self) -> None:
        """Ends the process where it has had nothing to do for a minute."""
        with self._lock:
            if not self._running and time.monotonic() - self._used_s > _IDLE_S:
                self._end()

    def close(self) -> None:
        """Ends the process; pictures that are being decoded are ended by their deadlines."""
        with self._lock:
            self._end()

    def _done(self, data: bytes, job: Job, out: NDArray[np.uint8] | None) -> tuple[Decoded, NDArray[np.uint8]]:
        with self._lock:
            self._running += 1
        try:
            for _ in range(_TRIES):
                done = self._tried(data, job, out)
                if done is not None:
                    return done
        except OSError as error:  # of a socket or process to be made
            raise DecoderLost(
                f"no process can decode the image now ({error.strerror}): retry shortly; the limits of open files or "
                "processes may be too low"
            ) from error
        finally:
            with self._lock:
                self._running -= 1
                self._used_s = time.monotonic()
        raise DecoderLost("the process that decodes slow pictures does not start; retry shortly")

    def _tried(self, data: bytes, job: Job, out: NDArray[np.uint8] | None) -> tuple[Decoded, NDArray[np.uint8]] | None:
        """None where nobody has begun to decode it."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                control = self._send(theirs)
            if control is None:
                return None
            ours.settimeout(max(0.0, job.until_s - time.monotonic()) + _LATE_S)
            decoder = 0
            try:
                with ours.makefile("rwb") as file:
                    decoder = int.from_bytes(file.read(PID_BYTES), "little")
                    return _exchanged(file, data, job, out) if decoder else None
            except TimeoutError:
                self._give_up(control, decoder)
            except (OSError, EOFError, msgspec.DecodeError):
                pass
        if time.monotonic() >= job.until_s:
            raise DeadlineExceeded("the deadline passed while the image was decoded")
        if not decoder:
            return None
        raise DecoderLost(
            "the process that decoded the image was killed, perhaps for want of memory: retry, or send a smaller image"
        )

    def _send(self, theirs: socket.socket) -> socket.socket | None:
        """Hands a picture's socket to the process, which is started if there is none; None where it has just ended."""
        with self._lock:
            if self._process is not None and self._process.poll() is not None:
                self._kill()  # its decoders, which nobody would replace
                self._end()
            if self._control is None:
                self._start()
            control = self._control
            assert control is not None
            try:
                socket.send_fds(control, [b"p"], [theirs.fileno()])
            except OSError:
                self._end()
                return None
        return control

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", *self._arguments, "--control-fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env={**inherited_environment(), "OPENBLAS_NUM_THREADS": "1"},  # who forks may have no threads
                process_group=0,  # signals of a terminal are for the supervisor
            )
        self._started_s = time.monotonic()
        self._control = ours

    def _give_up(self, control: socket.socket, decoder: int) -> None:
        """Kills a decoder that does not even end at its deadline, or all where none begins; some may be starting."""
        with self._lock:
            if self._control is not control:
                return
            if decoder:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(decoder, signal.SIGKILL)
            elif time.monotonic() - self._started_s > _BEGINS_WITHIN_S:
                self._kill()
                self._end()

    def _kill(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # with its decoders

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                self._kill()
                self._process.wait()
        self._process = self._control = None


def _job(data: bytes, limits: ImageLimits, memory_bytes: int, until_s: float, spec: PreprocessSpec | None) -> Job:
    preprocess = None if spec is None else spec.model_dump_json().encode()
    formats = tuple(sorted(limits.more_formats))
    return Job(len(data), memory_bytes, until_s, limits.max_pixels, formats, limits.ignores_exif, preprocess)


def _exchanged(
    file: BufferedRWPair, data: bytes, job: Job, out: NDArray[np.uint8] | None
) -> tuple[Decoded, NDArray[np.uint8]]:
    """Sends the job and reads its answer into `out`. Raises the answer's error, OSError, EOFError or DecodeError."""
    write_message(file, job)
    file.write(data)
    file.flush()
    decoded = msgspec.msgpack.decode(read_message(file), type=Decoded)
    if decoded.error:
        found = getattr(errors, decoded.error, SaccadeError)
        raise found(decoded.text)
    pixels = np.empty(decoded.shape, np.uint8) if out is None else out
    if pixels.shape != decoded.shape:
        raise EOFError
    rest = pixels.data.cast("B")
    while rest:
        count = file.readinto(rest)
        if not count:
            raise EOFError
        rest = rest[count:]
    return decoded, pixels
