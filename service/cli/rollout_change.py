"""How `saccade rollout` asks for a change: its options, and what it says about the document that was written."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from dataclasses import dataclass
from functools import update_wrapper
from pathlib import Path
from typing import Any

import click
import orjson

from saccade.service.cli.options import json_option, repository_option, serving_dir_option
from saccade.service.cli.served_state import ServerOptions, server_options, wait_for
from saccade.service.cli.stored_repository import refresh
from saccade.service.core import STABLE
from saccade.service.repository.serving_changes import Asked, Change, changed, is_unjudged
from saccade.service.repository.serving_document import ServingDocument, document_path, read_document

_NOT_EVERYWHERE = "servers without SACCADE_ALLOW_UNJUDGED refuse it, and keep what was stable before"


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks for a change, and who waits for it."""

    root: Path
    model: str
    expected_generation: int | None
    reason: str
    by: str
    is_waiting: bool
    serving_dir: Path | None
    server: ServerOptions
    as_json: bool

    def present(self) -> ServingDocument | None:
        refresh(self.root, self.model)
        return read_document(document_path(self.root, None, self.model))

    def make(self, change: Change) -> None:
        """Writes the next generation, waits for it where that is asked for, and says what it is."""
        asked = Asked(self.root, self.model, self.by, self.reason, self.expected_generation, self.serving_dir)
        new = changed(asked, change)
        state = wait_for(self.server, self.model, new) if self.is_waiting else None
        if self.as_json:
            click.echo(orjson.dumps({"document": plain(new), "served": state}, option=orjson.OPT_INDENT_2))
            return
        click.echo(f"{self.model}: generation {new.generation}, {words_of(new)}")
        stable = new.labels.get(STABLE)
        if state is not None:
            click.echo(f"{self.server.url} has it in force")
        elif stable is not None and is_unjudged(asked, stable):
            click.echo(f"note: version {stable} is unjudged; {_NOT_EVERYWHERE}", err=True)


def change_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options that all changes share, and passes them as one `Request`."""

    def with_request(**values: Any) -> None:
        request = Request(**{name: values.pop(name) for name in Request.__dataclass_fields__})
        command(request, **values)

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
    decorated: Callable[..., None] = update_wrapper(with_request, command)
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def number_of(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise click.UsageError(f"{text!r} is no version number")
    return int(text)


def plain(document: ServingDocument | None) -> dict[str, Any] | None:
    return None if document is None else document.model_dump(mode="json")


def words_of(document: ServingDocument) -> str:
    stable = "" if STABLE in document.labels else "stable is the newest accepted version"
    labels = ", ".join(f"{label} is {version}" for label, version in sorted(document.labels.items()))
    canary = f"{document.canary.share:.0%} to {document.canary.version}" if document.canary else ""
    shadow = f"{document.shadow.version} shadows {document.shadow.sample:.0%}" if document.shadow else ""
    rollout = f"step {document.rollout.step + 1} of {len(document.rollout.steps)}" if document.rollout else ""
    objective = f"answers within {document.objective_ms:g} ms" if document.objective_ms else ""
    return ", ".join(filter(None, (stable, labels, canary, shadow, rollout, objective)))
