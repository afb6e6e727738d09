"""`saccade-export init` and `saccade-export sources`. Promises: lines for people, one JSON document for programs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from saccade.export.cli.init import summary, write_recipe
from saccade.export.sources.catalogue import NAMELESS, matching_names

JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")]


def register_sources(app: typer.Typer) -> None:
    """Side effect: adds both commands."""
    app.command()(init)
    app.command()(sources)


def init(
    data: Annotated[Path, typer.Option(help="your pictures: a folder per label, or one per split")],
    checkpoint: Annotated[
        Path | None, typer.Argument(help="directory, .safetensors, .pt2 or .onnx; without, weights are random")
    ] = None,
    source: Annotated[str | None, typer.Option(help="library/name, where the checkpoint does not say it")] = None,
    out: Annotated[Path, typer.Option(help="recipe to write")] = Path("recipe.yaml"),
    as_json: JsonOption = False,
) -> None:
    """Writes the recipe for a checkpoint, and says what was understood."""
    new = write_recipe(checkpoint, source, data, out)
    understood = summary(new.loaded)
    if as_json:
        _print_json({"recipe": str(out), "understood": understood})
        return
    print(new.text, end="")
    print(*(f"# {name:<14} {text}" for name, text in understood.items()), sep="\n")
    print(f"# wrote {out}; next: saccade-export run {out}")


def sources(
    pattern: Annotated[str | None, typer.Argument(help="part of a name, or a pattern such as 'timm/vit_*'")] = None,
    as_json: JsonOption = False,
) -> None:
    """Lists the networks that recipes may name, or how many each library has."""
    found = matching_names(pattern)
    if as_json:
        _print_json({"networks": found, "nameless": NAMELESS})
        return
    if pattern is not None:
        print(*(f"{library}/{name}" for library, names in found.items() for name in names), sep="\n")
    for library, names in found.items():
        print(f"# {library:<14} {len(names)} networks")
    if pattern is None:
        print(*(f"# {kind:<14} {text}" for kind, text in NAMELESS.items()), sep="\n")
        print("# `saccade-export sources PATTERN` lists names")


def _print_json(document: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
