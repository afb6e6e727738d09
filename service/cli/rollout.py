"""`saccade rollout`: changes which version each traffic label of a model names, in its `serving.json`.

Servers of the repository follow within a second. Exits with 1 when the change is refused, or not in force in time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from saccade.service.cli.options import json_option, repository_option, serving_dir_option
from saccade.service.cli.rollout_change import Change, change_options, listed, number_of, plain, words_of, write_change
from saccade.service.cli.rollout_trials import add_trials
from saccade.service.cli.served_state import ServerOptions, served_state, server_options
from saccade.service.core import STABLE
from saccade.service.errors import RepositoryError
from saccade.service.repository.open import list_repository
from saccade.service.repository.serving_document import ServingDocument, document_path, read_document
from saccade.service.repository.serving_history import serving_history


@click.group()
def rollout() -> None:
    """Says which version of a model answers, and goes back."""


@rollout.command("status")
@click.argument("model")
@repository_option
@serving_dir_option
@click.option("--served", is_flag=True, help="also ask the server at --url")
@server_options
@json_option
def status_command(
    model: str, root: Path, serving_dir: Path | None, served: bool, server: ServerOptions, as_json: bool
) -> None:
    """What rules MODEL: its document, and what a server makes of it."""
    versions = list_repository(root).of(model)
    if not versions:
        raise RepositoryError(f"no version of {model!r} in {root}")
    document = read_document(document_path(root, serving_dir, model))
    found: dict[str, Any] = {"model": model, "versions": versions, "document": plain(document)}
    if served:
        found["served"] = served_state(server, model)
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    if document is None:
        click.echo(f"{model}: no serving.json; stable is the newest accepted version of {listed(versions)}")
    else:
        click.echo(f"{model}: generation {document.generation}, {words_of(document)}; versions {listed(versions)}")
    if served:
        state = found["served"]
        problem = f"; refused: {state['problem']}" if state["problem"] else ""
        labels = ", ".join(f"{label} {version}" for label, version in state["labels"].items())
        click.echo(f"{server.url}: generation {state['generation']}, {labels or 'nothing ready'}{problem}")
        for version, reason in state["quarantined"].items():
            click.echo(f"{server.url}: version {version} is quarantined: {reason}")


@rollout.command("history")
@click.argument("model")
@repository_option
@json_option
def history_command(model: str, root: Path, as_json: bool) -> None:
    """Who changed the document of MODEL when and why, newest first."""
    documents = serving_history(root, model)
    if as_json:
        click.echo(orjson.dumps([plain(each) for each in documents], option=orjson.OPT_INDENT_2))
        return
    table = Table("generation", "when", "who", "what", "why")
    for each in documents:
        table.add_row(str(each.generation), each.changed_at, each.changed_by, words_of(each), each.reason)
    Console().print(table)


@rollout.command("label")
@change_options
@click.argument("label")
@click.argument("version", metavar="VERSION|none")
def label_command(change: Change, label: str, version: str) -> None:
    """Has LABEL of MODEL name VERSION, or removes it; `/labels/LABEL/predict` follows."""
    if label == STABLE:
        raise click.UsageError(f"`saccade rollout promote {change.model} {version}` says which version is stable")
    document = change.present()
    labels = dict(document.labels) if document else {}
    if version == "none":
        if label not in labels:
            raise RepositoryError(f"{change.model!r} has no label {label!r}; there are: {', '.join(labels) or 'none'}")
        del labels[label]
    else:
        labels[label] = number_of(version)
    write_change(change, document, labels=labels)


@rollout.command("canary")
@change_options
@click.argument("version", metavar="VERSION|none")
@click.option("--share", type=float, default=0.05, show_default=True, help="of requests without version and label")
def canary_command(change: Change, version: str, share: float) -> None:
    """Has VERSION answer a share of the requests; a request stays with its arm by `X-Routing-Key`."""
    document = change.present()
    canary = None if version == "none" else {"version": number_of(version), "share": share, "salt": ""}
    write_change(change, document, canary=canary, rollout=None)


@rollout.command("objective")
@change_options
@click.argument("objective_ms", metavar="MS|none")
def objective_command(change: Change, objective_ms: str) -> None:
    """Has requests for MODEL without a deadline be answered within MS, or refused; none: the server's objective."""
    value = None if objective_ms == "none" else _milliseconds(objective_ms)
    write_change(change, change.present(), objective_ms=value)


@rollout.command("promote")
@change_options
@click.argument("target", metavar="[VERSION|LABEL]", required=False)
@click.option("--follow", is_flag=True, help="stable is the newest accepted version again, whichever that is")
def promote_command(change: Change, target: str | None, follow: bool) -> None:
    """Makes a version stable and holds it: a number, what a label names, or without either the canary."""
    document = change.present()
    labels = {label: version for label, version in (document.labels if document else {}).items() if label != STABLE}
    if follow:
        write_change(change, document, policy="follow", labels=labels, rollout=None)
        return
    if target is None:
        if document is None or document.canary is None:
            raise click.UsageError("name a VERSION or a LABEL: there is no canary")
        version = document.canary.version
    else:
        version = labels[target] if target in labels else number_of(target)
    canary = None if document is None or document.canary is None else document.canary.model_dump()
    if canary is not None and canary["version"] == version:
        canary = None
    shadow = None if document is None or document.shadow is None else document.shadow.model_dump()
    if shadow is not None and shadow["version"] == version:
        shadow = None
    trials = {"canary": canary, "shadow": shadow, "rollout": None}
    write_change(change, document, policy="hold", labels={**labels, STABLE: version}, **trials)


@rollout.command("rollback")
@change_options
@click.argument("version", required=False)
def rollback_command(change: Change, version: str | None) -> None:
    """Goes back to the stable version before, or to VERSION, and holds it. Needs no load within the grace period.

    Without a history, that is the newest version but one. A canary and a shadow are taken away.
    """
    document = change.present()
    target = _before(change, document) if version is None else number_of(version)
    labels = {**(document.labels if document else {}), STABLE: target}
    write_change(change, document, policy="hold", labels=labels, canary=None, shadow=None, rollout=None)


def _before(change: Change, document: ServingDocument | None) -> int:
    """Returns the version that was stable before the present one."""
    versions = change.listing.of(change.model)
    held = document.labels.get(STABLE) if document else None
    now = held if held is not None else max(versions, default=0)
    for earlier in serving_history(change.root, change.model):
        before = earlier.labels.get(STABLE, now)
        if document is not None and earlier.generation < document.generation and before != now and before in versions:
            return before
    older = [number for number in versions if number < now]
    if not older:
        known = listed(versions)
        raise RepositoryError(f"{change.model!r} has no version before {now}; there are: {known}; name one")
    return older[-1]


def _milliseconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no number of milliseconds") from None


add_trials(rollout)
