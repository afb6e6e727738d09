"""Implements `saccade-export gate`, which judges a report again, and `qualify`, which settles checks on a GPU."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click
from rich.console import Console

from saccade.export.cli import options
from saccade.export.cli.options import FILE, print_json
from saccade.export.cli.signing import signer_from
from saccade.export.data.datasets import DataStore
from saccade.export.errors import DeviceError, DeviceMissing, PublishError, RecipeError
from saccade.export.gate.adopted_plans import adopt_plans
from saccade.export.gate.decision import denial_text, verdict
from saccade.export.gate.device_figures import EvaluationData
from saccade.export.gate.device_probe import TensorRtProbe, missing_for_plans
from saccade.export.gate.judged_variants import judged_again
from saccade.export.gate.on_device import settle
from saccade.export.gate.settled_version import publish_settled
from saccade.export.gate.table import gate_table
from saccade.export.pipeline import Listener, RunSettings, run_pipeline
from saccade.export.publish.repository import version_numbers
from saccade.export.qualification.accuracy import Answer
from saccade.export.qualification.reference import reference_answers
from saccade.export.recipe import LoadedRecipe, load_recipe
from saccade.export.reports.export_report import read_report
from saccade.service.repository.plan_seal import engines_secret
from saccade.service.repository.plans import PlanStore, engines_root
from saccade.service.repository.verify import verify_version

DONE, FAILED = 0, 1


@click.command()
@click.argument("report", type=FILE)
@click.option("--recipe", type=FILE, help="hold the report's thresholds against this recipe's")
@click.option("--table", is_flag=True, help="print every check with its value and limit")
@options.as_json
def gate(report: Path, recipe: Path | None, table: bool, as_json: bool) -> None:
    """Judges REPORT, a report.json, again with the thresholds it holds; files and report are hashed again.

    Exit code 1 when nothing is accepted, or when something is denied now that was not denied then.
    """
    found = read_report(report)
    if not found.variants:
        raise RecipeError(f"{report} holds no variant to judge; run `saccade-export run` again")
    agreed = None if recipe is None else load_recipe(recipe).recipe.gate
    verdicts = [judged_again(found, variant, report.parent, agreed) for variant in found.variants]
    decisions = {verdict.qualify.variant: verdict.gate for verdict in verdicts}
    if as_json:
        print_json({name: decision.model_dump(mode="json") for name, decision in decisions.items()})
    elif table:
        Console(width=None if sys.stdout.isatty() else 200).print(gate_table(found.model, decisions))
    else:
        for name, decision in decisions.items():
            print(f"{name} accepted" if decision.accepted else denial_text(name, decision))
    is_worse = any(
        verdict(before.gate) != "denied" and verdict(now.gate) == "denied"
        for before, now in zip(found.variants, verdicts, strict=True)
    )
    is_served = any(decision.accepted for decision in decisions.values())
    sys.exit(DONE if is_served and not is_worse else FAILED)


@click.command()
@click.argument("source", type=FILE)
@click.option("--on-this-device", is_flag=True, help="build plans and measure them here")
@click.option("--recipe", type=FILE, help="of a version directory: it names the test data")
@options.repository_directory
@options.work
@options.engines
@options.engines_key
@options.sign_key
@options.no_sign
def qualify(
    source: Path,
    on_this_device: bool,
    recipe: Path | None,
    repository: Path,
    work: Path,
    engines: Path | None,
    engines_key: Path | None,
    sign_key: Path | None,
    no_sign: bool,
) -> None:
    """Settles what a published version left pending, on the GPU at hand; a new version holds the outcome.

    SOURCE is a recipe.yaml, whose newest version is meant, or a version directory together with --recipe.
    """
    if not on_this_device:
        raise RecipeError("say --on-this-device; `saccade-export step RECIPE qualify.VARIANT` measures a file again")
    signer = signer_from(sign_key, no_sign=no_sign)
    missing = missing_for_plans()  # checked first, because nothing else is worth waiting for without a device
    if missing:
        raise DeviceMissing(f"pending checks cannot be settled on this machine: {'; '.join(missing)}")
    recipe_path = recipe if source.is_dir() else source
    if recipe_path is None:
        raise RecipeError(f"{source} does not hold its test images: add --recipe with the recipe that made it")
    loaded = load_recipe(recipe_path)
    version_dir = source if source.is_dir() else newest_version_dir(repository, loaded.recipe.model)
    store = DataStore()
    key = None if engines_key is None else engines_secret(engines_key)
    plans = PlanStore(engines or engines_root(version_dir.parent.parent), key)
    version = verify_version(version_dir)
    probe = TensorRtProbe(version, plans)
    data = EvaluationData(store.split(loaded, "test"), eager_reference(loaded, RunSettings(work, repository), store))
    settled = settle(version_dir, loaded.recipe, data, probe, lambda text: print(text, file=sys.stderr))
    made = publish_settled(settled, signer)
    for name in adopt_plans(settled, made, version.manifest, plans, probe.key_of):
        print(f"plan of {name}: measured, and there for servers of {made.name}")
    decisions = {each.qualify.variant: each.gate for each in settled.report.variants}
    Console(width=None if sys.stdout.isatty() else 200).print(gate_table(settled.report.model, decisions))
    print(f"{made}: settled {', '.join(settled.variants)} of version {version_dir.name}")


def newest_version_dir(repository: Path, model: str) -> Path:
    """Returns the directory of a model's newest version. Raises PublishError when the repository has none."""
    numbers = version_numbers(repository / model)
    if not numbers:
        raise PublishError(f"no version of {model!r} in {repository}: `saccade-export run` publishes one")
    return repository / model / str(numbers[-1])


def eager_reference(loaded: LoadedRecipe, settings: RunSettings, store: DataStore) -> Answer:
    """Returns the eager network's answers to the test split, stored or made now. Raises DeviceError."""
    quiet = Listener(started=lambda name: None, noted=lambda text: None, finished=lambda result: None)
    results = run_pipeline(loaded, replace(settings, until="reference"), store, quiet)
    made = results[-1].artifact
    if results[-1].status == "failed" or made is None:
        raise DeviceError(f"step {results[-1].step} failed: {results[-1].detail.get('error', 'no reason given')}")
    return reference_answers(made, loaded.recipe)
