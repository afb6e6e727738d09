"""`python -m tests.load.forms`: how near the form that a server chooses at its start is to the best of all forms.

For every model of a repository: the choice is made several times from nothing, as at a first start. Then a server in
each form of the grid runs at the same time, and a closed loop asks one after the other, in rounds, the client on the
same cores. A form's rate is taken relative to the mean of its round, because a machine is not always as fast, and the
ratio is that of the medians: chosen form over best form.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import orjson

from saccade.service.repository.open import newest_versions
from saccade.service.settings import Settings, core_count
from saccade.service.supervisor.tuning.forms import ProcessForm, applied, form_text, forms_for
from saccade.service.supervisor.tuning.tune import tuned
from tests.load import closed_loop
from tests.load.arguments import count_from_1, repository_with_versions, seconds_above_0
from tests.load.bench import photographs
from tests.support.server import Server, running_server

_CONNECTIONS = 32
_WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Choice:
    """The form that was chosen in one try, and the seconds that this took."""

    form: ProcessForm
    seconds: float


def alone(version_dir: Path, folder: Path) -> Path:
    """A repository that holds this version only."""
    target = folder / version_dir.parent.name / version_dir.name
    shutil.copytree(version_dir, target)
    return folder


def choose(repository: Path, cores: int) -> Choice:
    """Chooses as at a first start."""
    shutil.rmtree(repository / ".tuning", ignore_errors=True)
    settings, start_s = Settings(repository=repository, allow_unjudged=True), time.perf_counter()
    found = tuned(settings, cores)
    seconds = time.perf_counter() - start_s
    of_choice = (form for form in forms_for(settings, cores) if applied(settings, form) == found)
    return Choice(next(of_choice, forms_for(settings, cores)[0]), seconds)


def grid(
    repository: Path, model: str, forms: Sequence[ProcessForm], rounds: int, seconds: float, work: Path
) -> dict[ProcessForm, list[float]]:
    """Requests per second of a server in each form, by round; the order turns around after each."""
    bodies = photographs()
    path = f"/v1/models/{model}/predict"
    context = multiprocessing.get_context("spawn")
    rates: dict[ProcessForm, list[float]] = {form: [] for form in forms}
    with contextlib.ExitStack() as stack:
        servers: dict[ProcessForm, Server] = {}
        for number, form in enumerate(forms):
            folder = work / str(number)
            folder.mkdir()
            servers[form] = stack.enter_context(
                running_server(
                    repository,
                    folder,
                    backend="onnxruntime",
                    device=",".join(f"cpu:{index}" for index in range(form.workers)),
                    device_threads=form.threads,
                    allow_spinning=form.allow_spinning,
                    api_processes=form.api_processes,
                    max_estimated_wait_ms=0,
                    allow_unjudged=True,
                    repository_poll_ms=1000,
                )
            )
        for number in range(rounds):
            for form in forms if number % 2 == 0 else forms[::-1]:
                arguments = ("127.0.0.1", servers[form].port, path, bodies, _CONNECTIONS, _WARM_UP_S, seconds)
                with context.Pool(1) as pool:
                    rates[form].append(pool.apply(closed_loop.run, arguments).per_second)
    return rates


def compared(version_dir: Path, tries: int, rounds: int, seconds: float) -> dict[str, Any]:
    """The choices for one model beside its grid."""
    cores, model = core_count(), version_dir.parent.name
    with tempfile.TemporaryDirectory() as work:
        repository = alone(version_dir, Path(work) / "repository")
        forms = forms_for(Settings(repository=repository), cores)
        choices = [choose(repository, cores) for _ in range(tries)]
        rates = grid(repository, model, forms, rounds, seconds, Path(work))
    of_round = [mean(found) for found in zip(*rates.values(), strict=True)]
    relative = {
        form: median(rate / usual for rate, usual in zip(found, of_round, strict=True)) for form, found in rates.items()
    }
    best = max(relative.values())
    return {
        "model": model,
        "requests_per_s": {form_text(form): [round(rate, 1) for rate in found] for form, found in rates.items()},
        "over_best": {form_text(form): round(rate / best, 3) for form, rate in relative.items()},
        "chosen": Counter(form_text(choice.form) for choice in choices),
        "chosen_over_best": [round(relative[choice.form] / best, 3) for choice in choices],
        "seconds_to_choose": [round(choice.seconds, 1) for choice in choices],
    }


def main() -> None:
    """Prints one JSON document per model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repository", type=repository_with_versions, required=True)
    parser.add_argument("--model", action="append", help="left out: all of the repository")
    parser.add_argument("--tries", type=count_from_1, default=3)
    parser.add_argument("--rounds", type=count_from_1, default=6)
    parser.add_argument("--seconds", type=seconds_above_0, default=2.0, help="of load for each form and round")
    given = parser.parse_args()
    for found in newest_versions(given.repository):
        if not given.model or found.path.parent.name in given.model:
            row = compared(found.path.absolute(), given.tries, given.rounds, given.seconds)
            print(orjson.dumps(row, option=orjson.OPT_INDENT_2).decode(), flush=True)


if __name__ == "__main__":
    main()
