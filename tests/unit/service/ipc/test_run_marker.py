"""What a worker was at when it ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.service.errors import BackendError, DeviceLost
from saccade.service.ipc.run_marker import RunMarker, create, marker_path, present_run


def test_run_is_marked_while_it_lasts_and_after_the_device_was_lost(tmp_path: Path) -> None:
    path = marker_path(str(tmp_path / "worker-0-0.sock"))
    assert present_run(path) is None
    create(path)
    marker = RunMarker.open(path)
    assert present_run(path) is None

    with marker.running(7):
        run = present_run(path)
        assert run is not None
        assert run.instance_id == 7
    assert present_run(path) is None

    with pytest.raises(BackendError), marker.running(8):
        raise BackendError("a batch failed, and the worker goes on")
    assert present_run(path) is None

    with pytest.raises(DeviceLost), marker.running(9):
        raise DeviceLost("the process ends")
    assert present_run(path).instance_id == 9  # type: ignore[union-attr]
