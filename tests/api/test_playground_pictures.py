"""The playground shows a picture that a network made over the one that was sent; skipped without Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from saccade.models.contract.specs import PreprocessSpec, Task, TaskSpec
from tests.support.browser import CHROMIUM, Page, opened_tab
from tests.support.graphs import depth_graph, image_graph
from tests.support.images import red_png
from tests.support.server import Server, running_server
from tests.support.versions import SIDE, publish_fake

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH")]

ANSWERED = "!document.getElementById('answer').hidden"
TILES = PreprocessSpec(width=SIDE, height=SIDE, fit="tile", margin=1)
WHOLE = PreprocessSpec(width=SIDE, height=SIDE, fit="stretch")


@pytest.fixture(scope="module")
def making(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("repository")
    double, depth = (TaskSpec(task=Task.IMAGE, picture=kind, scale=scale) for kind, scale in (("rgb", 2), ("depth", 1)))
    publish_fake(root, "enlarge", 1, Task.IMAGE, image_graph(scale=2), spec=double, preprocess=TILES)
    publish_fake(root, "depth", 1, Task.IMAGE, depth_graph(), spec=depth, preprocess=WHOLE)
    with running_server(root, tmp_path_factory.mktemp("server"), backend="onnxruntime") as running:
        yield running


@pytest.fixture
def tab(chromium_port: int, making: Server) -> Iterator[Page]:
    with opened_tab(chromium_port, making.base_url) as opened:
        yield opened


def pixel(tab: Page, x: float, y: float) -> list[int]:
    found: list[int] = tab.evaluate(
        f"""(() => {{
            const canvas = document.getElementById("canvas");
            const at = [Math.floor(canvas.width * {x}), Math.floor(canvas.height * {y})];
            return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
        }})()"""
    )
    return found


def test_the_slider_moves_between_what_was_sent_and_what_was_made(tab: Page, tmp_path: Path) -> None:
    """The blur is darker at the border of the picture, where it sees black."""
    (tmp_path / "flat.png").write_bytes(red_png(200, 100, 80))
    tab.choose_model("enlarge")
    tab.choose_files(tmp_path / "flat.png")
    tab.wait_for(ANSWERED)
    asked = tab.predict_count()

    tab.set_value("split", "1")
    sent = [pixel(tab, x, 0.001) for x in (0.2, 0.8)]
    tab.set_value("split", "0.5")
    halves = [pixel(tab, x, 0.001) for x in (0.2, 0.8)]
    tab.set_value("split", "0")
    made = [pixel(tab, x, 0.001) for x in (0.2, 0.8)]

    assert sent[0] == sent[1] == halves[0]
    assert made[0] == made[1] == halves[1]
    assert made[0][0] < sent[0][0] - 30
    assert "A picture of 200 × 160" in tab.text("results")
    assert "/v1/models/enlarge/predict" in tab.text("curl")
    assert tab.predict_count() == asked
    assert [each for each in tab.complaints if "Canvas2D" not in each] == []  # this test reads pixels often


def test_a_larger_answer_is_shown_by_its_own_pixels(tab: Page, tmp_path: Path) -> None:
    """What was sent is shown in squares, and the answer of twice as many pixels is not enlarged enough for that."""
    tab.call("Emulation.setDeviceMetricsOverride", width=1300, height=1000, deviceScaleFactor=1, mobile=False)
    pixels = np.zeros((150, 150, 3), np.uint8)
    pixels[:, 75:] = 255
    Image.fromarray(pixels).save(tmp_path / "edge.png")
    tab.choose_model("enlarge")
    tab.choose_files(tmp_path / "edge.png")
    tab.wait_for(ANSWERED)

    shades = []
    for split in ("1", "0"):
        tab.set_value("split", split)
        row = tab.evaluate(
            """(() => {
                const canvas = document.getElementById("canvas");
                return [...canvas.getContext("2d").getImageData(0, canvas.height / 2, canvas.width, 1).data];
            })()"""
        )
        inner = row[4 * len(row) // 16 : 12 * len(row) // 16 : 4]  # without the borders, where the line stands
        shades.append(set(inner))

    assert shades[0] == {0, 255}
    assert len(shades[1]) > 4  # the blur has 0, 85, 170 and 255; others lie between its pixels


def test_depths_are_told_with_their_range(tab: Page, tmp_path: Path) -> None:
    (tmp_path / "flat.png").write_bytes(red_png(200, 64, 64))
    tab.choose_model("depth")
    tab.choose_files(tmp_path / "flat.png")
    tab.wait_for(ANSWERED)

    assert "Depths of 64 × 64 pixels, from 20.0 to 20.0" in tab.text("results")
    assert tab.complaints == []
