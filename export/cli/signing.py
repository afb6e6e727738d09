"""`saccade-export keygen` and `saccade-export sign`. Promises: keys from files, the password from the environment."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import orjson
import typer

from saccade.export.publish.signing import (
    KEY_FILE_VARIABLE,
    PASSWORD_VARIABLE,
    Signer,
    generate_keys,
    load_signer,
    sign_version,
)

SignKeyOption = Annotated[
    Path | None,
    typer.Option(
        envvar=KEY_FILE_VARIABLE, help=f"private key (PEM) that signs what is published; {PASSWORD_VARIABLE} opens it"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="print one JSON document instead of lines")]


def register_signing(app: typer.Typer) -> None:
    """Side effect: adds both commands."""
    app.command()(keygen)
    app.command()(sign)


def signer_from(path: Path | None) -> Signer | None:
    """The key named on the command line or in the environment. Raises SigningError before any work is done."""
    return None if path is None else load_signer(path, os.environ.get(PASSWORD_VARIABLE))


def keygen(
    directory: Annotated[Path, typer.Argument(help="where the pair goes; keep the private one to yourself")],
    as_json: JsonOption = False,
) -> None:
    """Makes an Ed25519 pair: one key signs versions, servers get the other."""
    private, public = generate_keys(directory, os.environ.get(PASSWORD_VARIABLE))
    if as_json:
        _print_json({"private_key": str(private), "public_key": str(public)})
        return
    print(f"private key {private}: for `saccade-export run --sign-key`; who has it can sign")
    print(f"public key  {public}: for servers, SACCADE_TRUSTED_KEYS")


def sign(
    version_dir: Annotated[Path, typer.Argument(help="published version, as repository/digits-classifier/3")],
    key: Annotated[Path, typer.Option(envvar=KEY_FILE_VARIABLE, help="private key (PEM)")],
    replace: Annotated[bool, typer.Option("--replace", help="in place of another signature")] = False,
    as_json: JsonOption = False,
) -> None:
    """Signs a version that is already published, after hashing its files; adds manifest.sig and nothing else."""
    signer = load_signer(key, os.environ.get(PASSWORD_VARIABLE))
    is_new = sign_version(version_dir, signer, replace=replace)
    if as_json:
        _print_json({"version_dir": str(version_dir), "key_id": signer.key_id, "is_new": is_new})
    else:
        print(f"{version_dir} {'signed' if is_new else 'was already signed'} by key {signer.key_id}")


def _print_json(document: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
