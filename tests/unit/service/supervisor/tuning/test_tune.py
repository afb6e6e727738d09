"""Tuning at start: what is measured with, what is known already, and that it never keeps a server from starting."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from structlog.testing import capture_logs

from saccade.models.contract.specs import Task
from saccade.service.errors import RepositoryError
from saccade.service.settings import Settings
from saccade.service.supervisor.tuning import tune as tune_module
from saccade.service.supervisor.tuning.forms import ProcessForm, ProcessFormSpeed, TuningTask
from saccade.service.supervisor.tuning.tune import tuned
from tests.support.graphs import classifier_graph
from tests.support.versions import publish_fake

ONE, TWO = ProcessForm(1, 2, False, 2), ProcessForm(2, 1, False, 1)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish_fake(tmp_path, "classifier", 1, Task.CLASSIFY, classifier_graph())
    return tmp_path


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    structlog.reset_defaults()
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[TuningTask]:
    """Tasks that were measured; two workers with one HTTP process do more."""
    tasks: list[TuningTask] = []

    def measure(task: TuningTask) -> list[ProcessFormSpeed]:
        tasks.append(task)
        return [ProcessFormSpeed(form, 120.0 if form == TWO else 100.0, 2.0, 3) for form in task.forms]

    monkeypatch.setattr(tune_module, "_measure", measure)
    return tasks


def test_server_takes_what_was_measured_to_do_more(
    repository: Path, measured: list[TuningTask], logs: list[dict[str, Any]]
) -> None:
    settings = tuned(Settings(repository=repository), 2)

    assert (settings.devices, settings.device_threads, settings.api_processes) == (("cpu:0", "cpu:1"), 1, 1)
    assert [form for form in measured[0].forms if form in (ONE, TWO)] == [ONE, TWO]
    assert logs[-1]["event"] == "tuned"
    assert logs[-1]["choice"] == "2 worker(s) of 1 thread(s), 1 HTTP process(es)"


def test_next_start_knows(repository: Path, measured: list[TuningTask]) -> None:
    first = tuned(Settings(repository=repository), 2)
    second = tuned(Settings(repository=repository), 2)

    assert first == second
    assert len(measured) == 1


def test_one_round_is_not_enough_to_be_remembered(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hurried = [ProcessFormSpeed(ONE, 100.0, 2.0, 1), ProcessFormSpeed(TWO, 120.0, 3.0, 1)]
    monkeypatch.setattr(tune_module, "_measure", lambda task: hurried)

    assert len(tuned(Settings(repository=repository), 2).devices) == 2
    assert not (repository / ".tuning").exists()


def test_other_cores_are_measured_again(repository: Path, measured: list[TuningTask]) -> None:
    tuned(Settings(repository=repository), 2)
    tuned(Settings(repository=repository), 4)
    assert [task.cores for task in measured] == [2, 4]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda kept: b"",
    "no form": lambda kept: b"[]",
    "no bytes of ours": lambda kept: b"\xff",
    "deep": lambda kept: b"[" * 100_000,
    "a form is missing": lambda kept: msgspec.json.encode(msgspec.json.decode(kept)[:-1]),
    "another order": lambda kept: msgspec.json.encode(msgspec.json.decode(kept)[::-1]),
    "negative rate": lambda kept: kept.replace(b"120.0", b"-120.0"),
    "endless rate": lambda kept: kept.replace(b"120.0", b"1e999"),
    "no number": lambda kept: kept.replace(b"120.0", b"NaN"),
    "too many rounds": lambda kept: kept.replace(b'"rounds": 3', b'"rounds": 300'),
    "too few rounds": lambda kept: kept.replace(b'"rounds": 3', b'"rounds": 1'),
    "huge": lambda kept: kept + b" " * (1 << 20),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damaged_memory_is_measured_again(
    repository: Path, measured: list[TuningTask], damage: Callable[[bytes], bytes]
) -> None:
    tuned(Settings(repository=repository), 2)
    (kept,) = (repository / ".tuning").iterdir()
    damaged = damage(kept.read_bytes())
    assert damaged != kept.read_bytes()
    kept.write_bytes(damaged)
    assert len(tuned(Settings(repository=repository), 2).devices) == 2
    assert len(measured) == 2


@pytest.mark.parametrize(
    "given",
    [{"tuning": "off"}, {"backend": "fake"}, {"device": "cuda:0"}, {"device": "cpu:0,cpu:1", "api_processes": 2}],
    ids=lambda given: next(iter(given.values())),
)
def test_nothing_is_measured_where_nothing_is_open(
    repository: Path, measured: list[TuningTask], given: dict[str, str]
) -> None:
    settings = Settings.model_validate({"repository": repository, **given})
    assert tuned(settings, 2) is settings
    assert measured == []


def test_version_that_cannot_be_read_is_left_to_whoever_loads_it(repository: Path, measured: list[TuningTask]) -> None:
    broken = publish_fake(repository, "broken", 1, Task.CLASSIFY, classifier_graph())
    (broken / "manifest.json").write_text("{", "utf-8")
    missing = publish_fake(repository, "missing", 1, Task.CLASSIFY, classifier_graph())
    next(missing.glob("*.onnx")).unlink()

    tuned(Settings(repository=repository), 2)

    assert Path(measured[0].version_dir).parent.name == "classifier"


def test_directory_that_holds_another_versions_manifest_leaves_the_version_that_serves(
    repository: Path, measured: list[TuningTask]
) -> None:
    shutil.copytree(repository / "classifier" / "1", repository / "classifier" / "2")

    tuned(Settings(repository=repository), 2)

    assert Path(measured[0].version_dir).name == "1"


def test_version_that_nobody_judged_is_not_measured_unless_it_may_be_served(
    tmp_path: Path, measured: list[TuningTask]
) -> None:
    publish_fake(tmp_path, "classifier", 1, Task.CLASSIFY, classifier_graph(), judged=False)

    tuned(Settings(repository=tmp_path), 2)
    assert measured == []
    tuned(Settings(repository=tmp_path, allow_unjudged=True), 2)
    assert len(measured) == 1


def test_empty_repository_is_served_by_rule(tmp_path: Path, measured: list[TuningTask]) -> None:
    settings = Settings(repository=tmp_path)
    assert tuned(settings, 2) is settings
    assert measured == []


def test_failure_is_said_and_the_server_starts(
    repository: Path, monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, Any]]
) -> None:
    def fail(task: TuningTask) -> list[ProcessFormSpeed]:
        raise RepositoryError("Traceback\nBackendError: no such operator")

    monkeypatch.setattr(tune_module, "_measure", fail)
    settings = Settings(repository=repository)

    assert tuned(settings, 2) is settings
    assert logs[-1]["event"] == "tuning_failed"
    assert logs[-1]["reason"] == "BackendError: no such operator"
