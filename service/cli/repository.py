"""`saccade repository list|show|verify|engines`: commands that only read. `verify` exits with 1 if it refuses a
version.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import click
import orjson
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from saccade.models.contract.manifest import Manifest, ManifestError, Variant, read_manifest
from saccade.service.cli.engines import engines
from saccade.service.cli.options import json_option, repository_option
from saccade.service.cli.stored_repository import manifests_of, versions_of
from saccade.service.cli.verification import verification_of
from saccade.service.errors import RepositoryError
from saccade.service.repository.open import FoundVersion, list_repository, list_versions
from saccade.service.repository.signature import claimed_key_id
from saccade.service.repository.trusted_keys import signature_policy
from saccade.service.repository.variants import gate_state

_WIDE = 200  # width in characters of a list that is written to a file
_COLUMNS: dict[str, Literal["left", "right"]] = {
    "  variant": "left",
    "gate": "left",
    "metric": "left",
    "95 % interval": "left",
    "best images/s": "right",
}


@click.group()
def repository() -> None:
    """Looks into a model repository."""


repository.add_command(engines)


@repository.command("list")
@repository_option
@json_option
def list_command(root: Path, as_json: bool) -> None:
    """All versions, with the figures their manifests measured."""
    with manifests_of(root) as directory:
        listing = list_repository(directory)
        versions = [_rows(found) for found in listing.versions]
    versions += [[_row_without_figures(each.model, each.name, f"refused: {each.reason}")] for each in listing.refused]
    if as_json:
        click.echo(orjson.dumps([row for rows in versions for row in rows], option=orjson.OPT_INDENT_2))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    for rows in versions:
        _print_version(console, rows)


def _print_version(console: Console, rows: list[dict[str, Any]]) -> None:
    """Prints a version's name, a line per variant, and what is long below them, so that 80 columns are enough."""
    first = rows[0]
    signed = f", signed with key {first['key_id']}" if first["key_id"] else ""
    console.print(f"{first['model']}/{first['version']}{signed}", style="bold", markup=False, soft_wrap=True)
    if not first["variant"]:
        console.print(f"  {first['gate']}", markup=False, soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name, justify in _COLUMNS.items():
        table.add_column(name, justify=justify, overflow="fold")
    for row in rows:
        gate, _, _ = row["gate"].partition(":")
        metric, _, _ = row["metric"].partition(",")
        table.add_row(
            f"  {row['variant']}",
            gate,
            metric,
            row["interval"],
            f"{row['images_per_s']:.1f}" if row["images_per_s"] else "-",
        )
    console.print(table)
    for text in _remarks(rows):
        console.print(Padding(Text(text), (0, 0, 0, 4), expand=False))


def _remarks(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yields what does not fit into columns: what the gate waits for, figures from a score on, speeds, and devices."""
    for row in rows:
        for key in ("gate", "metric"):
            _, mark, rest = row[key].partition(": " if key == "gate" else ", ")
            if mark:
                yield f"{row['variant']} {rest}"
        if row["paired_speed"]:
            yield f"{row['variant']} in turns at export: {row['paired_speed']}"
    for device in dict.fromkeys(row["measured_on"] for row in rows):
        yield f"measured on {device}: {', '.join(row['variant'] for row in rows if row['measured_on'] == device)}"


def _rows(found: FoundVersion) -> list[dict[str, Any]]:
    try:
        manifest, _ = read_manifest(found.path)
    except ManifestError as error:
        return [_row_without_figures(found.key.model, found.key.version, f"unreadable: {error}")]
    key_id = claimed_key_id(found.path)
    return [
        {
            "model": manifest.model,
            "version": manifest.version,
            "variant": variant.name,
            "gate": gate_state(variant),
            "metric": _metric(manifest, variant),
            "interval": f"{variant.metric.ci_low:.4f} - {variant.metric.ci_high:.4f}" if manifest.judged else "",
            "images_per_s": round(max((item.images_per_s for item in variant.latency), default=0.0), 1),
            "paired_speed": variant.paired_speeds[0].text if variant.paired_speeds else "",
            "measured_on": f"{variant.measured_on.name}, {variant.measured_on.threads} threads",
            "key_id": key_id,
        }
        for variant in manifest.variants
    ]


def _row_without_figures(model: str, version: int | str, gate: str) -> dict[str, Any]:
    empty = ("metric", "interval", "images_per_s", "paired_speed", "measured_on", "key_id")
    return {"model": model, "version": version, "variant": "", "gate": gate, **dict.fromkeys(empty, "")}


def _metric(manifest: Manifest, variant: Variant) -> str:
    """Over all detections, and beside it from the score that requests get."""
    if not manifest.judged:
        return "unjudged"
    point, text = variant.operating_point, f"{variant.metric.name} {variant.metric.value:.4f}"
    return text if point is None else f"{text}, from score {point.score_threshold:g} {point.metric.value:.4f}"


@repository.command("show")
@click.argument("model")
@click.argument("version", required=False)
@repository_option
def show_command(model: str, version: str | None, root: Path) -> None:
    """The manifest of a version (the newest one when none is named)."""
    with manifests_of(root) as directory:
        path = _version_dir(directory, model, version)
        try:
            manifest = read_manifest(path)[0]
        except ManifestError as error:
            raise RepositoryError(str(error)) from error
        key_id = claimed_key_id(path)
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
    """Hashes every file, checks layers and who signed, as a server does before it loads, and 2:4 masks besides."""
    if require_signature and not trusted_keys:
        raise click.UsageError("--require-signature needs --trusted-keys: the public keys of who may sign versions")
    policy = signature_policy(trusted_keys, is_required=require_signature)
    with versions_of(root, lambda key: wanted in (None, key.model, f"{key.model}/{key.version}")) as brought:
        versions = _wanted_versions(brought.directory, wanted)
        results = [verification_of(found, policy, brought.incomplete.get(found.key)) for found in versions]
    unlisted = [each for each in brought.unlisted if wanted is None or wanted.partition("/")[0] == each.model]
    for each in unlisted:
        click.echo(f"{each.model}/{each.name}: not verified: {each.reason}".replace("/:", ":", 1), err=True)
    if as_json:
        click.echo(orjson.dumps([asdict(result) for result in results], option=orjson.OPT_INDENT_2))
    else:
        for result in results:
            click.echo(result.line)
    if not results or unlisted or any(result.reason for result in results):
        sys.exit(1)


def _wanted_versions(root: Path, wanted: str | None) -> list[FoundVersion]:
    found = list_versions(root)
    if wanted is None:
        return found
    matching = [item for item in found if wanted in (item.key.model, f"{item.key.model}/{item.key.version}")]
    if not matching:
        raise _no_such_version(root)
    return matching
