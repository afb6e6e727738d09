"""Options of the whole suite."""

from __future__ import annotations

import os
import tempfile

import hypothesis
import pytest

# The same cases in every run: one that another run would find must not decide whether a change is taken.
hypothesis.settings.register_profile("repeatable", derandomize=True)
hypothesis.settings.load_profile("repeatable")
# Before anything imports onnxruntime: its telemetry writes a device id below the home directory.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# Exports make a signing key below it: the account's own stays untouched, and is trusted by no server of a test.
_ACCOUNT = tempfile.TemporaryDirectory(prefix="saccade-account-")
os.environ["XDG_CONFIG_HOME"] = _ACCOUNT.name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-update", action="store_true", help="rewrite the goldens; read the diff before committing"
    )
    parser.addoption(
        "--leak-seconds", type=float, default=20.0, help="how long each leak check on a GPU loads and unloads"
    )


def pytest_unconfigure() -> None:
    _ACCOUNT.cleanup()
