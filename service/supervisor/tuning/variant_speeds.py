"""Compares the variants of a version on the machine that serves it, before it is loaded; kept for the next start.

Where nothing can be compared, or comparing fails, the exporter's comparison stands.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import structlog
from pydantic import Field

from saccade.models.contract.manifest import Manifest
from saccade.models.contract.paired_speed import MIN_ROUNDS, PairedSpeed
from saccade.models.contract.specs import Frozen
from saccade.service.backends.registry import absent_kinds
from saccade.service.device_names import is_cpu
from saccade.service.paired_timing import ROUNDS
from saccade.service.repository.variants import by_exactness, runnable_variants, with_pairs
from saccade.service.repository.verify import VerifiedVersion
from saccade.service.settings import Settings
from saccade.service.supervisor.placement.specs import batch_sizes
from saccade.service.supervisor.tuning.kept import LARGEST_FILE_BYTES, files_of, keep, known, last_line, place_of
from saccade.service.supervisor.tuning.program import answer_of

log = structlog.get_logger()

_MODULE = "saccade.service.supervisor.tuning.comparing"
_PAIR_S = 1.5  # for each variant beside the most exact one
_WIDE = 1.1  # an interval around 1 that is wider says little
_TIMEOUT_S = 30.0  # of slow networks, whose fewest rounds take longer


class Comparison(Frozen):
    """The order to compare variants on the processor with a worker's threads."""

    version_dir: str
    manifest_sha256: str
    variants: tuple[str, ...]  # the most exact first
    batch_sizes: tuple[int, ...]  # ascending from 1
    threads: int
    allow_spinning: bool
    budget_s: float


class ComparedHere(Frozen):
    """The ratios of every variant against each more exact one, and why others have none."""

    pairs: dict[str, tuple[PairedSpeed, ...]]
    failures: dict[str, str] = Field(default_factory=dict)

    @property
    def is_worth_keeping(self) -> bool:
        """False where the next start may learn more: a reason such as too little memory may pass, or a busy machine."""
        doubtful = (
            pair.ci_low <= 1.0 <= pair.ci_high and pair.ci_high > _WIDE * pair.ci_low
            for pairs in self.pairs.values()
            for pair in pairs
        )
        return not self.failures and not any(doubtful)


async def compared_here(version: VerifiedVersion, settings: Settings, *, may_measure: bool) -> VerifiedVersion:
    """Returns the version with the paired speeds of this machine in its manifest, if they are known or measured now."""
    order = comparison_for(version, settings)
    if order is None:
        return version
    manifest, start_s = version.manifest, time.monotonic()
    place = place_of(
        settings.repository,
        [files_of(manifest, [name]) for name in order.variants],
        order.batch_sizes,
        order.threads,
        order.allow_spinning,
    )
    found = before = known(place, partial(_read, order))
    fields = {"model": manifest.model, "version": manifest.version}
    if found is None:
        if not may_measure:
            return version
        try:
            found = await _measured(order)
        except (OSError, ValueError) as error:
            reason = last_line(str(error) or type(error).__name__)
            log.warning("variants_not_compared", **fields, reason=reason, effect="the exporter's comparison stands")
            return version
        if found.is_worth_keeping:
            keep(place, found.model_dump_json(indent=2).encode())
    for name, reason in found.failures.items():
        log.warning("variant_not_timed", **fields, variant=name, reason=reason)
    log.info(
        "variants_compared",
        **fields,
        pairs={name: [each.text for each in pairs] for name, pairs in found.pairs.items() if pairs},
        seconds=round(time.monotonic() - start_s, 2),
        measured="before" if before else "now",
        kept=found.is_worth_keeping,
    )
    return replace(version, manifest=with_pairs(manifest, found.pairs), is_compared_here=True)


def comparison_for(version: VerifiedVersion, settings: Settings) -> Comparison | None:
    """What to compare; None where measurements decide nothing, or not on a processor."""
    is_open = settings.ladder_names is None or (settings.variant == "auto" and not settings.ladder_names)
    if not (
        is_open
        and settings.tuning == "measure"
        and settings.backend in ("auto", "onnxruntime")
        and any(is_cpu(device) for device in settings.devices)
    ):
        return None
    runnable = runnable_variants(version.manifest, "cpu", absent_kinds(settings.backend))
    names = tuple(item.name for item in by_exactness(runnable))
    if len(names) < 2 or _file_bytes(version.manifest, names) > LARGEST_FILE_BYTES:
        return None
    return Comparison(
        version_dir=str(version.path),
        manifest_sha256=version.manifest_sha256,
        variants=names,
        batch_sizes=batch_sizes(version.manifest, settings),
        threads=settings.device_threads,
        allow_spinning=settings.allow_spinning,
        budget_s=_PAIR_S * (len(names) - 1),
    )


def _file_bytes(manifest: Manifest, names: tuple[str, ...]) -> int:
    digests = set(files_of(manifest, names))
    return sum(entry.size_bytes for entry in manifest.files if entry.sha256 in digests)


def _read(order: Comparison, content: bytes) -> ComparedHere:
    """The results of an earlier start. Raises ValueError where they are not what is kept of this comparison."""
    found = ComparedHere.model_validate_json(content)
    against = {name: tuple(pair.against for pair in pairs) for name, pairs in found.pairs.items()}
    if against != {name: order.variants[:number] for number, name in enumerate(order.variants)}:
        raise ValueError("it does not have every pair of these variants")
    if not found.is_worth_keeping or not all(
        pair.device_kind == "cpu"
        and pair.ci_low <= pair.ratio <= pair.ci_high
        and MIN_ROUNDS <= pair.rounds <= ROUNDS
        and set(pair.batch_sizes) <= set(order.batch_sizes)
        for pairs in found.pairs.values()
        for pair in pairs
    ):
        raise ValueError("it has a pair that no comparison gives")
    return found


async def _measured(order: Comparison) -> ComparedHere:
    """Compares in a process of its own, so that a runtime that crashes ends no server. Raises OSError or ValueError."""
    return ComparedHere.model_validate_json(await answer_of(_MODULE, order.model_dump_json().encode(), _TIMEOUT_S))
