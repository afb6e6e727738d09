"""Tunes a server to its processor before it starts, by one measurement per machine; a failure only logs a warning."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import msgspec
import structlog

from saccade.models.contract.manifest import ManifestError, read_manifest
from saccade.service.backends.registry import absent_kinds
from saccade.service.device_names import is_cpu
from saccade.service.errors import RepositoryError, SaccadeError
from saccade.service.repository.open import list_versions
from saccade.service.repository.variants import choose_variant, images_per_s
from saccade.service.repository.verify import ensure_judged, ensure_named
from saccade.service.settings import Settings
from saccade.service.supervisor.placement.specs import batch_sizes
from saccade.service.supervisor.tuning.forms import (
    ProcessForm,
    ProcessFormSpeed,
    TuningTask,
    applied,
    chosen,
    form_text,
    forms_for,
)
from saccade.service.supervisor.tuning.kept import LARGEST_FILE_BYTES, files_of, keep, known, last_line, place_of
from saccade.service.supervisor.tuning.program import answer_of

log = structlog.get_logger()

_MODULE = "saccade.service.supervisor.tuning.measuring"
_TIMEOUT_S = 60.0
_ROUNDS_TO_KEEP = 2  # a single one may have been cut short by a machine that did much else
_SLOWEST_IMAGE_S = 0.2  # a slower network fills the cores in any form, and too few images would be counted
_MOST_BATCH_S = 0.05  # with larger batches, trials would last longer than they count


def tuned(settings: Settings, cores: int) -> Settings:
    """Returns the given settings with a measured process form, where the operator did not set it."""
    forms = forms_for(settings, cores) if _may_choose(settings) else []
    if len(forms) < 2:
        return settings
    start_s = time.monotonic()
    try:
        task = _task(settings, forms, cores)
        if task is None:
            return settings
        manifest, _ = read_manifest(Path(task.version_dir))
        files = files_of(manifest, [task.variant])
        place = place_of(settings.repository, files, task.forms, task.cores)
        before = known(place, partial(_read, forms))
        measured = before or _measure(task)
    except (SaccadeError, ManifestError, OSError, msgspec.MsgspecError) as error:
        log.warning("tuning_failed", reason=last_line(str(error)), effect="cores are used by rule")
        return settings
    choice = chosen(measured)
    is_kept = choice.rounds >= _ROUNDS_TO_KEEP
    if before is None and is_kept:
        keep(place, msgspec.json.format(msgspec.json.encode(measured)))
    log.info(
        "tuned",
        model=Path(task.version_dir).parent.name,
        variant=task.variant,
        choice=form_text(choice.form),
        images_per_s={form_text(each.form): each.images_per_s for each in measured},
        lone_ms={form_text(each.form): each.lone_ms for each in measured},
        rounds={form_text(each.form): each.rounds for each in measured},
        seconds=round(time.monotonic() - start_s, 2),
        measured="before" if before else "now",
        kept=is_kept,
    )
    return applied(settings, choice.form)


def _may_choose(settings: Settings) -> bool:
    return (
        settings.tuning == "measure"
        and settings.backend in ("auto", "onnxruntime")
        and all(is_cpu(device) for device in settings.devices)
    )


def _task(settings: Settings, forms: Sequence[ProcessForm], cores: int) -> TuningTask | None:
    """Chooses the newest version that takes longest per image by its manifest; None where none can be tried."""
    newest: dict[str, tuple[float, Path, str]] = {}  # of each model that can be served
    for found in list_versions(settings.repository):
        try:
            manifest, _ = read_manifest(found.path)
            ensure_named(manifest, found.key.model, str(found.key.version))
            ensure_judged(manifest, allow_unjudged=settings.allow_unjudged)
            variant = choose_variant(manifest, settings.devices[0], settings.variant, absent_kinds(settings.backend))
            files = [found.path / file for file in (variant.file, *variant.external_data)]
            size_bytes = sum(file.stat().st_size for file in files)
        except (RepositoryError, ManifestError, OSError):  # reported when the version is loaded
            continue
        rate = images_per_s(variant, "cpu")
        if rate and size_bytes <= LARGEST_FILE_BYTES:
            newest[found.key.model] = (1 / rate, found.path, variant.name)
    if not newest:
        return None
    image_s, version_dir, name = max(newest.values())
    if image_s > _SLOWEST_IMAGE_S:
        return None
    sizes = batch_sizes(read_manifest(version_dir)[0], settings)
    sizes = tuple(size for size in sizes if size * image_s <= _MOST_BATCH_S) or sizes[:1]
    return TuningTask(str(version_dir), name, tuple(forms), cores, sizes, settings.model_dump_json())


def _read(forms: Sequence[ProcessForm], content: bytes) -> list[ProcessFormSpeed]:
    """The results of an earlier start. Raises MsgspecError, or ValueError where they are not what is kept of these."""
    found = msgspec.json.decode(content, type=list[ProcessFormSpeed])
    if [each.form for each in found] != list(forms) or chosen(found).rounds < _ROUNDS_TO_KEEP:
        raise ValueError("it is no result for these forms")
    return found


def _measure(task: TuningTask) -> list[ProcessFormSpeed]:
    takes = "up to 20 s, at the first start on this machine, or until it does little else meanwhile"
    log.info(
        "tuning", model=Path(task.version_dir).parent.name, variant=task.variant, forms=len(task.forms), takes=takes
    )
    found = asyncio.run(answer_of(_MODULE, msgspec.json.encode(task), _TIMEOUT_S))
    return msgspec.json.decode(found, type=list[ProcessFormSpeed])
