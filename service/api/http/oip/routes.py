"""The protocol's paths beside infer. Promises: every refusal is {"error": text}; versions are numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from prometheus_client.metrics_core import Metric
from starlette.concurrency import run_in_threadpool

from saccade.service.api.catalog import ServingCatalog, ServingTarget
from saccade.service.api.cold_starts import ColdStarts
from saccade.service.api.http.oip.documents import (
    config_document,
    figures_of,
    index_document,
    model_document,
    server_document,
    statistics_document,
)
from saccade.service.api.http.oip.infer import tensors_of
from saccade.service.core import VersionState
from saccade.service.errors import BadRequest, NotLoaded, Unavailable
from saccade.service.ipc.messages import VersionStatus

_MAX_INDEX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class OipParts:
    catalog: ServingCatalog
    cold_starts: ColdStarts
    load_within_s: float
    not_ready: Callable[[], str | None]  # the reason
    metrics: Callable[[], Iterable[Metric]]  # of all processes; reads files
    max_images: int


class _IndexRequest(msgspec.Struct, frozen=True):
    ready: bool = False


def oip_router(parts: OipParts) -> APIRouter:
    """All of /v2 but infer."""
    router = APIRouter(prefix="/v2", include_in_schema=False)
    catalog = parts.catalog

    def target_of(model: str, version: str | None) -> ServingTarget:
        return catalog.resolve(model, version, None)

    @router.get("/health/live")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready")
    async def ready(response: Response) -> dict[str, bool]:
        is_ready = parts.not_ready() is None
        response.status_code = 200 if is_ready else 503
        return {"live": True, "ready": is_ready}

    @router.get("")
    async def server() -> dict[str, Any]:
        return server_document()

    async def model_metadata(model: str, version: str | None = None) -> dict[str, Any]:
        target = target_of(model, version)
        versions = [str(status.version) for status in _ready_of(catalog, model)]
        return model_document(model, versions, target.instances[0].backend, target.manifest)

    async def model_ready(model: str, response: Response, version: str | None = None) -> dict[str, Any]:
        try:
            target_of(model, version)
            is_ready = True
        except Unavailable:
            is_ready = False
        response.status_code = 200 if is_ready else 503
        return {"name": model, "ready": is_ready}

    async def model_config(model: str, version: str | None = None) -> dict[str, Any]:
        target = target_of(model, version)
        max_batch = tensors_of(target, parts.max_images).max_batch
        return config_document(model, target.instances[0].backend, target.manifest, max_batch)

    async def statistics(model: str | None = None, version: str | None = None) -> dict[str, Any]:
        if model is not None:
            target_of(model, version)
        chosen = [
            status
            for status in catalog.snapshot.versions
            if model in (None, status.model) and version in (None, str(status.version))
        ]
        figures = await run_in_threadpool(lambda: figures_of(parts.metrics()))
        return statistics_document(chosen, figures)

    router.get("/models/stats")(statistics)  # before the model that could have this name
    for of_version in ("", "/versions/{version}"):
        path = "/models/{model}" + of_version
        router.get(path)(model_metadata)
        router.get(path + "/ready")(model_ready)
        router.get(path + "/config")(model_config)
        router.get(path + "/stats")(statistics)

    @router.post("/repository/index")
    async def index(request: Request) -> list[dict[str, str]]:
        return index_document(catalog.snapshot, await _only_ready(request))

    @router.post("/repository/models/{model}/load")
    async def load(model: str) -> dict[str, Any]:
        try:
            target_of(model, None)
        except NotLoaded as unloaded:
            await parts.cold_starts.wait(unloaded, model, None, None, parts.load_within_s)
        return {}

    @router.post("/repository/models/{model}/unload")
    async def unload(model: str) -> dict[str, Any]:
        target_of(model, None)
        raise BadRequest(
            "explicit model unload is not allowed: the repository decides what is loaded; remove the version there"
        )

    return router


def _ready_of(catalog: ServingCatalog, model: str) -> list[VersionStatus]:
    found = [
        status for status in catalog.snapshot.versions if status.model == model and status.state == VersionState.READY
    ]
    return sorted(found, key=lambda status: status.version)


async def _only_ready(request: Request) -> bool:
    """Of the body, which may be empty. Raises BadRequest."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_INDEX_BYTES:
            raise BadRequest(f"the body of an index request has at most {_MAX_INDEX_BYTES} bytes")
    if not body.strip():
        return False
    try:
        return msgspec.json.decode(body, type=_IndexRequest).ready
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"failed to parse the request JSON: {error}") from error
