"""`saccade predict --repository DIR IMAGE…`: without a server. Lines come in order; exits with 1 if an image failed."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from saccade.service.cli.image_files import SUFFIXES, image_files
from saccade.service.cli.offline import OfflineAnswer, OfflineImage, OfflineModel, newest_version
from saccade.service.cli.predict_text import summary_of
from saccade.service.errors import RepositoryError
from saccade.service.repository.open import list_versions
from saccade.service.repository.trusted_keys import signature_policy
from saccade.service.settings import Settings, core_count, resolved, settings_from
from saccade.service.vision.parameters import DeadlineRule, complete, parse_given


@dataclass(frozen=True, slots=True)
class OfflineRequest:
    """What the command line asks for."""

    repository: Path
    model: str | None
    version: str | None
    images: tuple[Path, ...]  # files and folders
    parameters: dict[str, str]
    as_json: bool


def predict_offline(request: OfflineRequest) -> None:
    """Prints one answer per image. Raises RepositoryError, BackendError or BadParameter with what to change."""
    files = list(image_files(request.images))
    if not files:
        where = ", ".join(map(str, request.images))
        raise click.UsageError(f"no images in {where}, folders below not counted: {', '.join(sorted(SUFFIXES))}")
    given = parse_given(request.parameters, is_text=True)
    overrides = {"repository": request.repository, **({"variant": given.variant} if given.variant else {})}
    settings = resolved(settings_from(os.environ, overrides), core_count())
    policy = signature_policy(settings.trusted_keys, is_required=settings.require_signature)
    name = request.model or _only_model(request.repository)
    verified = newest_version(request.repository, name, request.version, policy)
    with closing(OfflineModel(verified, one_process(settings))) as model:
        parameters = complete(
            given, model.manifest, DeadlineRule(settings.default_deadline_ms, settings.max_deadline_ms)
        )
        model.warm_up()
        for answer in _shown(model.predict([OfflineImage(path) for path in files], parameters), len(files)):
            click.echo(_line(answer, request.as_json))
        times = model.times
    rate = times.images / times.total_s if times.total_s else 0.0
    share = times.infer_s / times.total_s if times.total_s else 0.0
    click.echo(
        f"{name}/{verified.manifest.version} {model.variant}: {times.images} images in {times.total_s:.2f} s, "
        f"{rate:.1f} images/s, {share:.0%} of it inference; {times.failed} failed",
        err=True,
    )
    if times.failed:
        sys.exit(1)


def one_process(settings: Settings) -> Settings:
    """Settings for a single process: all cores infer, and all decode while the device is busy."""
    return settings.model_copy(update={"decode_threads": max(2, core_count())})


def _only_model(repository: Path) -> str:
    names = sorted({found.key.model for found in list_versions(repository)})
    if len(names) != 1:
        raise RepositoryError(f"say --model: {repository} holds {', '.join(names) or 'no model'}")
    return names[0]


def _shown(answers: Iterator[OfflineAnswer], count: int) -> Iterator[OfflineAnswer]:
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        bar = progress.add_task("predicting", total=count)
        for answer in answers:
            progress.advance(bar)
            yield answer


def _line(answer: OfflineAnswer, as_json: bool) -> str:
    if as_json:
        document: dict[str, Any] = {"image": answer.name}
        document |= {"prediction": answer.prediction} if answer.prediction is not None else {"error": answer.error}
        return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    return f"{answer.name}  {answer.error if answer.prediction is None else summary_of(answer.prediction)}"
