"""Implements `saccade-export triton`, which writes a published version as a Triton model repository.

Imports neither torch nor a runtime.
"""

from __future__ import annotations

from pathlib import Path

import click

from saccade.export.cli import options
from saccade.export.cli.options import FILE, print_json
from saccade.export.errors import ExportError, RecipeError
from saccade.export.interchange.triton_repository import triton_variant, write_triton_repository
from saccade.service.errors import RepositoryError, SettingsError
from saccade.service.repository.trusted_keys import signature_policy
from saccade.service.repository.verify import verify_version


@click.command()
@click.argument("model")
@click.argument("version", type=int)
@click.option("--into", type=FILE, required=True, help="Triton's model repository; MODEL must not be in it")
@click.option("--variant", help="which; else the first accepted one that ONNX Runtime opens")
@options.repository_directory
@click.option("--trusted-key", type=FILE, multiple=True, help="public key; versions without are refused")
@options.as_json
def triton(
    model: str,
    version: int,
    into: Path,
    variant: str | None,
    repository: Path,
    trusted_key: tuple[Path, ...],
    as_json: bool,
) -> None:
    """Writes VERSION of MODEL as a Triton model repository: graph, config.pbtxt, labels, and what Triton lacks."""
    try:
        policy = signature_policy(trusted_key, is_required=bool(trusted_key))
        verified = verify_version(repository / model / str(version), policy)
    except SettingsError as error:
        raise RecipeError(str(error)) from error
    except RepositoryError as error:
        raise ExportError(str(error)) from error
    chosen = triton_variant(verified.manifest, variant)
    target = write_triton_repository(verified, chosen, into)
    if as_json:
        print_json({"directory": str(target), "variant": chosen.name, "file": chosen.file})
        return
    print(f"{target}: {chosen.name} for Triton's onnxruntime backend")
    print(f"what Triton will not do (decoding, resizing, boxes in source pixels): {target / 'README.md'}")
