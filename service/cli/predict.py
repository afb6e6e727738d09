"""`saccade predict`: sends images to a server, or runs them through a version here. Exits with 1 if an image failed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import httpx
import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from saccade.service.cli.image_files import STANDARD_INPUT, SUFFIXES, bytes_of, image_files
from saccade.service.cli.predict_text import summary_of

_TIMEOUT_S = 70.0  # more than the longest deadline that a server grants by default


@click.command()
@click.argument("arguments", metavar="(URL MODEL | --repository DIR) IMAGE...", nargs=-1, required=True)
@click.option("--repository", type=click.Path(exists=True, file_okay=False, path_type=Path), help="without a server")
@click.option("--model", help="with --repository: which one, where it holds several")
@click.option("--version", "version", help="a version instead of the one that answers by default")
@click.option("--label", help="a traffic label instead of a version")
@click.option("--parameter", "-p", "parameters", multiple=True, metavar="NAME=VALUE", help="such as top_k=3")
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="file with a bearer key")
@click.option("--json", "as_json", is_flag=True, help="one JSON document for machines")
def predict(
    arguments: tuple[str, ...],
    repository: Path | None,
    model: str | None,
    version: str | None,
    label: str | None,
    parameters: tuple[str, ...],
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Sends images one by one to MODEL at URL and prints the answers.

    Images are files, folders of them, or - for standard input. With --repository there is no server: they go through
    the newest version in this process.
    """
    if repository is not None:
        if label is not None or key_file is not None:
            raise click.UsageError("--label and --key-file speak to a server; leave them out with --repository")
        # Imported late: sending images needs neither the decoder nor a runtime.
        from saccade.service.cli.predict_offline import OfflineRequest, predict_offline

        given = dict(_pair(parameter) for parameter in parameters)
        images = existing(arguments)
        if STANDARD_INPUT in images:
            raise click.UsageError("- is for a server; name files or folders with --repository")
        predict_offline(OfflineRequest(repository, model, version, images, given, as_json))
        return
    if model is not None or len(arguments) < 3:  # URL, MODEL and one image
        raise click.UsageError("give URL MODEL IMAGE..., or --repository DIR IMAGE...")
    url, model, *names = arguments
    images = tuple(image_files(existing(names)))
    if not images:
        raise click.UsageError(f"no images in {', '.join(names)}: {', '.join(sorted(SUFFIXES))}")
    query = dict(_pair(parameter) for parameter in parameters)
    # The key is read from a file, because a key on the command line is in every process list.
    headers = {"Authorization": f"Bearer {key_file.read_text('utf-8').strip()}"} if key_file else {}
    path = predict_path(model, version, label)
    with _client(url, headers) as client:
        shown = track(images, "predicting", console=Console(stderr=True), disable=as_json or not sys.stderr.isatty())
        answers = [{"image": str(image), **_answer(client, path, query, image)} for image in shown]
    if as_json:
        click.echo(orjson.dumps(answers, option=orjson.OPT_INDENT_2))
    else:
        Console().print(_table(answers))
    if any("problem" in answer for answer in answers):
        sys.exit(1)


def existing(names: Sequence[str]) -> tuple[Path, ...]:
    """The named paths. Raises UsageError for one that does not exist."""
    paths = tuple(Path(name) for name in names)
    for path in paths:
        if not (path.exists() or path == STANDARD_INPUT):
            raise click.UsageError(f"{path} is no file or folder")
    return paths


def predict_path(model: str, version: str | None, label: str | None) -> str:
    if version is not None and label is not None:
        raise click.UsageError("give --version or --label, not both")
    if version is not None:
        return f"/v1/models/{model}/versions/{version}/predict"
    if label is not None:
        return f"/v1/models/{model}/labels/{label}/predict"
    return f"/v1/models/{model}/predict"


def _pair(parameter: str) -> tuple[str, str]:
    name, equals, value = parameter.partition("=")
    if not equals:
        raise click.UsageError(f"--parameter takes NAME=VALUE, got {parameter!r}")
    return name, value


def _client(url: str, headers: dict[str, str]) -> httpx.Client:
    if "://" not in url:
        url = f"http://{url}"
    try:
        return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S)
    except httpx.InvalidURL as error:
        raise click.UsageError(f"{url!r} is not a URL: {error}") from error


def _answer(client: httpx.Client, path: str, query: dict[str, str], image: Path) -> dict[str, Any]:
    try:
        response = client.post(
            path, params=query, content=bytes_of(image), headers={"Content-Type": "application/octet-stream"}
        )
    except httpx.HTTPError as error:
        raise click.ClickException(f"cannot reach {client.base_url}: {error}; is `saccade serve` running?") from error
    try:
        document: dict[str, Any] = orjson.loads(response.content)
    except orjson.JSONDecodeError as error:
        raise click.ClickException(
            f"{client.base_url} answered {response.status_code}, but not with JSON; is it a saccade server?"
        ) from error
    return document if response.is_success else {"problem": document}


def _table(answers: list[dict[str, Any]]) -> Table:
    table = Table("image", "version", "variant", "answer", "ms")
    for answer in answers:
        name = Path(answer["image"]).name
        if "problem" in answer:
            problem = answer["problem"]
            text = escape(f"{problem['status']} {problem['title']}: {problem['detail']}")
            table.add_row(name, "", "", f"[red]{text}", "")
        else:
            summary = escape(summary_of(answer["predictions"][0]))
            table.add_row(name, answer["version"], answer["variant"], summary, f"{answer['timings_ms']['total']:.1f}")
    return table
