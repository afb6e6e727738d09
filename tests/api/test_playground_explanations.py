"""The playground shows where a network looked; skipped where there is no Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from tests.support.browser import CHROMIUM, Page, opened_tab
from tests.support.server import Server, running_server
from tests.support.versions import EXPLANATION, manifest_for, publish, publish_fake, with_extras

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in PATH")]

ANSWERED = "!document.getElementById('answer').hidden && document.getElementById('curl').textContent"


@pytest.fixture(scope="module")
def explaining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("repository")
    publish(root, with_extras(manifest_for("finder", 1, Task.DETECT), EXPLANATION))
    publish_fake(root, "plain", 1)
    with running_server(root, tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def tab(chromium_port: int, explaining: Server) -> Iterator[Page]:
    with opened_tab(chromium_port, explaining.base_url) as opened:
        yield opened


def test_a_tick_asks_for_the_map_and_the_picture_glows(tab: Page, image: Path) -> None:
    tab.choose_model("finder")
    tab.set_value("threshold", "1")  # no box over the middle
    tab.choose_files(image)
    tab.wait_for(ANSWERED)
    plain = tab.centre_pixel()

    tab.evaluate("document.getElementById('explain').click()")
    tab.wait_for("document.getElementById('curl').textContent.includes('explain=grid')")

    assert plain == [200, 100, 200]
    assert tab.centre_pixel() == [241, 216, 50]  # three quarters of yellow: the fake backend's map is hot everywhere
    assert [each for each in tab.complaints if "Canvas2D" not in each] == []  # this test reads pixels twice


def test_models_without_explanations_have_no_tick(tab: Page) -> None:
    hidden = {}
    for model in ("finder", "plain"):
        tab.choose_model(model)
        hidden[model] = tab.evaluate("document.getElementById('explain-field').hidden")
    assert hidden == {"finder": False, "plain": True}
