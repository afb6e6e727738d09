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

from saccade.service.cli.options import json_option, objective_ms, repository_option, serving_dir_option
from saccade.service.cli.rollout_change import (
    Request,
    change_options,
    number_of,
    plain,
    words_of,
)
from saccade.service.cli.rollout_trials import add_trials
from saccade.service.cli.served_state import ServerOptions, given_up, served_state, server_options
from saccade.service.cli.stored_repository import refresh
from saccade.service.core import STABLE
from saccade.service.repository.serving_changes import (
    following,
    labelled,
    present_of,
    promoted,
    rolled_back,
    with_canary,
    with_objective,
)
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
    present = present_of(root, serving_dir, model)
    versions, document = present.versions, present.document
    found: dict[str, Any] = {"model": model, "versions": versions, "document": plain(document)}
    if served:
        found["served"] = served_state(server, model)
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    if document is None:
        click.echo(f"{model}: no serving.json; stable is the newest accepted version of {present.listed}")
    else:
        click.echo(f"{model}: generation {document.generation}, {words_of(document)}; versions {present.listed}")
    if served:
        state = found["served"]
        problem = f"; problem: {state['problem']}" if state["problem"] else ""
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
    refresh(root, model)
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
def label_command(request: Request, label: str, version: str) -> None:
    """Has LABEL of MODEL name VERSION, or removes it; `/labels/LABEL/predict` follows."""
    if label == STABLE:
        raise click.UsageError(f"`saccade rollout promote {request.model} {version}` says which version is stable")
    request.make(labelled(label, None if version == "none" else number_of(version)))


@rollout.command("canary")
@change_options
@click.argument("version", metavar="VERSION|none")
@click.option("--share", type=float, default=0.05, show_default=True, help="of requests without version and label")
def canary_command(request: Request, version: str, share: float) -> None:
    """Has VERSION answer a share of the requests; a request stays with its arm by `X-Routing-Key`."""
    request.make(with_canary(None if version == "none" else number_of(version), share))


@rollout.command("objective")
@change_options
@click.argument("milliseconds", metavar="MS|none")
def objective_command(request: Request, milliseconds: str) -> None:
    """Has requests for MODEL without a deadline be answered within MS, or refused; none: the server's objective."""
    request.make(with_objective(None if milliseconds == "none" else objective_ms(milliseconds)))


@rollout.command("promote")
@change_options
@click.argument("target", metavar="[VERSION|LABEL]", required=False)
@click.option("--follow", is_flag=True, help="stable is the newest accepted version again, whichever that is")
def promote_command(request: Request, target: str | None, follow: bool) -> None:
    """Makes a version stable and holds it: a number, what a label names, or without either the canary."""
    if follow:
        request.make(following())
        return
    document = request.present()
    if target is None and (document is None or document.canary is None):
        raise click.UsageError("name a VERSION or a LABEL: there is no canary")
    if target is not None and document is not None and target in document.labels:
        request.make(promoted(label=target))
    else:
        request.make(promoted(None if target is None else number_of(target)))


@rollout.command("rollback")
@change_options
@click.argument("version", required=False)
def rollback_command(request: Request, version: str | None) -> None:
    """Goes back to the stable version before, or to VERSION, and holds it. Needs no load within the grace period.

    Without a history, that is the newest version but one. A version that no server would load, and with --wait one that
    the server has quarantined, is passed over unless it is VERSION. A canary and a shadow are taken away.
    """
    if version is not None:
        request.make(rolled_back(number_of(version)))
    else:
        request.make(rolled_back(given_up=given_up(request.server, request.model) if request.is_waiting else {}))


add_trials(rollout)
