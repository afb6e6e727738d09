"""A backend that a test holds in its hand. Promises: runs only when allowed to, fails on marked images, no sleep."""

from __future__ import annotations

import threading

import numpy as np

from saccade.service.backends.base import Outputs, UInt8Array
from saccade.service.errors import BackendError

POISON = 13
TIMEOUT_S = 20.0  # only a broken test waits so long


class ScriptedBackend:
    """Answers each image with twice its first byte; `gate` holds every run until it is opened."""

    provider = "ScriptedExecutionProvider"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)
        self.batches: list[list[int]] = []
        self.is_closed = False

    def infer(self, images: UInt8Array) -> Outputs:
        assert not self.is_closed, "no call may follow close"
        first_bytes = images[:, 0].tolist()
        self.batches.append(first_bytes)
        self.started.release()
        assert self.gate.wait(TIMEOUT_S)
        if POISON in first_bytes:
            raise BackendError("poison")
        return [images[:, :1].astype(np.int32) * 2]

    def close(self) -> None:
        self.is_closed = True
