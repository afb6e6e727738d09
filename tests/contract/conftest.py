"""An object store on the loopback, for each module of tests, and a prefix in it for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from saccade.service.repository.object_store.store import Store
from tests.support.object_store import BUCKET, ObjectStoreServer, object_store_server, store_at


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStoreServer]:
    with object_store_server(tmp_path_factory.mktemp("object-store")) as running:
        yield running


@pytest.fixture
def url(server: ObjectStoreServer, request: pytest.FixtureRequest) -> str:
    """A prefix for each test."""
    return f"s3://{BUCKET}/{request.node.originalname.replace('_', '-')}"


@pytest.fixture
def store(url: str) -> Store:
    return store_at(url)
