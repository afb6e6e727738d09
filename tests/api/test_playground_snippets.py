"""The playground's commands do what the page did: each is run as it is shown; skipped where there is no Chromium."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import CHROMIUM, Page, opened_tab
from tests.support.images import red_png
from tests.support.server import Server, running_server

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH")]

KEY = "the-key"
ODD_NAME = 'it\'s "red", 20% \\ é.png'


@pytest.fixture(scope="module")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "keys").write_text(KEY, "ascii")
    with running_server(repository, folder, open_without_key="docs", api_keys_file=folder / "keys") as running:
        yield running


@pytest.fixture
def unlocked(chromium_port: int, server: Server) -> Iterator[Page]:
    """The playground with the key, its models shown."""
    with opened_tab(chromium_port, server.base_url, KEY) as page:
        yield page


def asked(page: Page, model: str, fields: dict[str, str], files: list[Path]) -> None:
    page.choose_model(model)
    for field, value in fields.items():
        page.set_value(field, value)
    page.choose_files(*files)
    page.wait_for("!document.getElementById('answer').hidden")


def output_of(page: Page, language: str, folder: Path) -> str:
    """What the shown program prints in the folder of the pictures."""
    page.set_value("language", language)
    program = page.text("curl")
    command = [sys.executable, "-c", program] if language == "python" else ["sh", "-c", program]
    given = {"SACCADE_API_KEY": KEY}
    ran = subprocess.run(command, cwd=folder, env={**os.environ, **given}, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, f"{program}\n{ran.stderr}"
    return ran.stdout


def test_one_picture(unlocked: Page, tmp_path: Path) -> None:
    image = tmp_path / ODD_NAME
    image.write_bytes(red_png(200))
    unlocked.evaluate("document.getElementById('quality-asked').click()")
    asked(
        unlocked,
        "classifier",
        {"target": "version:1", "top-k": "3", "deadline": "8000"},
        [image],
    )

    answer = json.loads(output_of(unlocked, "curl", tmp_path))
    printed = output_of(unlocked, "python", tmp_path)

    assert (answer["version"], len(answer["predictions"][0]["classes"])) == ("1", 3)
    assert printed.startswith("Classification(")
    assert printed.count("ScoredClass(") == 3
    assert answer["predictions"][0]["quality"]["score"] == 0
    assert "quality=PictureQuality(score=0" in printed
    assert unlocked.text("quality").startswith("Picture quality 0 %; blurred: ")
    assert (tmp_path / "answer.png").exists()


@pytest.mark.parametrize("model", ["segmenter", "instances", "detector"])
def test_several_pictures(unlocked: Page, tmp_path: Path, model: str) -> None:
    images = [tmp_path / ODD_NAME, tmp_path / "second;.png"]
    for image in images:
        image.write_bytes(red_png(200))
    asked(unlocked, model, {} if model == "detector" else {"mask-format": "polygon"}, images)

    answer = json.loads(output_of(unlocked, "curl", tmp_path))
    printed = output_of(unlocked, "python", tmp_path)

    assert (answer["model"], len(answer["predictions"])) == (model, 2)
    if model != "detector":
        first = answer["predictions"][0]
        assert all("polygons" in item for item in first.get("segments") or first["detections"])
    kind = "Segmentation(" if model == "segmenter" else "Detections("
    assert [line.startswith(kind) for line in printed.splitlines()] == [True, True]
