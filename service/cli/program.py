"""The `saccade` program. It exits with 0 when done, 1 when the work failed, 2 for wrong usage."""

from __future__ import annotations

import sys

import click

from saccade.service import __version__
from saccade.service.cli.bench import bench
from saccade.service.cli.doctor import doctor
from saccade.service.cli.keys import keys
from saccade.service.cli.predict import predict
from saccade.service.cli.repository import repository
from saccade.service.cli.rollout import rollout
from saccade.service.cli.serve import serve
from saccade.service.errors import SaccadeError, SettingsError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="saccade")
def saccade() -> None:
    """Serves vision models over HTTP, batched, from a repository of gated versions."""


for command in (serve, predict, bench, repository, rollout, keys, doctor):
    saccade.add_command(command)


def main() -> None:
    """Runs the command line. Errors say what to change."""
    try:
        saccade()
    except SettingsError as error:
        click.echo(f"saccade: {error}", err=True)
        sys.exit(2)
    except SaccadeError as error:
        click.echo(f"saccade: {error}", err=True)
        sys.exit(1)
