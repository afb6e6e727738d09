"""Tries process forms with a network and JPEGs as traffic would; `tune.py` runs this module as a program.

It reads a `TuningTask` as JSON from standard input and writes a list of `ProcessFormSpeed` to standard output. The
forms are tried by turns in several rounds, and a form that falls far behind in one is not tried again. The version is
verified before any file is opened.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Protocol

import msgspec
import numpy as np
import simplejpeg
import uvloop

from saccade.models.contract.manifest import Manifest
from saccade.service.bench.images import ImageFile
from saccade.service.bench.workload import Item, ModelShare, RequestShape, endpoint_of, workload_of
from saccade.service.device_names import CPU, worker_environment
from saccade.service.errors import BackendError
from saccade.service.ipc.child_process import ALLOCATOR, extend_environment
from saccade.service.ipc.runtime_dir import runtime_dir
from saccade.service.metrics import MULTIPROCESS_DIR
from saccade.service.repository.trusted_keys import signature_policy
from saccade.service.repository.verify import verify_version
from saccade.service.settings import Settings
from saccade.service.supervisor.tuning.forms import (
    ROUNDS,
    ProcessForm,
    ProcessFormSpeed,
    TuningTask,
    in_reach,
    is_soon_enough,
)
from saccade.service.supervisor.tuning.program import order_from_parent
from saccade.service.supervisor.tuning.trial_load import TrialLoad
from saccade.service.supervisor.tuning.trial_process import import_once
from saccade.service.supervisor.tuning.trial_server import HOST, TrialServer

_PICTURE = (375, 500, 3)
_QUALITY = 80  # JPEG quality; the file has about 36 KB
_WARM_UP_S = 0.15
_SECONDS = 0.45  # of one form in one round
_BUDGET_S = 17.0  # no round begins that would end later; the server must start within 20 s
_GIVE_UP_S = 19.0  # a machine that does much else is measured at its next start
_FEWEST, _MOST = 8, 32  # requests in flight
_BATCHES_IN_FLIGHT = 4  # one runs and one waits in each of two workers


class Load(Protocol):
    """What a form is tried with."""

    async def lone_ms(self) -> float:
        """The time of a request that is alone."""

    async def images_per_s(self, warm_up_s: float, seconds: float) -> float:
        """The answers per second of a closed loop."""


async def measure(task: TuningTask) -> list[ProcessFormSpeed]:
    """Measures the forms in their order. Raises RepositoryError, BackendError or SettingsError."""
    start_s = time.monotonic()
    settings = Settings.model_validate_json(task.settings_json)
    keys = [Path(key) for key in settings.trusted_keys]
    policy = signature_policy(keys, is_required=settings.require_signature)
    version = verify_version(Path(task.version_dir), policy)
    try:
        async with asyncio.timeout(_GIVE_UP_S):
            with runtime_dir() as folder:
                metrics = {MULTIPROCESS_DIR: str(folder / "metrics")}
                extend_environment({**metrics, **ALLOCATOR, **worker_environment(CPU, {})})
                import_once()
                async with TrialServer(task, version, folder) as server:
                    in_flight = min(_MOST, max(_FEWEST, _BATCHES_IN_FLIGHT * task.batch_sizes[-1]))
                    loads = _Loads(server, _item(version.manifest), in_flight)
                    return await tried(task.forms, loads.load_for, start_s + _BUDGET_S)
    except TimeoutError as error:
        raise BackendError(f"trying the forms took longer than {_GIVE_UP_S:g} s") from error


async def tried(
    forms: Sequence[ProcessForm],
    load_for: Callable[[ProcessForm], Awaitable[Load]],
    end_s: float,
    now_s: Callable[[], float] = time.monotonic,
) -> list[ProcessFormSpeed]:
    """Tries the forms by turns, until one is left or a further round would end after `end_s`.

    The first round ends there, too, however many forms were tried.
    """
    lone_ms: dict[tuple[int, bool], float] = {}
    for form in forms:
        if _worker_of(form) not in lone_ms:
            lone_ms[_worker_of(form)] = await (await load_for(form)).lone_ms()
    rates: dict[ProcessForm, list[float]] = {form: [] for form in forms}
    left = [form for form in forms if is_soon_enough(lone_ms[_worker_of(form)], lone_ms[_worker_of(forms[0])])]
    trial_s = 0.0
    for number in range(ROUNDS):
        begin_s = now_s()
        if len(left) < 2 or (number > 0 and begin_s + len(left) * trial_s > end_s):
            break
        for form in left if number % 2 == 0 else left[::-1]:
            if number == 0 and any(rates.values()) and now_s() > end_s:  # a machine that does much else
                break
            rates[form].append(await (await load_for(form)).images_per_s(_WARM_UP_S, _SECONDS))
        trial_s = (now_s() - begin_s) / len(left)
        left = [form for form in left if len(rates[form]) > number]
        good = in_reach([rates[form][-1] for form in left])
        left = [form for form, is_good in zip(left, good, strict=True) if is_good]
    return [
        ProcessFormSpeed(form, round(mean(found or [0.0]), 1), round(lone_ms[_worker_of(form)], 2), len(found))
        for form, found in rates.items()
    ]


def _worker_of(form: ProcessForm) -> tuple[int, bool]:
    """The kind of worker, which is all that the time of a single request depends on."""
    return form.threads, form.allow_spinning


class _Loads:
    """The connections to a trial server, which stay open between trials."""

    def __init__(self, server: TrialServer, item: Item, in_flight: int) -> None:
        self._server = server
        self._item = item
        self._in_flight = in_flight
        self._loads: dict[int, TrialLoad] = {}  # by number of HTTP processes

    async def load_for(self, form: ProcessForm) -> TrialLoad:
        """Has the server use a form, and returns what sends requests to it."""
        ports = await self._server.use(form)
        load = self._loads.get(len(ports))
        if load is None:
            load = self._loads[len(ports)] = TrialLoad(ports, HOST, self._item, self._in_flight)
            await load.connect()
        return load


def _item(manifest: Manifest) -> Item:
    """The request that is sent; the port in its Host header does not matter."""
    share = ModelShare(manifest.model, 1.0, (ImageFile("drawn.jpg", "image/jpeg", picture()),))
    return workload_of([share], endpoint_of(f"http://{HOST}"), RequestShape()).items[0]


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
    task = msgspec.json.decode(order_from_parent(), type=TuningTask)
    sys.stdout.buffer.write(msgspec.json.encode(uvloop.run(measure(task))))


if __name__ == "__main__":
    main()
