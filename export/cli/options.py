"""Defines options and output that commands share, without heavy imports."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from saccade.export.errors import RecipeError

if TYPE_CHECKING:
    from rich.console import Console

FILE = click.Path(path_type=Path)  # accepts files and folders; each command reports a missing one itself


def _in_directory(_context: click.Context, _parameter: click.Parameter, repository: Path) -> Path:
    """Refuses the URL of an object store for a command that works in the repository itself. Raises RecipeError."""
    from saccade.service.repository.object_store.address import url_of

    url = url_of(repository)
    if url is not None:
        raise RecipeError(
            f"this command needs a repository in a directory, and not {url}: give a version's directory of a server's "
            "copy, or publish into a directory first"
        )
    return repository


as_json = click.option("--json", "as_json", is_flag=True, help="print one JSON document instead of lines")
engines = click.option(
    "--engines", type=FILE, envvar="SACCADE_ENGINES_DIR", help="where plans lie; else .engines in the repository"
)
engines_key = click.option(
    "--engines-key", type=FILE, envvar="SACCADE_ENGINES_KEY_FILE", help="secret that vouches for plans"
)
_repository = partial(
    click.option, "--repository", type=FILE, envvar="SACCADE_REPOSITORY", default="repository", show_default=True
)
repository = _repository(help="model repository: a directory, or s3://, gs:// or az:// with a prefix")
repository_directory = _repository(callback=_in_directory, help="model repository, a directory")
KEY_FILE_VARIABLE = "SACCADE_SIGN_KEY_FILE"
sign_key = click.option(
    "--sign-key",
    type=FILE,
    envvar=KEY_FILE_VARIABLE,
    help="private key (PEM) that signs what is published, else this account's; SACCADE_SIGN_KEY_PASSWORD opens it",
)
no_sign = click.option("--no-sign", is_flag=True, help="publish unsigned")
work = click.option(
    "--work", type=FILE, default=".saccade/export", show_default=True, help="where steps keep what they made"
)


_WIDE = 200  # width in characters of a table that is written to a file


def say_reading(*sources: object) -> None:
    """Prints the first line of a command, on stderr, before it imports what takes seconds."""
    print(f"# reading {', '.join(map(str, sources))} ...", file=sys.stderr, flush=True)


def console_for(*, is_stderr: bool = False) -> Console:
    """Returns a console of the terminal's width, or a wide one without control codes where there is no terminal."""
    from rich.console import Console  # here, because the first words of a command wait for nothing that they can spare

    console = Console(stderr=is_stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=is_stderr, highlight=False, width=_WIDE)


def print_json(document: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
