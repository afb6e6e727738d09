"""How `saccade rollout` changes a document: who asks for it, what is checked, and what is said about it."""

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

from saccade.service.cli.options import json_option, repository_option, serving_dir_option
from saccade.service.cli.served_state import ServerOptions, server_options, wait_for
from saccade.service.core import STABLE
from saccade.service.errors import RepositoryError
from saccade.service.repository.open import Listing, list_repository
from saccade.service.repository.serving_document import ServingDocument, document_path, read_document
from saccade.service.repository.serving_history import write_document
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


def change_options(command: Callable[..., None]) -> Callable[..., None]:
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


def write_change(change: Change, document: ServingDocument | None, **changes: Any) -> None:
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
        click.echo(orjson.dumps({"document": plain(new), "served": state}, option=orjson.OPT_INDENT_2))
        return
    click.echo(f"{change.model}: generation {new.generation}, {words_of(new)}")
    if state is not None:
        click.echo(f"{change.server.url} has it in force")


def _verify(change: Change, versions: frozenset[int]) -> None:
    """Raises RepositoryError for a version that no server would load."""
    paths = {found.key.version: found.path for found in change.listing.versions if found.key.model == change.model}
    for version in sorted(versions):
        if version not in paths:
            known = listed(sorted(paths))
            raise RepositoryError(f"{change.root} has no version {version} of {change.model!r}; there are: {known}")
        verify_version(paths[version])


def number_of(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise click.UsageError(f"{text!r} is no version number")
    return int(text)


def _first_line(error: ValueError) -> str:
    details = getattr(error, "errors", None)
    if details is None:
        return str(error)
    first = details()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'the change'}: {first['msg']}"


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


def listed(versions: list[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
