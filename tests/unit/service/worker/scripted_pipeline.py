"""A pipelined backend that a test holds in its hand. Promises: breaking the protocol's rules fails the test."""

from __future__ import annotations

import threading

import numpy as np

from saccade.service.backends.base import Outputs, UInt8Array
from saccade.service.errors import BackendError, DeviceLost
from tests.unit.service.worker.scripted_backend import POISON, TIMEOUT_S

REFUSED = 14  # fails in `start`
LOST = 15  # loses the device in `finish`
LOST_AT_START = 16
RUN_S = 0.003


class ScriptedPipeline:
    """Answers each image with twice its first byte; `gate` holds every `finish` until it is opened."""

    provider = "ScriptedExecutionProvider"

    def __init__(self, depth: int = 2) -> None:
        self.batches_in_flight = depth
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.finishing = threading.Semaphore(0)
        self.events: list[tuple[str, list[int]]] = []
        self.most_in_flight = 0
        self.is_closed = False
        self._staged: UInt8Array | None = None
        self._flying: dict[int, UInt8Array] = {}
        self._next = 0

    def infer(self, images: UInt8Array) -> Outputs:
        raise AssertionError("the loop stages, starts and finishes")

    def staging(self, batch_size: int) -> UInt8Array:
        assert not self.is_closed
        assert len(self._flying) < self.batches_in_flight, "more batches in flight than asked for"
        self._staged = np.zeros((batch_size, 4), np.uint8)
        return self._staged

    def start(self) -> int:
        assert self._staged is not None
        images, self._staged = self._staged.copy(), None
        first_bytes = images[:, 0].tolist()
        self.events.append(("start", first_bytes))
        if REFUSED in first_bytes:
            raise BackendError("refused")
        if LOST_AT_START in first_bytes:
            raise DeviceLost("lost")
        self._next += 1
        self._flying[self._next] = images
        self.most_in_flight = max(self.most_in_flight, len(self._flying))
        self.started.release()
        return self._next

    def finish(self, started: int) -> tuple[Outputs, float]:
        assert started == min(self._flying), "finished out of order"
        self.finishing.release()
        assert self.gate.wait(TIMEOUT_S)
        images = self._flying.pop(started)
        first_bytes = images[:, 0].tolist()
        self.events.append(("finish", first_bytes))
        if POISON in first_bytes:
            raise BackendError("poison")
        if LOST in first_bytes:
            raise DeviceLost("lost")
        return [images[:, :1].astype(np.int32) * 2], RUN_S

    def close(self) -> None:
        assert not self._flying, "closed while batches are in flight"
        self.is_closed = True
