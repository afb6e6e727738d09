"""Options that several commands share: each has one name, one environment variable and one help text."""

from __future__ import annotations

from pathlib import Path

import click

from saccade.service.cli.stored_repository import place

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
