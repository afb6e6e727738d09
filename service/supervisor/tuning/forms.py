"""Ways to use a processor's cores, and which of them to take. Promises: pure; settings that somebody named stay.

More workers with fewer threads each do more when small networks leave threads waiting for each other; one with all
threads answers a lone request soonest, and holds every network once.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from saccade.service.settings import Settings

_MOST_WORKERS = 4  # each holds every network
_WORTH_IT = 1.05  # less than this is within what such a short measurement is off by
_LATER_MS = 5.0  # that a lone request may be answered later by, for the sake of throughput


class ProcessForm(msgspec.Struct, frozen=True):
    """`threads` are each worker's, for one batch."""

    workers: int
    threads: int
    allow_spinning: bool


class TuningTask(msgspec.Struct, frozen=True):
    """What to measure, and with what."""

    version_dir: str
    variant: str
    forms: tuple[ProcessForm, ...]
    cores: int
    trusted_keys: tuple[str, ...]
    require_signature: bool


class MeasuredForm(msgspec.Struct, frozen=True):
    """What a form reached."""

    form: ProcessForm
    images_per_s: float  # of JPEGs that the same cores decode
    lone_ms: float  # one image's run, nothing else going on


def forms_for(settings: Settings, cores: int) -> list[ProcessForm]:
    """What is open to be chosen, today's rule first; a single form leaves no choice. `settings` as they were given."""
    given = settings.model_fields_set
    spinnings = [settings.allow_spinning] if "allow_spinning" in given else [False, True]
    threads = settings.device_threads or max(1, cores // len(settings.devices))
    if threads == 1:  # nobody to wait for
        spinnings = spinnings[:1]
    whole = [ProcessForm(len(settings.devices), threads, spinning) for spinning in spinnings]
    if settings.device_threads or "device" in given:
        return whole
    counts = [count for count in range(2, _MOST_WORKERS + 1) if cores % count == 0]
    return [*whole, *(ProcessForm(count, cores // count, spinnings[0]) for count in counts)]


def is_soon_enough(lone_ms: float, first_lone_ms: float) -> bool:
    """Whether a form may be chosen at all: by what it takes for one image, and what the first form does."""
    return lone_ms <= first_lone_ms + _LATER_MS


def chosen(measured: Sequence[MeasuredForm]) -> MeasuredForm:
    """The first, unless another does clearly more."""
    first = measured[0]
    best = max(measured, key=lambda each: each.images_per_s)
    return best if best.images_per_s >= _WORTH_IT * first.images_per_s else first


def applied(settings: Settings, form: ProcessForm) -> Settings:
    """The settings of a server that uses its cores this way."""
    update: dict[str, object] = {"device_threads": form.threads, "allow_spinning": form.allow_spinning}
    if form.workers != len(settings.devices):
        update["device"] = ",".join(f"cpu:{number}" for number in range(form.workers))
    return settings.model_copy(update=update)
