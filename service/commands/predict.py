"""`saccade predict URL MODEL IMAGE…`: sends images, shows answers and stage times. Promises: exit 1 if any failed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import httpx
import orjson
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

_TIMEOUT_S = 70.0  # beyond the longest deadline a server grants by default


@click.command()
@click.argument("url")
@click.argument("model")
@click.argument("images", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--version", "version", help="a version instead of the one that answers by default")
@click.option("--label", help="a traffic label instead of a version")
@click.option("--parameter", "-p", "parameters", multiple=True, metavar="NAME=VALUE", help="such as top_k=3")
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="file with a bearer key")
@click.option("--json", "as_json", is_flag=True, help="one JSON document for machines")
def predict(
    url: str,
    model: str,
    images: tuple[Path, ...],
    version: str | None,
    label: str | None,
    parameters: tuple[str, ...],
    key_file: Path | None,
    as_json: bool,
) -> None:
    """Sends IMAGES one by one to MODEL at URL and prints the answers."""
    query = dict(_pair(parameter) for parameter in parameters)
    # From a file: a key on the command line is in every process list.
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
    try:
        return httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_S)
    except httpx.InvalidURL as error:
        raise click.UsageError(f"{url!r} is not a URL: {error}") from error


def _answer(client: httpx.Client, path: str, query: dict[str, str], image: Path) -> dict[str, Any]:
    try:
        response = client.post(
            path, params=query, content=image.read_bytes(), headers={"Content-Type": "application/octet-stream"}
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


def summary_of(prediction: dict[str, Any]) -> str:
    """One line for a person."""
    if "classes" in prediction:
        return ", ".join(f"{item['label']} {item['score']:.2f}" for item in prediction["classes"][:3])
    if "detections" in prediction:
        found = [
            f"{item['label']} {item['score']:.2f} {[round(side) for side in item['box']]}"
            for item in prediction["detections"]
        ]
        return "; ".join(found) or "nothing found"
    return ", ".join(f"{item['label']} {item['area']} px" for item in prediction["segments"]) or "background only"
