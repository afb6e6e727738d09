"""`saccade repository list|show|verify|engines`: commands that only read. `verify` exits with 1 if it refuses a
version.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from saccade.models.contract.manifest import Manifest, ManifestError, Variant, read_manifest
from saccade.service.cli.engines import engines
from saccade.service.cli.options import json_option, repository_option
from saccade.service.cli.verification import verification_of
from saccade.service.errors import RepositoryError, SignatureRefused
from saccade.service.repository.open import FoundVersion, list_versions
from saccade.service.repository.signature import read_signature
from saccade.service.repository.trusted_keys import signature_policy
from saccade.service.repository.variants import gate_state


@click.group()
def repository() -> None:
    """Looks into a model repository."""


repository.add_command(engines)


@repository.command("list")
@repository_option
@json_option
def list_command(root: Path, as_json: bool) -> None:
    """All versions, with the figures their manifests measured."""
    rows = [row for found in list_versions(root) for row in _rows(found)]
    if as_json:
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    table = Table(
        "model", "version", "variant", "gate", "metric", "95 % interval", "best images/s", "measured on", "key id"
    )
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
                "key_id": "",
            }
        ]
    key_id = _claimed_key_id(found.path)
    return [
        {
            "model": manifest.model,
            "version": manifest.version,
            "variant": variant.name,
            "gate": gate_state(variant),
            "metric": _metric(manifest, variant),
            "interval": f"{variant.metric.ci_low:.4f} - {variant.metric.ci_high:.4f}" if manifest.judged else "",
            "images_per_s": round(max((item.images_per_s for item in variant.latency), default=0.0), 1),
            "measured_on": f"{variant.measured_on.name}, {variant.measured_on.threads} threads",
            "key_id": key_id,
        }
        for variant in manifest.variants
    ]


def _metric(manifest: Manifest, variant: Variant) -> str:
    """Over all detections, and beside it from the score that requests get."""
    if not manifest.judged:
        return "unjudged"
    point, text = variant.operating_point, f"{variant.metric.name} {variant.metric.value:.4f}"
    return text if point is None else f"{text}, from score {point.score_threshold:g} {point.metric.value:.4f}"


def _claimed_key_id(version_dir: Path) -> str:
    """The id of the key that claims to have signed the version; only `verify` checks the claim."""
    try:
        return read_signature(version_dir).key_id
    except SignatureRefused:
        return ""


@repository.command("show")
@click.argument("model")
@click.argument("version", required=False)
@repository_option
def show_command(model: str, version: str | None, root: Path) -> None:
    """The manifest of a version (the newest one when none is named)."""
    path = _version_dir(root, model, version)
    try:
        manifest = read_manifest(path)[0]
    except ManifestError as error:
        raise RepositoryError(str(error)) from error
    key_id = _claimed_key_id(path)
    signed = {"signature_key_id": key_id} if key_id else {}
    waiting = {
        variant.name: [check.name for check in variant.gate.checks if check.pending]
        for variant in manifest.pending_variants()
    }
    pending = {"pending": waiting} if waiting else {}
    document = {**manifest.model_dump(mode="json"), **pending, **signed}
    click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))


def _version_dir(root: Path, model: str, version: str | None) -> Path:
    found = [item for item in list_versions(root) if item.key.model == model]
    wanted = [item for item in found if version is None or str(item.key.version) == version]
    if not wanted:
        raise _no_such_version(root)
    return wanted[-1].path


def _no_such_version(root: Path) -> RepositoryError:
    known = ", ".join(f"{item.key.model}/{item.key.version}" for item in list_versions(root)) or "none"
    return RepositoryError(f"no such version in {root}; there are: {known}")


@repository.command("verify")
@click.argument("wanted", metavar="[MODEL[/VERSION]]", required=False)
@repository_option
@click.option(
    "--trusted-keys",
    envvar="SACCADE_TRUSTED_KEYS",
    multiple=True,
    type=click.Path(path_type=Path),
    help="public key, or directory of them, whose signatures count; may be given again",
)
@click.option(
    "--require-signature",
    envvar="SACCADE_REQUIRE_SIGNATURE",
    is_flag=True,
    help="a version without a signature fails, too",
)
@json_option
def verify_command(
    wanted: str | None, root: Path, trusted_keys: tuple[Path, ...], require_signature: bool, as_json: bool
) -> None:
    """Hashes every file against its manifest and checks who signed: what a server does before it loads."""
    if require_signature and not trusted_keys:
        raise click.UsageError("--require-signature needs --trusted-keys: the public keys of who may sign versions")
    policy = signature_policy(trusted_keys, is_required=require_signature)
    results = [verification_of(found, policy) for found in _wanted_versions(root, wanted)]
    if as_json:
        click.echo(orjson.dumps([asdict(result) for result in results], option=orjson.OPT_INDENT_2))
    else:
        for result in results:
            click.echo(result.line)
    if not results or any(result.reason for result in results):
        sys.exit(1)


def _wanted_versions(root: Path, wanted: str | None) -> list[FoundVersion]:
    found = list_versions(root)
    if wanted is None:
        return found
    matching = [item for item in found if wanted in (item.key.model, f"{item.key.model}/{item.key.version}")]
    if not matching:
        raise _no_such_version(root)
    return matching
