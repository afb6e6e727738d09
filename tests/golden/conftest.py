"""Compares with a stored file, or rewrites it with `make golden-update`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture
def check_golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`check_golden(file name, text)` fails with the difference."""
    is_update = bool(request.config.getoption("--golden-update"))

    def check(name: str, text: str) -> None:
        path = HERE / name
        if is_update:
            path.write_text(text, "utf-8")
            return
        stored = path.read_text("utf-8") if path.exists() else ""
        if stored != text:
            difference = difflib.unified_diff(
                stored.splitlines(), text.splitlines(), f"stored {name}", "now", lineterm="", n=2
            )
            pytest.fail(
                "\n".join(difference) + "\n\nIf clients may see this change: `make golden-update`, and CHANGELOG.md.",
                pytrace=False,
            )

    return check
