"""The recipes for other load tools: they parse, and ask this server's API. Neither tool is a dependency."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest

LOAD = Path(__file__).resolve().parents[1] / "load"
PREDICT = re.compile(r"/v1/models/\$?\{MODEL\}/predict")


def test_locust_file_parses_and_has_a_user_with_a_task() -> None:
    source = (LOAD / "locustfile.py").read_text("utf-8")

    (user,) = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    assert [ast.unparse(base) for base in user.bases] == ["FastHttpUser"]
    tasks = [item for item in user.body if isinstance(item, ast.FunctionDef)]
    assert [ast.unparse(decorator) for item in tasks for decorator in item.decorator_list] == ["task"]
    assert PREDICT.search(source)


def test_k6_script_asks_the_api() -> None:
    source = (LOAD / "k6.js").read_text("utf-8")

    assert PREDICT.search(source)
    assert "constant-arrival-rate" in source


@pytest.mark.skipif(shutil.which("node") is None, reason="no node in PATH")
def test_k6_script_parses(tmp_path: Path) -> None:
    module = tmp_path / "k6.mjs"
    module.write_bytes((LOAD / "k6.js").read_bytes())

    result = subprocess.run(["node", "--check", str(module)], capture_output=True, text=True, timeout=60, check=False)

    assert result.returncode == 0, result.stderr
