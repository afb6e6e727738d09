"""The first line of a command. Promises: it names what is read, before anything heavy is imported."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from saccade.export.cli.program import app

HEAVY = ("torch", "onnx", "onnxruntime", "numpy", "pydantic", "rich")


def test_program_itself_imports_nothing_heavy() -> None:
    code = f"import sys, saccade.export.cli.program; print([name for name in {HEAVY} if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("module", ["check", "init"])
def test_what_onnx_files_need_imports_no_torch(module: str) -> None:
    imported = f"import sys, saccade.export.cli.{module}, saccade.export.sources.onnx_source"
    code = f"{imported}; print([name for name in ('torch', 'torchvision', 'scipy.stats') if name in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["check", "recipe.yaml"], "# reading recipe.yaml ..."),
        (["gate", "--table", "report.json"], "# reading report.json ..."),
        (["run", "--repository", "models", "recipe.yaml"], "# reading recipe.yaml ..."),
        (["qualify", "models/a/1", "--recipe", "recipe.yaml"], "# reading recipe.yaml ..."),
        (["compare", "recipe.yaml", "--with", "onnx"], "# reading recipe.yaml ..."),
    ],
)
def test_first_line_names_what_is_read(arguments: list[str], said: str) -> None:
    assert CliRunner().invoke(app, arguments).stderr.splitlines()[0] == said


def test_help_is_not_preceded_by_it() -> None:
    assert CliRunner().invoke(app, ["check", "--help"]).output.startswith("Usage:")
