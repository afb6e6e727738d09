"""Determines which instances a version has on each device without plans, from variants that passed their gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from saccade.models.contract.manifest import Manifest, Variant
from saccade.service.backends.registry import absent_kinds, backend_name
from saccade.service.device_names import device_kind
from saccade.service.errors import RepositoryError
from saccade.service.ipc.tensor_slots import layout_of
from saccade.service.repository.variants import NOTHING_ABSENT, Absent, comparisons
from saccade.service.settings import Settings
from saccade.service.supervisor.ladder import ladder_for


@dataclass(frozen=True, slots=True)
class InstanceSpec:
    """Which variant an instance runs, by which backend, on which device."""

    device: str
    variant: str
    backend: str
    plan_dir: str = ""  # folder of a plan
    plan_sha256: str = ""
    file_bytes: int = 0  # size of the files that the backend opens; memory is estimated from it until it is measured
    ladder_level: int = 0  # 0 is the best variant; instances of higher levels answer only under load


@dataclass(frozen=True, slots=True)
class Specs:
    """The instances of a version by device, best ladder level first, and the reasons of devices without any."""

    by_device: dict[str, tuple[InstanceSpec, ...]] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, tuple[str, ...]] = field(default_factory=dict)  # variants that were named and cannot serve
    choices: dict[str, str] = field(default_factory=dict)  # why the first variant serves, where there are others
    failed: dict[str, dict[str, str]] = field(default_factory=dict)  # variants that did not load, with the reasons

    def choice(self, *, is_compared_here: bool) -> str:
        """Says in words why the first variants serve; empty where there are no others."""
        where = "on this machine" if is_compared_here else "at export"
        return "; ".join(f"{each}; measured {where}" for each in dict.fromkeys(self.choices.values()))


def specs_for(manifest: Manifest, devices: Sequence[str], settings: Settings, failed: Absent = NOTHING_ABSENT) -> Specs:
    """Returns the instances on these devices, without variants that failed there.

    Raises RepositoryError when no device of the server can serve.
    """
    specs, absent = Specs(), absent_kinds(settings.backend)
    if failed:
        absent = {**absent, **failed}
    for device in devices:
        try:
            ladder = ladder_for(manifest, device, settings.variant, settings.ladder_names, absent)
        except RepositoryError as error:
            specs.refusals[device] = str(error)
            continue
        specs.by_device[device] = tuple(
            _spec(manifest, variant, device, level, settings) for level, variant in enumerate(ladder.variants)
        )
        told = comparisons(manifest, device, ladder.variants[0], absent)
        if told:
            specs.choices[device] = f"{_standing(ladder.variants[0].name, settings)}: {told}"
        if ladder.left_out:
            specs.left_out[device] = ladder.left_out
    is_all = bool(devices) and len(devices) == len(settings.devices)
    if is_all and not specs.by_device:
        raise RepositoryError(specs.refusals[devices[0]])
    return specs


def specs_without(
    specs: Specs, manifest: Manifest, device: str, failed: dict[str, str], settings: Settings
) -> Specs | None:
    """Returns the instances with others on this device, in place of variants that did not load there.

    None where nothing else may serve: the settings name the variant, none is left, or plans decide.
    """
    if settings.variant != "auto" or settings.ladder_names or device not in specs.by_device:
        return None
    failed = {**specs.failed.get(device, {}), **failed}
    try:
        others = specs_for(manifest, [device], settings, failed)
    except RepositoryError:
        return None
    if device not in others.by_device:
        return None
    return replace(
        specs,
        by_device=specs.by_device | others.by_device,
        choices=specs.choices | others.choices,
        failed={**specs.failed, device: failed},
    )


def ensure_fits_slot(manifest: Manifest, settings: Settings) -> None:
    """Raises RepositoryError when an image and its answer do not fit into a slot."""
    size_bytes = layout_of(manifest.input, manifest.answer, manifest.extras).size_bytes
    if size_bytes > settings.max_slot_bytes:
        raise RepositoryError(
            f"an image and its answer take {size_bytes:,} bytes, a slot has {settings.max_slot_bytes:,}: "
            "raise SACCADE_MAX_SLOT_BYTES"
        )


def batch_sizes(manifest: Manifest, settings: Settings) -> tuple[int, ...]:
    """Returns the manifest's batch sizes up to the limit that the settings name."""
    limit = settings.max_batch_size or manifest.allowed_batch_sizes[-1]
    return tuple(size for size in manifest.allowed_batch_sizes if size <= limit)


def _standing(name: str, settings: Settings) -> str:
    if settings.has_ladder:
        return f"{name} is on top of the ladder"
    return f"{name} serves" if settings.variant == "auto" else f"{name} serves because SACCADE_VARIANT names it"


def _spec(manifest: Manifest, variant: Variant, device: str, level: int, settings: Settings) -> InstanceSpec:
    backend, file_bytes = backend_name(variant, settings.backend), manifest.bytes_of(variant)
    return InstanceSpec(device, variant.name, backend, file_bytes=file_bytes, ladder_level=level)


def has_plans(device: str, settings: Settings) -> bool:
    """Returns whether plans decide what serves there (`engines/plan_decision.py`)."""
    return device_kind(device) == "cuda" and settings.backend != "fake"
