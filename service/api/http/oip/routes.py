"""The protocol's paths beside infer. Promises: every refusal is {"error": text}; versions are numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec
from fastapi import APIRouter, Request, Response
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from saccade.service.api.asking import extras_of
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
from saccade.service.api.http.oip.schemas import (
    IndexEntry,
    Live,
    ModelConfiguration,
    ModelMetadata,
    ModelReady,
    Nothing,
    OipError,
    ServerMetadata,
    ServerReady,
    Statistics,
)
from saccade.service.api.http.openapi.parts import names_in, path_descriptions, reference
from saccade.service.core import VersionState
from saccade.service.errors import BadRequest, NotLoaded, Unavailable
from saccade.service.ipc.messages import VersionStatus

_MAX_INDEX_BYTES = 4096
Responses = dict[int | str, dict[str, Any]]  # as FastAPI takes them


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


_NOT_READY: Responses = {503: {"model": ServerReady}}
_MODEL_NOT_READY: Responses = {503: {"model": ModelReady}}
_UNAVAILABLE: Responses = {503: {"model": OipError}}
_MALFORMED: Responses = {400: {"model": OipError}}


def oip_router(parts: OipParts) -> APIRouter:
    """All of /v2 but infer."""
    router = APIRouter(prefix="/v2", tags=["open inference protocol"])

    @router.get("/health/live", name="v2_live", response_model=Live)
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", name="v2_ready", response_model=ServerReady, responses=_NOT_READY)
    async def ready(response: Response) -> dict[str, bool]:
        is_ready = parts.not_ready() is None
        response.status_code = 200 if is_ready else 503
        return {"live": True, "ready": is_ready}

    @router.get("", name="v2_server", response_model=ServerMetadata)
    async def server() -> dict[str, Any]:
        return server_document()

    _add_model_routes(router, parts)
    _add_repository_routes(router, parts)
    return router


def _add_model_routes(router: APIRouter, parts: OipParts) -> None:
    catalog = parts.catalog

    def target_of(request: Request) -> ServingTarget:
        return catalog.resolve(request.path_params["model"], request.path_params.get("version"), None)

    async def metadata(request: Request) -> dict[str, Any]:
        target = target_of(request)
        model = target.key.model
        versions = [str(status.version) for status in _ready_of(catalog, model)]
        return model_document(model, versions, target.instances[0].backend, target.manifest, extras_of(target))

    async def ready(request: Request, response: Response) -> dict[str, Any]:
        try:
            target_of(request)
            is_ready = True
        except Unavailable:
            is_ready = False
        response.status_code = 200 if is_ready else 503
        return {"name": request.path_params["model"], "ready": is_ready}

    async def config(request: Request) -> dict[str, Any]:
        target = target_of(request)
        max_batch = tensors_of((target,), parts.max_images).max_batch
        return config_document(target.key.model, target.instances[0].backend, target.manifest, max_batch)

    async def statistics(request: Request) -> dict[str, Any]:
        model, version = request.path_params.get("model"), request.path_params.get("version")
        if model is not None:
            target_of(request)
        chosen = [
            status
            for status in catalog.snapshot.versions
            if model in (None, status.model) and version in (None, str(status.version))
        ]
        figures = await run_in_threadpool(lambda: figures_of(parts.metrics()))
        return statistics_document(chosen, figures)

    def add(path: str, name: str, handler: Callable[..., Any], model: type[BaseModel], responses: Responses) -> None:
        extra = {"parameters": path_descriptions(names_in(path))}
        router.add_api_route(
            path, handler, name=f"v2_{name}", response_model=model, responses=responses, openapi_extra=extra
        )

    add("/models/stats", "statistics", statistics, Statistics, {})  # before the model that could have this name
    for kind, of_version in (("model", ""), ("version", "/versions/{version}")):
        path = "/models/{model}" + of_version
        add(path, f"{kind}_metadata", metadata, ModelMetadata, _UNAVAILABLE)
        add(path + "/ready", f"{kind}_ready", ready, ModelReady, _MODEL_NOT_READY)
        add(path + "/config", f"{kind}_config", config, ModelConfiguration, _UNAVAILABLE)
        add(path + "/stats", f"{kind}_statistics", statistics, Statistics, _UNAVAILABLE)


def _add_repository_routes(router: APIRouter, parts: OipParts) -> None:
    index_body = {"required": False, "content": {"application/json": {"schema": reference("IndexRequest")}}}

    @router.post(
        "/repository/index",
        name="v2_index",
        response_model=list[IndexEntry],
        responses=_MALFORMED,
        openapi_extra={"requestBody": index_body},
    )
    async def index(request: Request) -> list[dict[str, str]]:
        return index_document(parts.catalog.snapshot, await _only_ready(request))

    @router.post("/repository/models/{model}/load", name="v2_load", response_model=Nothing, responses=_UNAVAILABLE)
    async def load(model: str) -> dict[str, Any]:
        try:
            parts.catalog.resolve(model, None, None)
        except NotLoaded as unloaded:
            await parts.cold_starts.wait(unloaded, model, None, None, parts.load_within_s)
        return {}

    @router.post(
        "/repository/models/{model}/unload",
        name="v2_unload",
        response_model=Nothing,
        responses={**_MALFORMED, **_UNAVAILABLE},
        description="Always refused: the repository decides what is loaded.",
    )
    async def unload(model: str) -> dict[str, Any]:
        parts.catalog.resolve(model, None, None)
        raise BadRequest(
            "explicit model unload is not allowed: the repository decides what is loaded; remove the version there"
        )


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
