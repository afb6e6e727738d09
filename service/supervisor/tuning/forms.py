"""Lists the ways to use a processor's cores ("process forms") and chooses one by measurements.

HTTP processes decode, and workers run networks, on the same cores. Several workers with few threads each have a higher
throughput when the threads of a small network would wait for each other; one worker with all threads answers a single
request soonest, and holds every network only once. A setting that the operator gave is never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec

from saccade.service.settings import Settings, resolved

ROUNDS = 4  # of trials at most
_MOST_WORKERS = 4  # each worker holds every network
_WORTH_IT = 1.1  # a smaller gain over the usual best is within the error of so short a measurement
_IN_REACH = 0.85  # of the highest throughput in one round; a form below it is not the best one
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
_LATER_MS, _LATER_SHARE = 10.0, 0.1  # a single request may be answered later by the larger, for throughput


class ProcessForm(msgspec.Struct, frozen=True):
    """A way to use the cores; `threads` is the number of threads of each worker."""

    workers: int
    threads: int
    allow_spinning: bool
    api_processes: int


class TuningTask(msgspec.Struct, frozen=True):
    """The order to try forms with one variant; the first is the default."""

    version_dir: str
    variant: str
    forms: tuple[ProcessForm, ...]
    cores: int
    batch_sizes: tuple[int, ...]
    settings_json: str  # as given, not resolved


class ProcessFormSpeed(msgspec.Struct, frozen=True):
    """The speed that was measured for a form."""

    form: ProcessForm
    images_per_s: NotNegative  # answers per second of a closed loop through all processes of the form
    lone_ms: NotNegative  # time of a single request without other load
    rounds: Annotated[int, msgspec.Meta(ge=0, le=ROUNDS)]  # 0 where a single request would take too long


def forms_for(settings: Settings, cores: int) -> list[ProcessForm]:
    """Returns the forms to choose from, the default first; `settings` are as given, not resolved."""
    given = settings.model_fields_set
    spinnings = [settings.allow_spinning] if "allow_spinning" in given else [False, True]
    threads = settings.device_threads or max(1, cores // len(settings.devices))
    if threads == 1:  # a single thread has no other to wait for, so spinning has no effect
        spinnings = spinnings[:1]
    workers = [(len(settings.devices), threads, spinning) for spinning in spinnings]
    if not settings.device_threads and "device" not in given:
        for count in range(2, _MOST_WORKERS + 1):
            if cores % count == 0:  # all cores, or half of them: HTTP processes need some as well
                workers += [(each, cores // count, spinnings[0]) for each in (count, count // 2)]
    return [ProcessForm(*each, processes) for processes in _api_processes(settings, cores) for each in workers]


def _api_processes(settings: Settings, cores: int) -> list[int]:
    default = resolved(settings, cores).api_processes
    if settings.api_processes:
        return [default]
    return [default, *(count for count in (default // 2, default * 2) if 1 <= count <= cores)]


def is_soon_enough(lone_ms: float, first_lone_ms: float) -> bool:
    """Returns whether a form may be chosen, by its time for a single request and that of the first form."""
    return lone_ms <= first_lone_ms + max(_LATER_MS, _LATER_SHARE * first_lone_ms)


def in_reach(rates: Sequence[float]) -> list[bool]:
    """Returns for each form whether it may still be the best one, from the images per second of one round."""
    return [rate >= _IN_REACH * max(rates) for rate in rates]


def chosen(measured: Sequence[ProcessFormSpeed]) -> ProcessFormSpeed:
    """Chooses among the forms that were in all rounds: the one with most workers, unless another is clearly faster.

    Most workers with fewest threads is what every network was fastest with that was measured on a quiet machine, so a
    machine that does much else must show more than a small difference. Where no form was tried under load,
    a single request decides, and that is the first.
    """
    most = max(each.rounds for each in measured)
    if most == 0:
        return measured[0]
    finalists = [each for each in measured if each.rounds == most]
    usual = max(finalists, key=lambda each: each.form.workers)
    best = max(finalists, key=lambda each: each.images_per_s)
    return best if best.images_per_s >= _WORTH_IT * usual.images_per_s else usual


def applied(settings: Settings, form: ProcessForm) -> Settings:
    """Returns the settings of a server that uses its cores in this form."""
    update: dict[str, object] = {
        "device_threads": form.threads,
        "allow_spinning": form.allow_spinning,
        "api_processes": form.api_processes,
    }
    if form.workers != len(settings.devices):
        update["device"] = ",".join(f"cpu:{number}" for number in range(form.workers))
    return settings.model_copy(update=update)


def form_text(form: ProcessForm) -> str:
    """Returns a form in words, for logs."""
    spinning = ", spinning" if form.allow_spinning else ""
    return f"{form.workers} worker(s) of {form.threads} thread(s){spinning}, {form.api_processes} HTTP process(es)"
