"""Implements `saccade-export build`, which builds TensorRT plans of a published version without importing torch.

Exits with 0 when every plan is there, 1 when one could not be made and 2 for wrong usage. A serving image without torch
runs this file as `python -m saccade.export.cli.build`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from saccade.export.cli import options
from saccade.export.cli.options import FILE, print_json
from saccade.export.errors import ExportError, RecipeError
from saccade.export.plans.progress import BuildProgress
from saccade.export.plans.runtime import present_gpu, required_tensorrt, target_capabilities
from saccade.export.plans.version_plans import BuiltPlan, buildable_variants, ensure_plan
from saccade.models.contract.manifest import Variant
from saccade.service.errors import BackendError, RepositoryError, SettingsError
from saccade.service.repository.open import list_versions
from saccade.service.repository.plan_seal import engines_secret
from saccade.service.repository.plans import PlanStore, engines_root
from saccade.service.repository.trusted_keys import signature_policy
from saccade.service.repository.verify import verify_version

DONE, FAILED, USAGE = 0, 1, 2
_SHOWN_WARNINGS = 3


@dataclass(frozen=True, slots=True)
class PlanOutcome:
    """Says what became of one plan: either `built` or `error` is set."""

    variant: str
    capability: str
    built: BuiltPlan | None = None
    error: str = ""


@click.command()
@click.argument("model")
@click.option("--variant", multiple=True, help="only this one; repeat for several")
@click.option(
    "--capability", multiple=True, help="as SM90; repeat for several. Else the GPU here, else the common ones"
)
@click.option(
    "--runtime",
    type=click.Choice(["tensorrt", "tensorrt_rtx"]),
    help="which TensorRT; else the first that is installed",
)
@options.repository_directory
@options.engines
@options.engines_key
@click.option("--trusted-key", type=FILE, multiple=True, help="public key; versions without are refused")
@click.option("--force", is_flag=True, help="build in place of plans that are there")
@options.as_json
def build(
    model: str,
    variant: tuple[str, ...],
    capability: tuple[str, ...],
    runtime: str | None,
    repository: Path,
    engines: Path | None,
    engines_key: Path | None,
    trusted_key: tuple[Path, ...],
    force: bool,
    as_json: bool,
) -> None:
    """Builds TensorRT plans of MODEL or MODEL/VERSION, one per variant and kind of GPU; by default of the newest.

    Their gate stays open until a GPU has settled it; until then they take no traffic.
    """
    tensorrt = required_tensorrt(runtime)
    capabilities = target_capabilities(tensorrt, capability, present_gpu())
    try:
        store = PlanStore(
            engines or engines_root(repository), None if engines_key is None else engines_secret(engines_key)
        )
        policy = signature_policy(trusted_key, is_required=bool(trusted_key))
        version = verify_version(_version_dir(repository, model), policy)
    except SettingsError as error:
        raise RecipeError(str(error)) from error
    except RepositoryError as error:
        raise ExportError(str(error)) from error
    variants = buildable_variants(version.manifest, variant)
    console = Console(stderr=as_json, highlight=False)
    outcomes: list[PlanOutcome] = []
    for chosen in variants:
        for target in capabilities:
            with build_progress(console, f"{chosen.name} {target}") as progress:
                work = partial(ensure_plan, version, chosen, tensorrt, target, store, force=force, progress=progress)
                outcome = _outcome(chosen, target, work)
            outcomes.append(outcome)
            for line in outcome_lines(outcome):
                console.print(line, markup=False, soft_wrap=True)
    if any(outcome.built is not None and outcome.built.stored.record.gate is None for outcome in outcomes):
        console.print(
            "gate: open (none of these plans was run; a GPU settles it, and until then they take no traffic)",
            markup=False,
            soft_wrap=True,
        )
    if as_json:
        print_json([outcome_document(outcome) for outcome in outcomes])
    sys.exit(FAILED if any(outcome.error for outcome in outcomes) else DONE)


def outcome_lines(outcome: PlanOutcome) -> list[str]:
    """Returns the lines that a person reads about one plan."""
    name = f"{outcome.variant} {outcome.capability}"
    if outcome.built is None:
        return [f"{name}: failed: {outcome.error}"]
    record = outcome.built.stored.record
    if not outcome.built.is_new:
        return [f"{name}: is there already, built {record.created}: {record.key.place} (--force builds again)"]
    dtypes = ", ".join(f"{kind} {count}" for kind, count in record.dtypes.items())
    lines = [
        f"{name}: {record.plan_bytes / 1e6:.2f} MB in {record.build_seconds:.1f} s: {record.key.place}",
        f"    {record.layers} layers: {dtypes}",
    ]
    claim = outcome.built.claim
    if claim is not None:
        verdict = "as in the file" if claim.is_kept else f"LOST: {', '.join(claim.lost[:_SHOWN_WARNINGS])}"
        lines.append(
            f"    {claim.in_network:.1%} of the multiply-adds in {claim.asked} (file {claim.in_file:.1%}), {verdict}"
        )
    return lines + [f"    warning: {text}" for text in record.warnings[:_SHOWN_WARNINGS]]


def outcome_document(outcome: PlanOutcome) -> dict[str, Any]:
    """Returns the same facts as JSON values for programs."""
    document: dict[str, Any] = {"variant": outcome.variant, "capability": outcome.capability, "error": outcome.error}
    if outcome.built is None:
        return document
    claim = outcome.built.claim
    return document | {
        "is_new": outcome.built.is_new,
        "directory": str(outcome.built.stored.directory),
        "record": outcome.built.stored.record.model_dump(mode="json"),
        "precision": None
        if claim is None
        else {
            "asked": claim.asked,
            "in_file": claim.in_file,
            "in_network": claim.in_network,
            "lost": list(claim.lost),
        },
    }


def _outcome(variant: Variant, capability: str, work: Callable[[], BuiltPlan]) -> PlanOutcome:
    """Builds one plan and records its failure, so that the other plans are still built."""
    try:
        return PlanOutcome(variant.name, capability, built=work())
    except (ExportError, RepositoryError, BackendError) as error:
        return PlanOutcome(variant.name, capability, error=str(error))


def _version_dir(repository: Path, named: str) -> Path:
    """Returns the named version's directory, or the newest one's. Raises RecipeError naming the versions that exist."""
    model, _, number = named.partition("/")
    try:
        found = [version for version in list_versions(repository) if version.key.model == model]
    except RepositoryError as error:
        raise ExportError(str(error)) from error
    wanted = [version for version in found if number in ("", str(version.key.version))]
    if not wanted:
        known = ", ".join(f"{version.key.model}/{version.key.version}" for version in found) or "no version of it"
        raise RecipeError(f"no {named!r} in {repository}: there is {known}")
    return wanted[-1].path


@contextmanager
def build_progress(console: Console, name: str) -> Iterator[BuildProgress]:
    """Shows a build's progress: a bar on a terminal, plain lines elsewhere, since TensorRT may need minutes."""
    if not console.is_terminal:
        console.print(f"{name}: building or looking for it", markup=False)
        yield lambda stage, done_share: True
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        bar = bars.add_task(name, total=1.0)

        def told(stage: str, done_share: float) -> bool:
            bars.update(bar, completed=done_share, description=f"{name} [bold]{stage}[/bold]")
            return True

        yield told


def main() -> None:
    """Runs the command without torch; a known failure ends as one line on stderr."""
    try:
        build()
    except ExportError as error:
        print(f"saccade-export: {error}", file=sys.stderr)
        raise SystemExit(USAGE if isinstance(error, RecipeError) else FAILED) from error


if __name__ == "__main__":
    main()
