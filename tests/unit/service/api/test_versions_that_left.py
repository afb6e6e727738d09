"""An HTTP process keeps nothing of versions that left: neither manifests nor parameters that were checked for them."""

from __future__ import annotations

import asyncio
import gc
import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from saccade.models.contract.manifest import Manifest
from saccade.service.api.app import build_api
from saccade.service.api.predictor import Predictor
from saccade.service.api.process import ApiProcess
from saccade.service.ipc.messages import Catalog, VersionStatus
from saccade.service.metrics import MULTIPROCESS_DIR
from saccade.service.settings import Settings, resolved
from tests.support.images import red_png
from tests.support.versions import publish_fake
from tests.unit.service.api.catalogs import instance

MODEL = "told-apart-from-other-tests"


def status(directory: Path) -> VersionStatus:
    version = int(directory.name)
    digest = hashlib.sha256((directory / "manifest.json").read_bytes()).hexdigest()
    return VersionStatus(MODEL, version, str(directory), digest, "ready", "", "fp32", (instance("cpu", version),))


def versions_in_memory() -> list[int]:
    gc.collect()
    manifests = [each for each in gc.get_objects() if type(each) is Manifest]  # `isinstance` would ask proxies
    return sorted(each.version for each in manifests if each.model == MODEL)


async def swap(repository: Path, versions: int) -> None:
    """Sends a catalog of each version alone, and a request to it."""
    applied: asyncio.Queue[int] = asyncio.Queue()
    api = build_api(resolved(Settings(backend="fake"), cores=2), applied.put_nowait)
    begun: asyncio.Future[Callable[[Catalog], None]] = asyncio.get_running_loop().create_future()
    control = SimpleNamespace(start=lambda receive, stop: begun.set_result(receive), send=lambda message: None)
    process = ApiProcess(
        api, cast(Any, control), cast(Any, SimpleNamespace(should_exit=False)), "127.0.0.1", reports_usage=False
    )
    running = asyncio.create_task(process.run(0))
    transport = httpx.ASGITransport(api.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for version in range(1, versions + 1):
            directory = publish_fake(repository, MODEL, version)
            (await begun)(Catalog(version, (), (status(directory),), False))
            assert await applied.get() == version
            answer = await client.post(f"/v1/models/{MODEL}/predict", content=red_png(1))
            assert answer.status_code == 503  # there is no worker
    assert versions_in_memory() == [versions]
    running.cancel()
    for pool in api.pools:
        pool.shutdown()


def test_only_the_version_that_serves_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MULTIPROCESS_DIR, raising=False)
    monkeypatch.setattr(Predictor, "ensure_room", lambda *given: None)  # so that the parameters are checked

    asyncio.run(swap(tmp_path, versions=3))
