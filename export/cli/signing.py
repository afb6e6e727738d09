"""Implements `saccade-export keygen` and `sign`; keys are read from files and passwords from the environment."""

from __future__ import annotations

import os
from pathlib import Path

import click

from saccade.export.cli import options
from saccade.export.cli.options import FILE, KEY_FILE_VARIABLE, print_json
from saccade.export.errors import SigningError
from saccade.export.publish.signing import (
    PASSWORD_VARIABLE,
    Signer,
    account_signer,
    generate_keys,
    load_signer,
    sign_version,
)


def signer_from(path: Path | None, *, no_sign: bool) -> Signer | None:
    """Loads the key that is named, else the account's own; None, said on stderr, where the account can keep none.

    Raises SigningError for a named key that cannot be used, before any work is done.
    """
    if no_sign:
        return None
    password = os.environ.get(PASSWORD_VARIABLE)
    if path is not None:
        return load_signer(path, password)
    try:
        return account_signer(password)
    except SigningError as error:
        click.echo(f"versions will be unsigned: {error}; --sign-key names a key, --no-sign asks for none", err=True)
        return None


@click.command()
@click.argument("directory", type=FILE)
@options.as_json
def keygen(directory: Path, as_json: bool) -> None:
    """Makes an Ed25519 pair in DIRECTORY: one key signs versions, servers get the other. Keep the private one."""
    private, public = generate_keys(directory, os.environ.get(PASSWORD_VARIABLE))
    if as_json:
        print_json({"private_key": str(private), "public_key": str(public)})
        return
    print(f"private key {private}: for `saccade-export run --sign-key`; who has it can sign")
    print(f"public key  {public}: for servers, SACCADE_TRUSTED_KEYS")


@click.command()
@click.argument("version_dir", type=FILE)
@click.option("--key", type=FILE, envvar=KEY_FILE_VARIABLE, required=True, help="private key (PEM)")
@click.option("--replace", is_flag=True, help="in place of another signature")
@options.as_json
def sign(version_dir: Path, key: Path, replace: bool, as_json: bool) -> None:
    """Signs VERSION_DIR, such as repository/digits-classifier/3, after hashing its files; adds manifest.sig alone."""
    signer = load_signer(key, os.environ.get(PASSWORD_VARIABLE))
    is_new = sign_version(version_dir, signer, may_replace=replace)
    if as_json:
        print_json({"version_dir": str(version_dir), "key_id": signer.key_id, "is_new": is_new})
    else:
        print(f"{version_dir} {'signed' if is_new else 'was already signed'} by key {signer.key_id}")
