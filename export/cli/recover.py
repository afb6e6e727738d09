"""Implements `saccade-export recover`, which trains a 2:4 network to repeat the dense network's answers."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table

from saccade.export.cli import options
from saccade.export.cli.options import FILE
from saccade.export.cli.progress import progress_listener
from saccade.export.compression.sparsity.mask_check import SPARSITY_FILE
from saccade.export.compression.sparsity.sparsify import RECOVERED_FILE
from saccade.export.data.datasets import DataStore
from saccade.export.pipeline import RunSettings, run_pipeline
from saccade.export.recipe import LoadedRecipe, load_recipe

_STEP = "compress.sparse24"


@click.command()
@click.argument("recipe", type=FILE)
@click.option("--out", type=FILE, required=True, help="safetensors file to write, for `sparsity.recovered`")
@options.work
@options.as_json
def recover(recipe: Path, out: Path, work: Path, as_json: bool) -> None:
    """Makes a network 2:4 and teaches it its answers back, whatever `sparsity.recovered` names already.

    The `sparsity` section of RECIPE says how.
    """
    loaded = from_scratch(load_recipe(recipe))
    settings = RunSettings(work, repository=work / "unpublished", until=_STEP)
    console = Console(stderr=True, highlight=False)
    with progress_listener(console, loaded, settings) as listener:
        last = run_pipeline(loaded, settings, DataStore(), listener)[-1]
    if last.artifact is None:
        sys.exit(1)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(last.artifact.file(RECOVERED_FILE), out)
    document = last.artifact.file(SPARSITY_FILE).read_bytes()
    if as_json:
        sys.stdout.buffer.write(document + b"\n")
    else:
        print_tables(Console(), orjson.loads(document))


def from_scratch(loaded: LoadedRecipe) -> LoadedRecipe:
    """Returns the recipe without an earlier recovery, and with a variant that needs one."""
    recipe = loaded.recipe
    sparsity = recipe.sparsity.model_copy(update={"recovered": None})
    variants = recipe.variants if "int8-trt-sparse24" in recipe.variants else (*recipe.variants, "int8-trt-sparse24")
    return loaded.model_copy(update={"recipe": recipe.model_copy(update={"sparsity": sparsity, "variants": variants})})


def print_tables(console: Console, document: dict[str, object]) -> None:
    """Prints the one-shot methods before recovery, then how the recovery went."""
    one_shot = Table("one-shot method", "channels in order", "tuning metric")
    for row in _rows(document["one_shot"]):
        one_shot.add_row(str(row["method"]), "yes" if row["permuted"] else "no", f"{row['tuning_metric']:.4f}")
    one_shot.add_row("dense network", "", f"{document['dense_tuning_metric']:.4f}")
    console.print(one_shot)
    recovery = document["recovery"]
    assert isinstance(recovery, dict)
    history = Table("recovery step", "loss", "tuning metric", "flip rate")
    for row in _rows(recovery["history"]):
        history.add_row(
            str(row["step"]), f"{row['loss']:.4f}", f"{row['tuning_metric']:.4f}", f"{row['flip_rate']:.2e}"
        )
    console.print(history)


def _rows(value: object) -> list[dict[str, float]]:
    assert isinstance(value, list)
    return value
