"""`saccade-export` where what its extra brings is not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import clean_environment

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("absent", ["onnx", "torch", "onnxruntime"])
def test_program_names_the_extra_in_one_line(absent: str) -> None:
    program = f"import sys; sys.modules[{absent!r}] = None; from saccade.export.__main__ import main; main()"

    done = subprocess.run(
        [sys.executable, "-c", program, "run", "recipe.yaml"],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (1, "")
    first, sentence = done.stderr.splitlines()
    assert first == "# reading recipe.yaml ..."
    assert sentence.startswith(f"saccade-export: {absent} is not installed: pip install 'saccade-serving[export,c")
