"""One real server for all tests of the HTTP contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from saccade.models.contract.specs import Task
from tests.support.browser import Page, opened_tab, running_chromium
from tests.support.images import red_png
from tests.support.server import Server, running_server
from tests.support.versions import publish_fake

BATCH_DELAY_MS = 15  # requests sent together share a batch


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of every task."""
    root = tmp_path_factory.mktemp("repository")
    publish_fake(root, "classifier", 1)
    publish_fake(root, "classifier", 2)
    publish_fake(root, "detector", 1, Task.DETECT)
    publish_fake(root, "segmenter", 1, Task.SEGMENT)
    publish_fake(root, "instances", 1, Task.INSTANCES)
    return root


@pytest.fixture(scope="session")
def server(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(repository, tmp_path_factory.mktemp("server"), max_queue_delay_ms=BATCH_DELAY_MS) as running:
        yield running


# The playground


@pytest.fixture(scope="session")
def chromium_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_chromium(tmp_path_factory.mktemp("profile")) as port:
        yield port


@pytest.fixture
def page(chromium_port: int, server: Server) -> Iterator[Page]:
    """The playground of the test server, its models shown."""
    with opened_tab(chromium_port, server.base_url) as opened:
        yield opened


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """What the fake backend answers to with 200 / 255 = 78.4 %."""
    path = tmp_path / "red.png"
    path.write_bytes(red_png(200))
    return path


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    path = tmp_path / "damaged.png"
    path.write_bytes(b"no image")
    return path
