"""Tunes a server to its processor before it starts, by one measurement per machine; a failure only logs a warning.

Results are kept below `.tuning` in the repository, by what they depend on: the network's file, the number of cores, the
processor and the runtime. Remove that folder to measure again.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from saccade.models.contract.manifest import ManifestError, read_manifest
from saccade.service.device_names import is_cpu
from saccade.service.errors import RepositoryError, SaccadeError
from saccade.service.repository.open import newest_versions
from saccade.service.repository.variants import choose_variant, images_per_s
from saccade.service.settings import MIB, Settings
from saccade.service.supervisor.tuning.forms import (
    ProcessForm,
    ProcessFormSpeed,
    TuningTask,
    applied,
    chosen,
    forms_for,
)

log = structlog.get_logger()

_MODULE = "saccade.service.supervisor.tuning.measuring"
_TIMEOUT_S = 60.0
_LARGEST_FILE_BYTES = 512 * MIB  # every form loads the file; larger networks keep all threads busy in any form
_CPU_INFO = Path("/proc/cpuinfo")


def tuned(settings: Settings, cores: int) -> Settings:
    """Returns the given settings with measured workers, threads and spinning, where the operator did not set them."""
    forms = forms_for(settings, cores) if _may_choose(settings) else []
    if len(forms) < 2:
        return settings
    start_s = time.monotonic()
    try:
        task = _task(settings, forms, cores)
        if task is None:
            return settings
        place = settings.repository / ".tuning" / f"{_digest(task)}.json"
        known = _known(place, forms)
        measured = known or _measure(task)
    except (SaccadeError, ManifestError, OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        log.warning("tuning_failed", reason=_last_line(error), effect="cores are used by rule")
        return settings
    if not known:
        _keep(place, measured)
    choice = chosen(measured)
    log.info(
        "tuned",
        model=Path(task.version_dir).parent.name,
        variant=task.variant,
        choice=_named(choice.form),
        images_per_s={_named(each.form): each.images_per_s for each in measured},
        lone_ms={_named(each.form): each.lone_ms for each in measured},
        seconds=round(time.monotonic() - start_s, 2),
        measured="before" if known else "now",
    )
    return applied(settings, choice.form)


def _last_line(error: Exception) -> str:
    """Returns the last line of an error, which in a child's trace says what happened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def _may_choose(settings: Settings) -> bool:
    return (
        settings.tuning == "measure"
        and settings.backend in ("auto", "onnxruntime")
        and all(is_cpu(device) for device in settings.devices)
    )


def _named(form: ProcessForm) -> str:
    spinning = ", spinning" if form.allow_spinning else ""
    return f"{form.workers} worker(s) of {form.threads} thread(s){spinning}"


def _task(settings: Settings, forms: Sequence[ProcessForm], cores: int) -> TuningTask | None:
    """Chooses the newest version that takes longest per image by its manifest; None when none is small enough."""
    costs: list[tuple[float, Path, str]] = []
    for found in newest_versions(settings.repository):
        try:
            manifest, _ = read_manifest(found.path)
            variant = choose_variant(manifest, settings.devices[0], settings.variant)
            files = [found.path / file for file in (variant.file, *variant.external_data)]
            size_bytes = sum(file.stat().st_size for file in files)
        except (RepositoryError, ManifestError, OSError):  # reported when the version is loaded
            continue
        rate = images_per_s(variant, "cpu")
        if rate and size_bytes <= _LARGEST_FILE_BYTES:
            costs.append((1 / rate, found.path, variant.name))
    if not costs:
        return None
    _, version_dir, name = max(costs)
    keys = tuple(str(key) for key in settings.trusted_keys)
    return TuningTask(str(version_dir), name, tuple(forms), cores, keys, settings.require_signature)


def _digest(task: TuningTask) -> str:
    manifest, _ = read_manifest(Path(task.version_dir))
    variant = manifest.variant(task.variant)
    names = () if variant is None else (variant.file, *variant.external_data)
    files = sorted(entry.sha256 for entry in manifest.files if entry.path in names)
    parts = [files, task.forms, task.cores, _processor(), _runtime()]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def _processor() -> str:
    """Returns the processor's model and features, as the kernel reports them."""
    try:
        lines = _CPU_INFO.read_text("utf-8").splitlines()
    except OSError:
        return ""
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def _runtime() -> str:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return ""


def _known(place: Path, forms: Sequence[ProcessForm]) -> list[ProcessFormSpeed]:
    """Returns the results of an earlier start; empty when there are none for these forms."""
    try:
        found = msgspec.json.decode(place.read_bytes(), type=list[ProcessFormSpeed])
    except (OSError, msgspec.MsgspecError):
        return []
    return found if found and found[0].form == forms[0] and {each.form for each in found} <= set(forms) else []


def _measure(task: TuningTask) -> list[ProcessFormSpeed]:
    log.info("tuning", model=Path(task.version_dir).parent.name, variant=task.variant, forms=len(task.forms))
    found = subprocess.run(
        [sys.executable, "-P", "-m", _MODULE],
        input=msgspec.json.encode(task),
        capture_output=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    if found.returncode != 0:
        raise RepositoryError(found.stderr.decode(errors="replace") or f"{_MODULE} ended with {found.returncode}")
    return msgspec.json.decode(found.stdout, type=list[ProcessFormSpeed])


def _keep(place: Path, measured: list[ProcessFormSpeed]) -> None:
    """Keeps the results for the next start; without write access to the repository every start measures."""
    partial = place.with_suffix(f".{os.getpid()}")
    try:
        place.parent.mkdir(exist_ok=True)
        partial.write_bytes(msgspec.json.format(msgspec.json.encode(measured)))
        partial.replace(place)
    except OSError as error:
        log.info("tuning_not_kept", place=str(place), reason=error.strerror)
