"""The processes that forms are tried with: what they are told when they start."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from saccade.service.errors import BackendError
from saccade.service.ipc.child_process import API_MODULE
from saccade.service.repository.verify import verify_version
from saccade.service.settings import Settings
from saccade.service.supervisor.tuning import measuring
from saccade.service.supervisor.tuning.forms import ProcessForm, TuningTask
from saccade.service.supervisor.tuning.trial_process import TrialProcess
from saccade.service.supervisor.tuning.trial_server import TrialServer
from tests.support.graphs import classifier_graph
from tests.support.versions import publish_fake

FORMS = (ProcessForm(2, 1, False, 2), ProcessForm(1, 2, False, 1))


def test_no_http_process_listens_without_its_workers_before_the_trial_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that did would refuse requests (503), and a single refusal ends the trial."""
    waits_s: list[float] = []

    async def start(
        self: TrialProcess, module: str, name: str, arguments: Sequence[str], settings: Settings, place: str
    ) -> None:
        if module == API_MODULE:
            waits_s.append(float(arguments[arguments.index("--worker-within-s") + 1]))
        self._received.put_nowait(None)  # it ends at once

    monkeypatch.setattr(TrialProcess, "start", start)
    version = verify_version(publish_fake(tmp_path, "classifier", 1, Task.CLASSIFY, classifier_graph()))
    task = TuningTask(str(version.path), "fp32", FORMS, 2, (1,), Settings(repository=tmp_path).model_dump_json())

    async def begin() -> None:
        async with TrialServer(task, version, tmp_path):
            pass

    with pytest.raises(BackendError):
        asyncio.run(begin())
    assert len(waits_s) == 3
    assert min(waits_s) > measuring._GIVE_UP_S
