"""Measures process forms with a network and images as traffic would; `tune.py` runs this module as a program.

It reads a `TuningTask` as JSON from standard input and writes a list of `ProcessFormSpeed` to standard output. The
forms are measured alternately in several rounds, and medians count. The version is verified before any file is opened.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import simplejpeg

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.preprocessing import preprocess_into
from saccade.service.backends.base import Backend
from saccade.service.backends.onnxruntime_backend import OnnxRuntimeBackend
from saccade.service.backends.requests import load_request
from saccade.service.repository.trusted_keys import signature_policy
from saccade.service.repository.verify import verify_version
from saccade.service.supervisor.tuning.forms import ProcessForm, ProcessFormSpeed, TuningTask, is_soon_enough
from saccade.service.vision.image_decoder import ImageLimits, decode_image

_PICTURE = (375, 500, 3)
_QUALITY = 80  # JPEG quality; the file has about 36 KB
_ROUNDS = 3
_SLOTS = 64  # the server's default
_SECONDS = 0.5  # shortest time for one form in one round
_BATCHES = 3  # smallest number of batches for one form in one round
_MOST_BATCH_S = 0.1  # batches that take longer would make the measurement long
_LONE_RUNS = 5


def measure(task: TuningTask) -> list[ProcessFormSpeed]:
    """Measures the forms in their order, without those in which a single request would take too long.

    Raises RepositoryError, BackendError or SettingsError.
    """
    policy = signature_policy([Path(key) for key in task.trusted_keys], is_required=task.require_signature)
    manifest = verify_version(Path(task.version_dir), policy).manifest
    bench = _Bench(manifest, task.cores)
    runners = [_Runner(form, _loaded(task, manifest, form, 1)) for form in task.forms]
    for runner in runners:
        runner.lone_s = bench.lone_s(runner.backends[0])
    first_s = runners[0].lone_s
    runners = [each for each in runners if is_soon_enough(1000 * each.lone_s, 1000 * first_s)]
    batch_size = _batch_size(manifest, first_s)
    seconds = max(_SECONDS, _BATCHES * batch_size * max(each.lone_s for each in runners))
    for runner in runners:
        runner.backends += _loaded(task, manifest, runner.form, runner.form.workers - 1)
    for _ in range(_ROUNDS if len(runners) > 1 else 0):
        for runner in runners:
            runner.rates.append(bench.images_per_s(runner.backends, batch_size, seconds))
    return [
        ProcessFormSpeed(each.form, round(median(each.rates or [0.0]), 1), round(1000 * each.lone_s, 2))
        for each in runners
    ]


@dataclass(slots=True)
class _Runner:
    """A form, a backend per worker, and the measurements so far."""

    form: ProcessForm
    backends: list[Backend]
    lone_s: float = 0.0
    rates: list[float] = field(default_factory=list)


def _loaded(task: TuningTask, manifest: Manifest, form: ProcessForm, count: int) -> list[Backend]:
    request = load_request(
        Path(task.version_dir),
        manifest,
        task.variant,
        device="cpu",
        threads=form.threads,
        allow_spinning=form.allow_spinning,
    )
    return [OnnxRuntimeBackend(request) for _ in range(count)]


def _batch_size(manifest: Manifest, lone_s: float) -> int:
    """Returns the largest allowed batch size whose run is short enough."""
    sizes = manifest.allowed_batch_sizes
    return max([size for size in sizes if size * lone_s <= _MOST_BATCH_S], default=sizes[0])


class _Bench:
    """A small server: a thread per core decodes images into slots, and a thread per worker runs batches of them."""

    def __init__(self, manifest: Manifest, cores: int) -> None:
        self._manifest = manifest
        self._cores = cores
        self._jpeg = picture()
        self._slots = np.zeros((_SLOTS, *manifest.input.shape), np.uint8)

    def lone_s(self, backend: Backend) -> float:
        """Measures the seconds of one image's run, after a warm-up."""
        seconds = []
        for _ in range(1 + _LONE_RUNS):
            start_s = time.perf_counter()
            backend.infer(self._slots[:1])
            seconds.append(time.perf_counter() - start_s)
        return median(seconds[1:])

    def images_per_s(self, backends: Sequence[Backend], batch_size: int, seconds: float) -> float:
        """Measures the throughput of all backends together."""
        flow = _Flow()
        decoders = [threading.Thread(target=self._decode, args=(flow,)) for _ in range(self._cores)]
        workers = [threading.Thread(target=self._work, args=(flow, backend, batch_size)) for backend in backends]
        for thread in (*decoders, *workers):
            thread.start()
        time.sleep(seconds)
        flow.stop()
        for thread in (*decoders, *workers):
            thread.join()
        return flow.images_per_s()

    def _decode(self, flow: _Flow) -> None:
        while (slot := flow.free.get()) is not None:
            pixels = decode_image(self._jpeg, ImageLimits())
            preprocess_into(pixels, self._manifest.preprocess, self._slots[slot])
            flow.full.put(slot)

    def _work(self, flow: _Flow, backend: Backend, batch_size: int) -> None:
        rows = np.zeros((batch_size, *self._manifest.input.shape), np.uint8)
        while (first := flow.full.get()) is not None:
            slots = [first, *flow.more(batch_size - 1)]
            size = max(size for size in self._manifest.allowed_batch_sizes if size <= len(slots))
            for slot in slots[size:]:
                flow.full.put(slot)
            for row, slot in zip(rows, slots[:size], strict=False):
                row[...] = self._slots[slot]
                flow.free.put(slot)
            backend.infer(rows[:size])
            flow.done(size)


class _Flow:
    """The queues of free and full slots, and the times of finished batches; None in a queue ends its reader."""

    def __init__(self) -> None:
        self.free: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self.full: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._done: list[tuple[float, int]] = []
        for slot in range(_SLOTS):
            self.free.put(slot)

    def more(self, count: int) -> list[int]:
        """Takes up to `count` slots that are full already."""
        slots: list[int] = []
        while len(slots) < count:
            try:
                slot = self.full.get_nowait()
            except queue.Empty:
                break
            if slot is None:
                self.full.put(None)
                break
            slots.append(slot)
        return slots

    def done(self, size: int) -> None:
        self._done.append((time.perf_counter(), size))

    def stop(self) -> None:
        for _ in range(_SLOTS):
            self.free.put(None)
            self.full.put(None)

    def images_per_s(self) -> float:
        """Computes the throughput between the end of the first batch and the end of the last."""
        done = sorted(self._done)
        if len(done) < 2:
            return 0.0
        return sum(size for _, size in done[1:]) / (done[-1][0] - done[0][0])


def picture() -> bytes:
    """Draws a JPEG that takes about as long to decode as a photograph of its size."""
    random = np.random.default_rng(0)
    pixels = np.zeros(_PICTURE)
    for cell in (64, 16):
        coarse = random.normal(0, 28, (_PICTURE[0] // cell + 1, _PICTURE[1] // cell + 1, 3))
        pixels += coarse.repeat(cell, 0).repeat(cell, 1)[: _PICTURE[0], : _PICTURE[1]]
    pixels += random.normal(128, 6, _PICTURE)
    encoded: bytes = simplejpeg.encode_jpeg(pixels.clip(0, 255).astype(np.uint8), quality=_QUALITY)
    return encoded


def main() -> None:
    """Entry point of the child process."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=TuningTask)
    sys.stdout.buffer.write(msgspec.json.encode(measure(task)))


if __name__ == "__main__":
    main()
