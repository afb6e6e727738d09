"""`saccade repository list|show|verify`. Promises: reads only; verify exits 1 when any version must not be served."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from models.manifest import Manifest, ManifestError, read_manifest
from service.errors import RepositoryError
from service.repository.open import FoundVersion, list_versions
from service.repository.verify import verify_version

_repository_option = click.option(
    "--repository",
    "root",
    envvar="SACCADE_REPOSITORY",
    default="repository",
    show_default=True,
    type=click.Path(path_type=Path),
    help="model repository",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="one JSON document for machines")


@click.group()
def repository() -> None:
    """Looks into a model repository."""


@repository.command("list")
@_repository_option
@_json_option
def list_command(root: Path, as_json: bool) -> None:
    """All versions, with the figures their manifests measured."""
    rows = [row for found in list_versions(root) for row in _rows(found)]
    if as_json:
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    table = Table("model", "version", "variant", "gate", "metric", "95 % interval", "best images/s", "measured on")
    for row in rows:
        table.add_row(*[str(value) for value in row.values()])
    Console().print(table)


def _rows(found: FoundVersion) -> list[dict[str, Any]]:
    try:
        manifest, _ = read_manifest(found.path)
    except ManifestError as error:
        return [
            {
                "model": found.key.model,
                "version": found.key.version,
                "variant": "",
                "gate": f"unreadable: {error}",
                "metric": "",
                "interval": "",
                "images_per_s": "",
                "measured_on": "",
            }
        ]
    return [
        {
            "model": manifest.model,
            "version": manifest.version,
            "variant": variant.name,
            "gate": "passed" if variant.gate.accepted else "denied",
            "metric": f"{variant.metric.name} {variant.metric.value:.4f}",
            "interval": f"{variant.metric.ci_low:.4f} - {variant.metric.ci_high:.4f}",
            "images_per_s": round(max((item.images_per_s for item in variant.latency), default=0.0), 1),
            "measured_on": f"{variant.measured_on.name}, {variant.measured_on.threads} threads",
        }
        for variant in manifest.variants
    ]


@repository.command("show")
@click.argument("model")
@click.argument("version", required=False)
@_repository_option
def show_command(model: str, version: str | None, root: Path) -> None:
    """The manifest of a version (the newest one when none is named)."""
    click.echo(orjson.dumps(_manifest_of(root, model, version).model_dump(mode="json"), option=orjson.OPT_INDENT_2))


def _manifest_of(root: Path, model: str, version: str | None) -> Manifest:
    found = [item for item in list_versions(root) if item.key.model == model]
    wanted = [item for item in found if version is None or str(item.key.version) == version]
    if not wanted:
        known = ", ".join(f"{item.key.model}/{item.key.version}" for item in list_versions(root)) or "none"
        raise RepositoryError(f"no such version in {root}; there are: {known}")
    try:
        return read_manifest(wanted[-1].path)[0]
    except ManifestError as error:
        raise RepositoryError(str(error)) from error


@repository.command("verify")
@_repository_option
@_json_option
def verify_command(root: Path, as_json: bool) -> None:
    """Hashes every file of every version against its manifest."""
    results = [_verification(found) for found in list_versions(root)]
    if as_json:
        click.echo(orjson.dumps(results, option=orjson.OPT_INDENT_2))
    else:
        for result in results:
            click.echo(f"{result['model']}/{result['version']}: {result['reason'] or 'verified'}")
    if not results or any(result["reason"] for result in results):
        sys.exit(1)


def _verification(found: FoundVersion) -> dict[str, Any]:
    try:
        verify_version(found.path)
        reason = ""
    except RepositoryError as error:
        reason = str(error)
    return {"model": found.key.model, "version": found.key.version, "reason": reason}
