"""Lists the ways to use a processor's cores ("process forms") and chooses one by measurements.

Several workers with few threads each have a higher throughput when the threads of a small network would wait for each
other. One worker with all threads answers a single request soonest, and holds every network only once. A setting that
the operator gave is never changed.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from saccade.service.settings import Settings

_MOST_WORKERS = 4  # each worker holds every network
_WORTH_IT = 1.05  # a smaller gain is within the error of so short a measurement
_LATER_MS = 5.0  # a single request may be answered later by this, in exchange for throughput


class ProcessForm(msgspec.Struct, frozen=True):
    """A way to use the cores; `threads` is the number of threads of each worker."""

    workers: int
    threads: int
    allow_spinning: bool


class TuningTask(msgspec.Struct, frozen=True):
    """The order to measure forms with one variant."""

    version_dir: str
    variant: str
    forms: tuple[ProcessForm, ...]
    cores: int
    trusted_keys: tuple[str, ...]
    require_signature: bool


class ProcessFormSpeed(msgspec.Struct, frozen=True):
    """The speed that was measured for a form."""

    form: ProcessForm
    images_per_s: float  # throughput while the same cores also decode the JPEGs
    lone_ms: float  # run time of a single image without other load


def forms_for(settings: Settings, cores: int) -> list[ProcessForm]:
    """Returns the forms to choose from, the default first; `settings` are as given, not resolved."""
    given = settings.model_fields_set
    spinnings = [settings.allow_spinning] if "allow_spinning" in given else [False, True]
    threads = settings.device_threads or max(1, cores // len(settings.devices))
    if threads == 1:  # a single thread has no other to wait for, so spinning has no effect
        spinnings = spinnings[:1]
    whole = [ProcessForm(len(settings.devices), threads, spinning) for spinning in spinnings]
    if settings.device_threads or "device" in given:
        return whole
    counts = [count for count in range(2, _MOST_WORKERS + 1) if cores % count == 0]
    return [*whole, *(ProcessForm(count, cores // count, spinnings[0]) for count in counts)]


def is_soon_enough(lone_ms: float, first_lone_ms: float) -> bool:
    """Returns whether a form may be chosen, by its run time for one image and that of the first form."""
    return lone_ms <= first_lone_ms + _LATER_MS


def chosen(measured: Sequence[ProcessFormSpeed]) -> ProcessFormSpeed:
    """Chooses the first form, unless another has a clearly higher throughput."""
    first = measured[0]
    best = max(measured, key=lambda each: each.images_per_s)
    return best if best.images_per_s >= _WORTH_IT * first.images_per_s else first


def applied(settings: Settings, form: ProcessForm) -> Settings:
    """Returns the settings of a server that uses its cores in this form."""
    update: dict[str, object] = {"device_threads": form.threads, "allow_spinning": form.allow_spinning}
    if form.workers != len(settings.devices):
        update["device"] = ",".join(f"cpu:{number}" for number in range(form.workers))
    return settings.model_copy(update=update)
