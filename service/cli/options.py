"""Options that several commands share: each has one name, one environment variable and one help text."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from saccade.service.cli.stored_repository import place
from saccade.service.core import LONGEST_OBJECTIVE_MS, OBJECTIVE_RANGE, SHORTEST_OBJECTIVE_MS


def objective_ms(text: str | float) -> float:
    """Milliseconds in which requests are to be answered, not nan. Raises click.BadParameter."""
    with contextlib.suppress(ValueError):
        if SHORTEST_OBJECTIVE_MS <= float(text) <= LONGEST_OBJECTIVE_MS:
            return float(text)
    raise click.BadParameter(f"{text!r} is not {OBJECTIVE_RANGE}")


repository_option = click.option(
    "--repository",
    "root",
    envvar="SACCADE_REPOSITORY",
    default="repository",
    show_default=True,
    type=click.Path(path_type=Path),
    callback=place,
    help="model repository: a directory or the URL of an object store",
)
serving_dir_option = click.option(
    "--serving-dir",
    envvar="SACCADE_SERVING_DIR",
    type=click.Path(path_type=Path),
    help="where <model>.json lies instead of serving.json beside the versions",
)
json_option = click.option("--json", "as_json", is_flag=True, help="one JSON document for machines")
