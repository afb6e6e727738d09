"""A server that is ended while it tries process forms takes the trial's processes along at once."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from saccade.models.contract.specs import Task
from saccade.service.settings import core_count
from tests.support.graphs import classifier_graph
from tests.support.processes import wait_gone
from tests.support.server import ROOT, START_TIMEOUT_S, clean_environment, wait_until
from tests.support.versions import publish_fake

MEASURING = "saccade.service.supervisor.tuning.measuring"
_SOME = 6  # the program that measures, the two that multiprocessing starts, and processes of the trial


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_fake(tmp_path, "classifier", 1, Task.CLASSIFY, classifier_graph())
    return tmp_path


@contextlib.contextmanager
def tuning_server(repository: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[psutil.Process]]]:
    """A server whose trial has begun, and its descendants."""
    options = ["--repository", str(repository), "--port", "0", "--tuning", "measure", "--backend", "onnxruntime"]
    server = subprocess.Popen(
        [sys.executable, "-m", "saccade.service", "serve", *options],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:

        def trial() -> list[psutil.Process]:
            found = psutil.Process(server.pid).children(recursive=True)
            return found if len(found) >= _SOME else []

        yield server, wait_until(trial, START_TIMEOUT_S, "the trial's processes run")
    finally:
        server.kill()
        server.wait()


@pytest.mark.skipif(core_count() == 1, reason="one core leaves nothing to choose")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_of_the_trial_outlives_its_server(repository: Path, number: signal.Signals) -> None:
    with tuning_server(repository) as (server, family):
        server.send_signal(number)
        code = server.wait(10.0)

        wait_gone(family)
        assert number != signal.SIGTERM or code == 0  # as later, when it drains


@pytest.mark.skipif(core_count() == 1, reason="one core leaves nothing to choose")
def test_nothing_of_the_trial_outlives_the_program_that_measures(repository: Path) -> None:
    with tuning_server(repository) as (_, family):
        next(each for each in family if MEASURING in each.cmdline()).kill()

        wait_gone(family)
