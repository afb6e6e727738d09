"""A steady stream of requests, none of which may fail."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.images import red_of, red_png
from tests.support.requests import Background
from tests.support.server import Server, wait_until

_NUMBERS = itertools.count()


@dataclass
class Traffic:
    """What a steady stream of requests met."""

    failures: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)  # without repeats

    def note(self, server: Server, model: str, red: int) -> None:
        response = server.predict(model, red_png(red))
        if response.status_code != 200:
            self.failures.append(response.text)
            return
        document = response.json()
        if red_of(document["predictions"][0]) != red:
            self.failures.append(f"red {red} was answered {document}")
        if not self.versions or self.versions[-1] != document["version"]:
            self.versions.append(document["version"])


@contextmanager
def traffic(server: Server, model: str) -> Iterator[Traffic]:
    """Requests flow while the context lasts; afterwards not one of them failed."""
    seen = Traffic()
    stop = threading.Event()

    def flow() -> None:
        red = 0
        while not stop.is_set():
            red = (red + 10) % 250
            seen.note(server, model, red)

    with Background() as background:
        flowing = background.start(flow)
        wait_until(lambda: seen.versions or flowing.done(), what="requests flow")
        try:
            yield seen
        finally:
            stop.set()
        flowing.result()
    assert seen.failures == []


@contextmanager
def flowing(server: Server, model: str, clients: int = 2) -> Iterator[list[int]]:
    """Requests flow while the context lasts; yields their statuses."""
    stop, statuses = threading.Event(), []

    def flow() -> None:
        while not stop.is_set():
            statuses.append(server.predict(model, red_png(next(_NUMBERS) % 250)).status_code)

    with Background() as background:
        running = [background.start(flow) for _ in range(clients)]
        try:
            yield statuses
        finally:
            stop.set()
        for each in running:
            each.result()
