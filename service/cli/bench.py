"""`saccade bench URL MODEL --images DIR`: open-loop load. Exits with 1 if a limit is broken, with 2 for wrong usage."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from saccade.service.cli.options import objective_ms
from saccade.service.errors import BadParameter

if TYPE_CHECKING:  # numpy and the load client are imported only when a load runs: no other command needs them
    from saccade.service.bench.options import BenchOptions

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OUTPUT = click.Path(dir_okay=False, path_type=Path)
_POSITIVE = click.FloatRange(min=0.0, min_open=True)
_COUNT = click.IntRange(min=1)

_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    # What is sent
    click.option(
        "--images", multiple=True, required=True, metavar="[MODEL=]DIR", help="folder of images, for one model or all"
    ),
    click.option("--mix", metavar="MODEL=WEIGHT,…", help="several models instead of MODEL"),
    click.option("--max-images", type=_COUNT, help="take only the first images of a folder"),
    click.option("--parameter", "-p", "parameters", multiple=True, metavar="NAME=VALUE", help="such as top_k=3"),
    click.option("--deadline-ms", type=_POSITIVE, help="asked of the server for every request"),
    click.option("--header", "-H", "headers", multiple=True, metavar="NAME: VALUE", help="sent with every request"),
    click.option("--key-file", type=_FILE, help="file with a bearer key"),
    click.option("--key-env", metavar="NAME", help="environment variable with a bearer key"),
    click.option("--path", metavar="/PATH", help="another server's path; {model} stands for the model"),
    # When it is sent
    click.option(
        "--arrivals",
        type=click.Choice(["constant", "poisson"]),
        help="of independent users or evenly spaced  [default: poisson]",
    ),
    click.option("--rate", type=_POSITIVE, help="requests per second; where --find-slo begins"),
    click.option("--trace", type=_FILE, help="recorded arrivals: JSON lines or CSV with at_s, model, image"),
    click.option("--trace-speed", type=_POSITIVE, default=1.0, help="replay so many times as fast"),
    click.option("--closed", type=_COUNT, metavar="N", help="no arrivals: N requests in flight, for capacity"),
    click.option("--duration-s", type=_POSITIVE, help="of measuring  [default: 30]"),
    click.option("--requests", type=_COUNT, help="measure so many instead of a duration"),
    click.option("--warm-up-s", type=click.FloatRange(min=0.0), default=2.0, show_default=True, help="not measured"),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="of arrivals and images"),
    # Which processes send it
    click.option("--processes", type=_COUNT, help="client processes  [default: half the cores, 8 at most]"),
    click.option("--connections", type=_COUNT, default=16, show_default=True, help="opened before the start"),
    click.option("--max-in-flight", type=_COUNT, default=1024, show_default=True, help="more wait in the client"),
    click.option("--timeout-s", type=_POSITIVE, default=30.0, show_default=True, help="then a request has failed"),
    # What is measured and written
    click.option(
        "--objective-ms", type=objective_ms, default=200.0, show_default=True, help="answers within it are goodput"
    ),
    click.option("--find-slo", is_flag=True, help="search the highest rate whose p99 is within the objective"),
    click.option("--trial-s", type=_POSITIVE, default=5.0, show_default=True, help="of each try of --find-slo"),
    click.option("--max-rate", type=_POSITIVE, default=100_000.0, show_default=True, help="of --find-slo"),
    click.option(
        "--plan", type=_POSITIVE, metavar="RATE", help="with --find-slo: replicas that carry so many a second"
    ),
    click.option("--plan-devices", type=_COUNT, default=1, show_default=True, help="of the measured server"),
    click.option("--plan-price", type=_POSITIVE, help="of such a server, an hour"),
    click.option(
        "--fail-if", "fail_if", multiple=True, metavar="CONDITION", help="exit 1 if it holds, such as 'p99_ms>50'"
    ),
    click.option("--json", "json_file", metavar="FILE", help="the report for machines; - for stdout"),
    click.option("--html", "html_file", type=_OUTPUT, help="the report as a page with plots; needs matplotlib"),
    click.option("--record", type=_OUTPUT, help="write what was sent, for --trace"),
)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("url")
@click.argument("model", required=False)
@_with_options
def bench(**given: Any) -> None:
    """Sends images to MODEL at URL as users would: at given moments, whether or not the server keeps up.

    Latency counts from the moment a request was meant to be sent, so a stall is seen by all who wait through it.
    """
    from saccade.service.bench.options import options_from

    try:
        options = options_from(given, _key(given["key_file"], given["key_env"]))
        failures = _run(options)
    except BadParameter as error:
        raise click.UsageError(str(error)) from error
    for failure in failures:
        click.echo(f"FAILED       {failure}", err=True)
    if failures:
        sys.exit(1)


def _key(key_file: Path | None, key_env: str | None) -> str | None:
    """The key from a file or variable: one on the command line is in every process list. Raises BadParameter."""
    if key_file is not None and key_env is not None:
        raise BadParameter("give --key-file or --key-env, not both")
    if key_file is not None:
        return key_file.read_text("utf-8").strip()
    if key_env is None:
        return None
    key = os.environ.get(key_env, "").strip()
    if not key:
        raise BadParameter(f"--key-env names {key_env}, which is not set or empty")
    return key


def _run(options: BenchOptions) -> list[str]:
    """Measures, writes what was asked for, and returns why the run fails."""
    from saccade.service.bench.limits import failures_of
    from saccade.service.bench.options import measured_with
    from saccade.service.bench.progress import ProgressShow
    from saccade.service.bench.report import encoded
    from saccade.service.bench.session import check_server, trace_rows
    from saccade.service.bench.text_report import text_of
    from saccade.service.bench.traces import write_trace

    check_server(options.session)
    progress = ProgressShow()
    with progress.status:
        run = measured_with(options, progress)
    report = run.report
    if options.json_file == "-":
        click.echo(encoded(report), nl=False)
    else:
        click.echo(text_of(report))
        if options.json_file is not None:
            Path(options.json_file).write_bytes(encoded(report))
    if options.html_file is not None:
        from saccade.service.bench.page import html_of  # only this page needs matplotlib

        options.html_file.write_text(html_of(report), "utf-8")
    if options.record is not None:
        write_trace(options.record, trace_rows(run, options.session.workload))
    return failures_of(report, options.conditions)
