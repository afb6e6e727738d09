"""Runs the program `saccade` in this process."""

from __future__ import annotations

import sys

import pytest
from click.testing import CliRunner, Result

from saccade.service.cli import program as cli


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.saccade, arguments)


def exit_code_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Of the whole program, with errors turned into codes."""
    monkeypatch.setattr(sys, "argv", ["saccade", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code
