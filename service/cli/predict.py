"""`saccade predict`: sends images to a server, or runs them through a version here. Exits with 1 if an image failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from saccade.client import Client
from saccade.service.cli.image_files import STANDARD_INPUT, SUFFIXES, image_files, named_paths
from saccade.service.cli.predict_asking import Asked, Asking, Question, problem_text
from saccade.service.cli.predict_text import summary_of
from saccade.service.cli.stored_repository import brought
from saccade.service.repository.object_store.address import url_of

_FORMATS = ("table", "json", "csv", "coco", "labelstudio")
_OPTIONS = {"model", "version", "label", "priority", "routing_key"}  # of the client, no parameters of a request


@click.command()
@click.argument("arguments", metavar="(URL MODEL | --repository DIR) IMAGE...", nargs=-1, required=True)
@click.option("--repository", type=click.Path(path_type=Path), help="without a server: a directory or a URL")
@click.option("--model", help="with --repository: which one, where it holds several")
@click.option("--version", "version", help="a version instead of the one that answers by default")
@click.option("--label", help="a traffic label instead of a version")
@click.option("--parameter", "-p", "parameters", multiple=True, metavar="NAME=VALUE", help="such as top_k=3")
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="file with a bearer key")
@click.option("--draw", type=click.Path(file_okay=False, path_type=Path), help="folder for images with their answers")
@click.option("--format", "form", type=click.Choice(_FORMATS), help="table by default")
@click.option("--json", "as_json", is_flag=True, help="the same as --format json")
def predict(
    arguments: tuple[str, ...],
    repository: Path | None,
    model: str | None,
    version: str | None,
    label: str | None,
    parameters: tuple[str, ...],
    key_file: Path | None,
    draw: Path | None,
    form: str | None,
    as_json: bool,
) -> None:
    """Sends images one by one to MODEL at URL and prints the answers.

    Images are files, folders or patterns of them, or - for standard input. With --repository there is no server: they
    go through the newest version in this process. The server's key may be in SACCADE_CLIENT_KEY.
    """
    if as_json and form not in (None, "json"):
        raise click.UsageError("give --json or --format, not both")
    form = "json" if as_json else form or "table"
    given = dict(_pair(parameter) for parameter in parameters)
    if repository is not None:
        if label is not None or key_file is not None:
            raise click.UsageError("--label and --key-file speak to a server; leave them out with --repository")
        if draw is not None or form not in ("table", "json"):
            raise click.UsageError("--draw and formats but JSON need a server; leave them out with --repository")
        # Imported late: sending images needs neither the decoder nor a runtime.
        from saccade.service.cli.predict_offline import OfflineRequest, predict_offline

        if url_of(repository) is None and not repository.is_dir():
            raise click.UsageError(f"--repository: {repository} is no directory")
        images = existing(arguments)
        if STANDARD_INPUT in images:
            raise click.UsageError("- is for a server; name files or folders with --repository")
        repository, model, version = brought(repository, model, version)
        predict_offline(OfflineRequest(repository, model, version, images, given, form == "json"))
        return
    if model is not None or len(arguments) < 3:  # URL, MODEL and one image
        raise click.UsageError("give URL MODEL IMAGE..., or --repository DIR IMAGE...")
    if version is not None and label is not None:
        raise click.UsageError("give --version or --label, not both")
    if form in ("coco", "labelstudio") and given.get("mask_format") == "none":
        raise click.UsageError(f"--format {form} needs masks; leave mask_format out")
    url, model, *names = arguments
    images = tuple(image_files(existing(names)))
    if not images:
        raise click.UsageError(
            f"no images in {', '.join(names)}, folders below not counted: {', '.join(sorted(SUFFIXES))}"
        )
    question = _question(model, version, label, given)
    # The key is read from a file, because a key on the command line is in every process list.
    key = key_file.read_text("utf-8").strip() if key_file else None
    with _client(url, key) as client:
        asking = Asking(client, question, draw)
        is_quiet = form != "table" or not sys.stderr.isatty()
        asking.about(track(images, "predicting", console=Console(stderr=True), disable=is_quiet))
    if asking.asked:
        _print(asking.asked, form)
    for note in asking.notes:
        click.echo(note, err=True)
    if asking.end:
        raise click.ClickException(asking.end)
    if asking.has_failed:
        sys.exit(1)


def existing(names: Sequence[str]) -> tuple[Path, ...]:
    """The paths that are named, or match. Raises UsageError for a name without any."""
    found = []
    for name in names:
        paths = named_paths(name)
        if not paths:
            raise click.UsageError(f"{name} is no file or folder, and nothing matches it")
        found += paths
    return tuple(found)


def _pair(parameter: str) -> tuple[str, str]:
    name, equals, value = parameter.partition("=")
    if not equals:
        raise click.UsageError(f"--parameter takes NAME=VALUE, got {parameter!r}")
    return name, value


def _question(model: str, version: str | None, label: str | None, given: dict[str, str]) -> Question:
    for name in given.keys() & _OPTIONS:
        raise click.UsageError(f"{name} is no parameter of a request")
    deadline = given.pop("deadline_ms", None)
    try:
        deadline_ms = None if deadline is None else float(deadline)
    except ValueError as error:
        raise click.UsageError(f"deadline_ms is {deadline!r}, which is no number") from error
    return Question(model, version, label, deadline_ms, given)


def _client(url: str, key: str | None) -> Client:
    try:
        return Client(url, key=key)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _print(asked: list[Asked], form: str) -> None:
    if form == "table":
        Console().print(_table(asked))
        return
    # Imported late: a table needs no numpy.
    from saccade.service.cli.predict_formats import printed

    try:
        click.echo(printed(asked, form))
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def _table(asked: list[Asked]) -> Table:
    table = Table("image", "version", "variant", "answer", "ms")
    for item in asked:
        name = Path(item.image).name
        if item.prediction is None:
            table.add_row(name, "", "", f"[red]{escape(problem_text(item.problem))}", "")
        else:
            served = item.prediction.served
            summary = escape(summary_of(item.prediction.document))
            table.add_row(name, served.version, served.variant, summary, f"{served.timings_ms['total']:.1f}")
    return table
