"""Training uses bfloat16 only on processors that multiply its matrices."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.models.training.command import autocast


@pytest.mark.parametrize(("flags", "is_used"), [("avx512_bf16", False), ("avx512_bf16 amx_bf16", True), ("", False)])
def test_bfloat16_needs_amx(monkeypatch: pytest.MonkeyPatch, flags: str, is_used: bool) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"flags : fpu {flags}")

    assert autocast()._enabled is is_used
