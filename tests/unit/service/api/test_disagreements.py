"""What an API process does where disagreements cannot be kept: it says so once, and goes on."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import structlog

from saccade.service.api import disagreements
from saccade.service.api.disagreements import Disagreements, Seen
from saccade.service.core import VersionKey
from saccade.service.vision.comparison import Comparison


@pytest.mark.asyncio
async def test_full_volume_is_said_once_and_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Any] = []

    def full(repository: Path, found: Any, picture: bytes | None) -> float:
        tried.append(found)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disagreements, "keep_disagreement", full)
    writer = Disagreements(tmp_path, keeps_pictures=True)
    seen = Seen("request", VersionKey("digits", 1), 2)

    with structlog.testing.capture_logs() as logs:
        for _ in range(5):
            await writer.note(seen, Comparison(0.1, {}, "7", "1"), b"picture")

    assert len(tried) == 1
    assert [(each["event"], each["reason"]) for each in logs] == [("disagreements_not_kept", "No space left on device")]
