"""`saccade rollout shadow|diff|start`: tries a version without anybody getting its answers, or step by step."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from saccade.service.cli.options import json_option, repository_option
from saccade.service.cli.rollout_change import Request, change_options, number_of
from saccade.service.errors import RepositoryError
from saccade.service.repository.disagreements import disagreements
from saccade.service.repository.serving_changes import started, with_shadow
from saccade.service.repository.serving_document import Limits, Step

_STEPS = "5%,25%,50%"


def add_trials(group: click.Group) -> None:
    for command in (shadow_command, diff_command, start_command):
        group.add_command(command)


@click.command("shadow")
@change_options
@click.argument("version", required=False)
@click.option("--sample", type=float, default=0.1, show_default=True, help="share of the images that stable answers")
@click.option("--off", "is_off", is_flag=True, help="asks no version any more")
def shadow_command(request: Request, version: str | None, sample: float, is_off: bool) -> None:
    """Has VERSION asked about images that stable has answered; nobody gets its answers, their agreement is measured."""
    if (version is None) != is_off:
        raise click.UsageError("name a VERSION, or --off")
    request.make(with_shadow(None if version is None else number_of(version), sample))


@click.command("start")
@change_options
@click.argument("version")
@click.option("--steps", default=_STEPS, show_default=True, help="shares of the requests, one after the other")
@click.option("--min-requests", type=int, default=500, show_default=True, help="that the version answers in each step")
@click.option("--min-time", type=float, default=60.0, show_default=True, help="seconds of each step")
@click.option("--sample", type=float, default=0.1, show_default=True, help="of the images to compare; 0: none")
@click.option("--min-agreement", type=float, help="mean agreement with stable that is asked for  [default: 0.97]")
@click.option("--more-errors", type=float, help="share of errors beyond those of stable  [default: 0.002]")
@click.option("--slower", type=float, help="times the median and p99 of stable  [default: 1.25]")
def start_command(
    request: Request,
    version: str,
    steps: str,
    min_requests: int,
    min_time: float,
    sample: float,
    **limits: float | None,
) -> None:
    """Has the server give VERSION more and more requests, and then make it stable, or take it back by itself.

    It goes on while errors, latencies and answers are those of the stable version; `saccade rollout rollback` ends it.
    """
    named = {name: value for name, value in limits.items() if value is not None}
    try:
        shares = [Step(share=share, min_requests=min_requests, min_time_s=min_time) for share in _shares_from(steps)]
        change = started(number_of(version), shares, Limits(**named), sample)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    request.make(change)


@click.command("diff")
@click.argument("model")
@repository_option
@json_option
def diff_command(model: str, root: Path, as_json: bool) -> None:
    """The images on which a shadow of MODEL disagreed most with the stable version, worst first, of the last week."""
    try:
        found = disagreements(root, model)
    except OSError as error:
        raise RepositoryError(f"cannot read {root / '.shadow' / model}: {error.strerror}") from error
    if as_json:
        click.echo(orjson.dumps([each.model_dump() for each in found], option=orjson.OPT_INDENT_2))
        return
    if not found:
        click.echo(f"{model}: none was kept; `saccade rollout status {model}` says whether there is a shadow")
        return
    table = Table("versions", "agreement", "stable said", "shadow said", "when", "request", "picture")
    for each in found:
        versions = f"{each.stable} and {each.candidate}"
        said = (each.stable_said, each.candidate_said)
        table.add_row(versions, f"{each.agreement:.3f}", *said, each.at, each.request_id, each.picture or "not kept")
    Console().print(table)
    pairs = Counter((_without_score(each.stable_said), _without_score(each.candidate_said)) for each in found)
    for (stable, candidate), count in pairs.most_common(5):
        click.echo(f"{count} of {len(found)}: {stable} became {candidate}")


def _without_score(said: str) -> str:
    name, _, score = said.rpartition(" ")
    return name if name and score.replace(".", "", 1).isdigit() else said


def _shares_from(text: str) -> list[float]:
    """Reads `5%,25%` or `0.05,0.25`."""
    shares: list[Any] = []
    for part in text.split(","):
        number, is_percent = part.strip().removesuffix("%"), part.strip().endswith("%")
        try:
            shares.append(float(number) / 100 if is_percent else float(number))
        except ValueError as error:
            raise click.UsageError(f"--steps: {part!r} is no share; write 5%,25%,50%") from error
    return shares
