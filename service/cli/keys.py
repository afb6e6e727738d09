"""`saccade keys`: makes API keys, and the lines of SACCADE_API_KEYS_FILE that accept them."""

from __future__ import annotations

import re
import secrets
import sys
from collections.abc import Callable
from typing import Any

import click

from saccade.service.errors import BadParameter
from saccade.service.ipc.api_keys import DEFAULT_SCOPES, Scope, key_named

_KEY_BYTES = 32
_MIN_CHARACTERS = 16  # a shorter key could be found from its hash
_NAME = re.compile(r"[\w.-]{1,64}")


@click.group()
def keys() -> None:
    """Makes API keys. The server keeps only a hash of each, in SACCADE_API_KEYS_FILE."""


def _of_a_key(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--name", default="", help="whose key it is; letters, digits, dot, dash"),
        click.option(
            "--scope",
            "scopes",
            multiple=True,
            default=sorted(scope.value for scope in DEFAULT_SCOPES),
            show_default=True,
            type=click.Choice([scope.value for scope in Scope]),
            help="what it may do; several times for several",
        ),
    ):
        command = option(command)
    return command


@keys.command()
@_of_a_key
def new(**given: Any) -> None:
    """Prints the file's line of a new key; the key itself goes to stderr, once."""
    key = secrets.token_urlsafe(_KEY_BYTES)
    click.echo(_line(key, **given))
    click.echo(f"the key, for its owner alone: {key}", err=True)


@keys.command("hash")
@_of_a_key
def hash_key(**given: Any) -> None:
    """Prints the file's line of the key on stdin: on a command line it would be in every process list."""
    key = sys.stdin.readline().strip()
    if len(key) < _MIN_CHARACTERS or len(key.split()) != 1 or not key.isascii():
        raise BadParameter(f"a key has at least {_MIN_CHARACTERS} characters of ASCII, and no spaces")
    click.echo(_line(key, **given))


def _line(key: str, name: str, scopes: tuple[str, ...]) -> str:
    if name and not _NAME.fullmatch(name):
        raise BadParameter(f"{name!r} is no name: 1 to 64 letters, digits, dots and dashes")
    return key_named(key, map(Scope, scopes), name).line
