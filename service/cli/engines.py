"""`saccade repository engines`: hashes and lists TensorRT plans, damaged ones included. It only reads."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from saccade.models.contract.manifest import ManifestError, read_manifest
from saccade.models.contract.plans import PlanRecord
from saccade.service.cli.options import json_option, repository_option
from saccade.service.errors import PlanRefused
from saccade.service.repository.build_marks import BuildMark, build_marks
from saccade.service.repository.open import FoundVersion, list_versions
from saccade.service.repository.plan_seal import engines_secret
from saccade.service.repository.plans import PlanStore, StoredPlan, engines_root

_WIDE = 200  # characters per line of a table that is written to a file


@click.command("engines")
@click.argument("model", required=False)
@repository_option
@click.option(
    "--engines-dir", envvar="SACCADE_ENGINES_DIR", type=click.Path(path_type=Path), help="else .engines in it"
)
@click.option(
    "--engines-key-file", envvar="SACCADE_ENGINES_KEY_FILE", type=click.Path(path_type=Path), help="secret of plans"
)
@json_option
def engines(
    model: str | None, root: Path, engines_dir: Path | None, engines_key_file: Path | None, as_json: bool
) -> None:
    """TensorRT plans of MODEL, or of all: built, being built, damaged, and what their gates said. Plans are hashed."""
    store = PlanStore(engines_dir or engines_root(root), engines_secret(engines_key_file) if engines_key_file else None)
    versions = [found for found in list_versions(root) if model in (None, found.key.model)]
    rows = [row for found in versions for row in _rows(store, found)]
    if as_json:
        click.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2))
        return
    if not rows:
        click.echo(f"no plans in {store.root}: a server with a GPU builds them, or `saccade-export build MODEL`")
        return
    table = Table(
        "model", "version", "variant", "state", "for", "TensorRT", "MB", "built in s", "images/s", "measured on"
    )
    for row in rows:
        cells = [row[name] for name in _SHOWN]
        table.add_row(*(escape("" if cell is None else str(cell)) for cell in cells))
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table)
    for row in rows:
        if row["reason"]:
            click.echo(f"{row['model']}/{row['version']} {row['variant']}: {row['reason']}")


_SHOWN = (
    "model",
    "version",
    "variant",
    "state",
    "capabilities",
    "runtime",
    "megabytes",
    "build_seconds",
    "images_per_s",
    "measured_on",
)


def _rows(store: PlanStore, found: FoundVersion) -> Iterator[dict[str, Any]]:
    key = found.key
    survey = store.survey(key.model, key.version)
    for plan in survey.plans:
        row = _plan_row(plan.record, str(plan.directory))
        try:
            store.read_plan(plan)
            _ensure_of_the_version(plan, found)
        except PlanRefused as error:
            row |= {"state": "damaged", "reason": str(error)}
        yield row
    for mark in build_marks(store.root, key.model, key.version):
        yield _mark_row(found, mark)
    for problem in survey.problems:
        yield {**_empty(found), "state": "damaged", "reason": problem}


def _ensure_of_the_version(plan: StoredPlan, found: FoundVersion) -> None:
    """Raises PlanRefused for a plan that was made from another file than the version has."""
    record = plan.record
    try:
        manifest = read_manifest(found.path)[0]
    except ManifestError:  # `repository verify` is about versions
        return
    variant = manifest.variant(record.variant)
    file_sha256 = next((each.sha256 for each in manifest.files if variant and each.path == variant.file), None)
    if file_sha256 != record.key.onnx_sha256:
        raise PlanRefused(
            f"the record in {plan.directory} is of a file that variant {record.variant!r} of {record.model}/"
            f"{record.version} does not have: it was changed, or belongs to another version; no server uses it"
        )


def gate_word(record: PlanRecord) -> str:
    """The gate's state of a plan in one word: `open` until a device has measured it."""
    if record.gate is None or record.gate.is_pending:
        return "open"
    return "accepted" if record.gate.accepted else "denied"


def _plan_row(record: PlanRecord, directory: str) -> dict[str, Any]:
    failed = [] if record.gate is None else [check.name for check in record.gate.checks if not check.passed]
    return {
        "model": record.model,
        "version": record.version,
        "variant": record.variant,
        "state": gate_word(record),
        "capabilities": " ".join(record.key.capabilities),
        "runtime": f"{record.key.runtime} {record.key.runtime_version}",
        "megabytes": round(record.plan_bytes / 1e6, 1),
        "build_seconds": record.build_seconds,
        "images_per_s": max((figure.images_per_s for figure in record.latency), default=None),
        "measured_on": record.measured_on.name if record.measured_on else None,
        "reason": f"denied by {', '.join(failed)}" if failed else "",
        "path": directory,
    }


def _mark_row(found: FoundVersion, mark: BuildMark) -> dict[str, Any]:
    state = f"{mark.stage} {mark.share:.0%}"
    return {**_empty(found), "variant": mark.variant, "state": state, "measured_on": f"by {mark.host}"}


def _empty(found: FoundVersion) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(_SHOWN)
    return {**row, "model": found.key.model, "version": found.key.version, "variant": "", "reason": "", "path": ""}
