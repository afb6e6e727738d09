"""A port whose protocol is not installed is refused at start, with what to install."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.support.server import call_saccade


def test_grpc_port_without_grpc_refuses_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name.startswith("grpc") else find_spec(name))

    result = call_saccade("serve", "--repository", str(tmp_path), "--grpc-port", "8001")

    assert result.returncode == 2
    assert "saccade-serving[grpc]" in result.stderr


def test_image_format_that_nobody_can_read_refuses_to_start(tmp_path: Path) -> None:
    result = call_saccade("serve", "--repository", str(tmp_path), "--image-formats", "gif,bpg")

    assert result.returncode == 2
    assert "SACCADE_IMAGE_FORMATS: Value error, 'bpg' is none of gif, tiff, avif" in result.stderr
