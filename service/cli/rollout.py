"""`saccade rollout`: changes which version each traffic label of a model names, in its `serving.json`.

Servers of the repository follow within a second. Exits with 1 when the change is refused, or not in force in time.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import update_wrapper
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from saccade.service.cli.options import json_option, repository_option, serving_dir_option
from saccade.service.cli.served_state import ServerOptions, served_state, server_options, wait_for
from saccade.service.core import STABLE
from saccade.service.errors import RepositoryError
from saccade.service.repository.open import Listing, list_repository
from saccade.service.repository.serving_document import ServingDocument, document_path, read_document
from saccade.service.repository.serving_history import serving_history, write_document
from saccade.service.repository.verify import verify_version


@dataclass(frozen=True, slots=True)
class Change:
    """How a document is to be changed, and who waits for that."""

    root: Path
    model: str
    expected_generation: int | None
    reason: str
    by: str
    is_waiting: bool
    serving_dir: Path | None
    server: ServerOptions
    as_json: bool

    @property
    def listing(self) -> Listing:
        return list_repository(self.root)

    def present(self) -> ServingDocument | None:
        return read_document(document_path(self.root, None, self.model))


@click.group()
def rollout() -> None:
    """Says which version of a model answers, and goes back."""


def _change_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that all changes share, and passes them as one `Change`."""

    def with_change(**values: Any) -> None:
        names = (
            "root",
            "serving_dir",
            "model",
            "expected_generation",
            "reason",
            "by",
            "is_waiting",
            "server",
            "as_json",
        )
        change = Change(**{name: values.pop(name) for name in names})
        command(change, **values)

    options = (
        repository_option,
        serving_dir_option,
        click.argument("model"),
        click.option("--expected-generation", type=int, help="change only this generation; default: what is there now"),
        click.option("--reason", default="", help="why, for the history"),
        click.option("--by", default=getpass.getuser, show_default="your user name", help="who, for the history"),
        click.option("--wait", "is_waiting", is_flag=True, help="until the server at --url has it in force"),
        server_options,
        json_option,
    )
    decorated: Callable[..., None] = update_wrapper(with_change, command)
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


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
    found: dict[str, Any] = {"model": model, "versions": versions, "document": _plain(document)}
    if served:
        found["served"] = served_state(server, model)
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        return
    if document is None:
        click.echo(f"{model}: no serving.json; stable is the newest accepted version of {_listed(versions)}")
    else:
        click.echo(f"{model}: generation {document.generation}, {_words(document)}; versions {_listed(versions)}")
    if served:
        state = found["served"]
        problem = f"; refused: {state['problem']}" if state["problem"] else ""
        labels = ", ".join(f"{label} {version}" for label, version in state["labels"].items())
        click.echo(f"{server.url}: generation {state['generation']}, {labels or 'nothing ready'}{problem}")


@rollout.command("history")
@click.argument("model")
@repository_option
@json_option
def history_command(model: str, root: Path, as_json: bool) -> None:
    """Who changed the document of MODEL when and why, newest first."""
    documents = serving_history(root, model)
    if as_json:
        click.echo(orjson.dumps([_plain(each) for each in documents], option=orjson.OPT_INDENT_2))
        return
    table = Table("generation", "when", "who", "what", "why")
    for each in documents:
        table.add_row(str(each.generation), each.changed_at, each.changed_by, _words(each), each.reason)
    Console().print(table)


@rollout.command("label")
@_change_options
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
        labels[label] = _number(version)
    _write(change, document, labels=labels)


@rollout.command("canary")
@_change_options
@click.argument("version", metavar="VERSION|none")
@click.option("--share", type=float, default=0.05, show_default=True, help="of requests without version and label")
def canary_command(change: Change, version: str, share: float) -> None:
    """Has VERSION answer a share of the requests; a request stays with its arm by `X-Routing-Key`."""
    document = change.present()
    canary = None if version == "none" else {"version": _number(version), "share": share, "salt": ""}
    _write(change, document, canary=canary)


@rollout.command("objective")
@_change_options
@click.argument("objective_ms", metavar="MS|none")
def objective_command(change: Change, objective_ms: str) -> None:
    """Has requests for MODEL without a deadline be answered within MS, or refused; none: the server's objective."""
    _write(change, change.present(), objective_ms=None if objective_ms == "none" else _milliseconds(objective_ms))


@rollout.command("promote")
@_change_options
@click.argument("target", metavar="[VERSION|LABEL]", required=False)
@click.option("--follow", is_flag=True, help="stable is the newest accepted version again, whichever that is")
def promote_command(change: Change, target: str | None, follow: bool) -> None:
    """Makes a version stable and holds it: a number, what a label names, or without either the canary."""
    document = change.present()
    labels = {label: version for label, version in (document.labels if document else {}).items() if label != STABLE}
    if follow:
        _write(change, document, policy="follow", labels=labels)
        return
    if target is None:
        if document is None or document.canary is None:
            raise click.UsageError("name a VERSION or a LABEL: there is no canary")
        version = document.canary.version
    else:
        version = labels[target] if target in labels else _number(target)
    canary = None if document is None or document.canary is None else document.canary.model_dump()
    if canary is not None and canary["version"] == version:
        canary = None
    _write(change, document, policy="hold", labels={**labels, STABLE: version}, canary=canary)


@rollout.command("rollback")
@_change_options
@click.argument("version", required=False)
def rollback_command(change: Change, version: str | None) -> None:
    """Goes back to the stable version before, or to VERSION, and holds it. Needs no load within the grace period.

    Without a history, that is the newest version but one. A canary is taken away.
    """
    document = change.present()
    target = _before(change, document) if version is None else _number(version)
    labels = {**(document.labels if document else {}), STABLE: target}
    _write(change, document, policy="hold", labels=labels, canary=None)


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
        known = _listed(versions)
        raise RepositoryError(f"{change.model!r} has no version before {now}; there are: {known}; name one")
    return older[-1]


def _write(change: Change, document: ServingDocument | None, **changes: Any) -> None:
    """Writes the next generation, once every version that it newly names was verified."""
    if change.serving_dir is not None:
        raise RepositoryError(
            f"SACCADE_SERVING_DIR is {change.serving_dir}, so {change.model}.json there rules: "
            "change it where it comes from, such as a ConfigMap"
        )
    generation = document.generation if document else 0
    if change.expected_generation is not None and change.expected_generation != generation:
        raise RepositoryError(f"expected generation {change.expected_generation}, there is {generation}: look again")
    values = {
        **(document.model_dump() if document else {}),
        **changes,
        "generation": generation + 1,
        "changed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "changed_by": change.by,
        "reason": change.reason,
    }
    try:
        new = ServingDocument.model_validate(values)
    except ValueError as error:
        raise RepositoryError(f"{change.model}: {_first_line(error)}") from error
    _verify(change, new.named - (document.named if document else frozenset()))
    write_document(change.root, change.model, new, generation)
    state = wait_for(change.server, change.model, new) if change.is_waiting else None
    if change.as_json:
        click.echo(orjson.dumps({"document": _plain(new), "served": state}, option=orjson.OPT_INDENT_2))
        return
    click.echo(f"{change.model}: generation {new.generation}, {_words(new)}")
    if state is not None:
        click.echo(f"{change.server.url} has it in force")


def _verify(change: Change, versions: frozenset[int]) -> None:
    """Raises RepositoryError for a version that no server would load."""
    paths = {found.key.version: found.path for found in change.listing.versions if found.key.model == change.model}
    for version in sorted(versions):
        if version not in paths:
            known = _listed(sorted(paths))
            raise RepositoryError(f"{change.root} has no version {version} of {change.model!r}; there are: {known}")
        verify_version(paths[version])


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise click.UsageError(f"{text!r} is no version number")
    return int(text)


def _milliseconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.UsageError(f"{text!r} is no number of milliseconds") from None


def _first_line(error: ValueError) -> str:
    details = getattr(error, "errors", None)
    if details is None:
        return str(error)
    first = details()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the change'}: {first['msg']}"


def _plain(document: ServingDocument | None) -> dict[str, Any] | None:
    return None if document is None else document.model_dump(mode="json")


def _words(document: ServingDocument) -> str:
    stable = "" if STABLE in document.labels else "stable is the newest accepted version"
    labels = ", ".join(f"{label} is {version}" for label, version in sorted(document.labels.items()))
    canary = f"{document.canary.share:.0%} to {document.canary.version}" if document.canary else ""
    objective = f"answers within {document.objective_ms:g} ms" if document.objective_ms else ""
    return ", ".join(filter(None, (stable, labels, canary, objective)))


def _listed(versions: list[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
