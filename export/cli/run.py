"""Declares the commands that export: `run`, `step` and `report`; `cli/exports.py` does their work.

A line is printed before that module is imported, because torch and the runtimes take seconds.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import click

from saccade.export.cli import options
from saccade.export.cli.options import FILE
from saccade.export.variants import VariantKind

_verbose = click.option("-v", "--verbose", is_flag=True, help="every fact of every step, and the gate's whole table")


@click.command()
@click.argument("recipes", type=FILE, nargs=-1, required=True)
@click.option(
    "--variant",
    "variants",
    type=click.Choice(get_args(VariantKind)),
    multiple=True,
    help="make only this one of the recipe's; repeat for several",
)
@options.repository
@options.work
@options.sign_key
@options.no_sign
@_verbose
@options.as_json
def run(
    recipes: tuple[Path, ...],
    variants: tuple[VariantKind, ...],
    repository: Path,
    work: Path,
    sign_key: Path | None,
    no_sign: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Exports each recipe: check data, wrap, convert, quantize, qualify, gate, publish."""
    from saccade.export.cli.exports import export
    from saccade.export.cli.signing import signer_from
    from saccade.export.pipeline import RunSettings
    from saccade.export.publish.repository import ensure_readable

    ensure_readable(repository)
    settings = RunSettings(work, repository, signer=signer_from(sign_key, no_sign=no_sign))
    sys.exit(export(recipes, settings, variants=variants, verbose=verbose, as_json=as_json))


@click.command()
@click.argument("recipe", type=FILE)
@click.argument("name")
@options.repository
@options.work
@options.sign_key
@options.no_sign
@_verbose
@options.as_json
def step(
    recipe: Path,
    name: str,
    repository: Path,
    work: Path,
    sign_key: Path | None,
    no_sign: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Runs one step again, NAME being such as wrap or precision.int8-cpu.

    What it builds on is taken from the work directory, or made first.
    """
    from saccade.export.cli.exports import export
    from saccade.export.cli.signing import signer_from
    from saccade.export.pipeline import RunSettings

    settings = RunSettings(work, repository, redo=name, until=name, signer=signer_from(sign_key, no_sign=no_sign))
    sys.exit(export((recipe,), settings, verbose=verbose, as_json=as_json))


@click.command()
@click.argument("source", type=FILE)
@click.option("--out", type=FILE, help="write all forms, plots and pictures here, print nothing")
@click.option(
    "--format", "form", type=click.Choice(["md", "html", "json"]), default="md", show_default=True, help="what to print"
)
@options.work
@options.as_json
def report(source: Path, out: Path | None, form: str, work: Path, as_json: bool) -> None:
    """Renders a report again: SOURCE is a report.json, a version directory or a recipe whose newest one is meant."""
    from saccade.export.cli.exports import render

    render(source, out, "json" if as_json else form, work)
