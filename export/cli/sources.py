"""Implements the commands `init` and `sources`, which print a line before heavy modules are imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from saccade.export.cli import options
from saccade.export.cli.options import FILE, print_json

if TYPE_CHECKING:
    from saccade.export.sources.onnx_recognition import SettledWord


_ORIGINS = {
    "said": "said by the file or the recipe",
    "found": "found by running it on pictures",
    "assumed": "assumed, so check it; the recipe marks lines that hold it",
}


@click.command()
@click.argument("checkpoint", type=FILE, required=False)
@click.option("--data", type=FILE, required=True, help="your pictures: a folder per label, or one per split")
@click.option("--source", help="library/name, where the checkpoint does not say it")
@click.option("--out", type=FILE, default="recipe.yaml", show_default=True, help="recipe to write")
@click.option("--unlabelled", is_flag=True, help="nobody labelled the pictures: what is published says unjudged")
@click.option("--measure/--no-measure", default=True, help="propose limits by running the network on tuning pictures")
@click.option("--show", is_flag=True, help="also write a page with the first pictures and the answers drawn on them")
@options.as_json
def init(
    checkpoint: Path | None,
    data: Path,
    source: str | None,
    out: Path,
    unlabelled: bool,
    measure: bool,
    show: bool,
    as_json: bool,
) -> None:
    """Writes the recipe for CHECKPOINT, or updates it, and says what was understood.

    CHECKPOINT is a directory, .safetensors, .pt2 or .onnx; without one, weights are random.
    """
    from saccade.export.cli.init import summary, with_proposal, write_page, write_recipe

    new = write_recipe(checkpoint, source, data, out, is_unlabelled=unlabelled)
    proposed: tuple[str, ...] = ()
    if measure:
        new, proposed = with_proposal(new, out)
    understood = summary(new.loaded)
    page = write_page(new, out.with_suffix(".html")) if show else None
    if as_json:
        found = [{"word": f.word, "value": f.value, "origin": f.origin, "why": f.why} for f in new.findings]
        shown = {} if page is None else {"page": str(page)}
        print_json(
            {
                "recipe": str(out),
                "understood": understood,
                "findings": found,
                "proposed": proposed,
                "edits": new.edits,
                **shown,
            }
        )
        return
    print(new.text, end="")
    print(*(f"# {name:<14} {text}" for name, text in understood.items()), sep="\n")
    print(*_table(new.findings), sep="\n", end="\n" if new.findings else "")
    print(*(f"# {'proposed':<14} {sentence}" for sentence in proposed), sep="\n", end="\n" if proposed else "")
    print(*(f"# {'your edits':<14} {sentence}" for sentence in new.edits), sep="\n", end="\n" if new.edits else "")
    if page is not None:
        print(f"# wrote {page}: the first pictures with the network's answers")
    print(f"# wrote {out}; next: {new.hint or f'saccade-export check {out}, then saccade-export run {out}'}")


@click.command()
@click.argument("pattern", required=False)
@options.as_json
def sources(pattern: str | None, as_json: bool) -> None:
    """Lists the networks that recipes may name, or how many each library has.

    PATTERN is part of a name, or a pattern such as 'timm/vit_*'.
    """
    # imported here because the libraries take seconds
    from saccade.export.sources.catalogue import NAMELESS, matching_names

    found = matching_names(pattern)
    if as_json:
        print_json({"networks": found, "nameless": NAMELESS})
        return
    if pattern is not None:
        print(*(f"{library}/{name}" for library, names in found.items() for name in names), sep="\n")
    for library, names in found.items():
        print(f"# {library:<14} {len(names)} networks")
    if pattern is None:
        print(*(f"# {kind:<14} {text}" for kind, text in NAMELESS.items()), sep="\n")
        print("# `saccade-export sources PATTERN` lists names")


def _table(findings: Sequence[SettledWord]) -> list[str]:
    """Groups the settled words by their origin, for people."""
    rows: list[str] = []
    for origin, title in _ORIGINS.items():
        group = [each for each in findings if each.origin == origin]
        rows += [f"# {title}:"] if group else []
        rows += [f"#   {each.word:<20} {each.value:<28} {each.why}" for each in group]
    return rows
