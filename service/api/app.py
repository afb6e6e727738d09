"""Composition root of an API process: builds every part from the settings, without globals or environment reads."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from saccade.service import __version__
from saccade.service.api.admission import Admission
from saccade.service.api.admission_rules import WaitBounds
from saccade.service.api.catalog import ServingCatalog
from saccade.service.api.cold_starts import ColdStarts
from saccade.service.api.decoding_apart import DecodingApart
from saccade.service.api.devices import Device, Devices
from saccade.service.api.disagreements import Disagreements
from saccade.service.api.event_loop_lag import EventLoopLag
from saccade.service.api.fallback import Fallback, FallbackRule
from saccade.service.api.http.admin import AdminEntrance, add_refusals, admin_app
from saccade.service.api.http.answer_writing import refusal_headers
from saccade.service.api.http.conventions import HttpConventions, allowed_methods
from saccade.service.api.http.early_refusals import EarlyRefusals
from saccade.service.api.http.error_responses import problem, problem_of, problem_response
from saccade.service.api.http.health import health_router, not_ready_reason
from saccade.service.api.http.key_gate import KeyGate, scope_needed
from saccade.service.api.http.key_limits import KeyLimits
from saccade.service.api.http.limits import BodyLimits, UploadBudget
from saccade.service.api.http.model_routes import model_router
from saccade.service.api.http.oip.infer import InferEndpoint, refusal_of
from saccade.service.api.http.oip.routes import OipParts, oip_router
from saccade.service.api.http.openapi.document import openapi_document
from saccade.service.api.http.playground import playground_router
from saccade.service.api.http.predict_shortcut import PredictShortcut
from saccade.service.api.http.request_head import request_id_of
from saccade.service.api.http.shadow_routes import shadow_router
from saccade.service.api.http.traced_endpoint import TracedEndpoint
from saccade.service.api.http.version_files import version_files_router
from saccade.service.api.http.vision_routes import AdmissionSwitch, PredictEndpoint, PredictLimits
from saccade.service.api.image_threads import ImageThreads
from saccade.service.api.instance_estimates import InstanceEstimates
from saccade.service.api.predictor import Predictor
from saccade.service.api.refusal_log import RefusalLog
from saccade.service.api.shadows import Shadows
from saccade.service.api.slot_filling import SlotFilling
from saccade.service.api.slots import Slots, SlotsInUse, a_moment_later
from saccade.service.api.tiled_predictor import TiledPredictor, TileLimits
from saccade.service.api.tracing.setup import recorder_from
from saccade.service.api.worker_client import WorkerClient
from saccade.service.core import VersionKey
from saccade.service.errors import SaccadeError
from saccade.service.ipc.api_keys import ApiKeys, Scope
from saccade.service.metrics import Metrics
from saccade.service.settings import Settings
from saccade.service.vision.image_decoder import ImageLimits
from saccade.service.vision.parameters import DeadlineRule

if TYPE_CHECKING:
    from saccade.service.api.tracing.recorder import TraceRecorder

_EXPOSED_HEADERS = ("X-Request-Id", "Server-Timing", "Retry-After", "X-Saccade-Rung", "Inference-Header-Content-Length")
PREDICT_PATHS = (
    "/v1/models/{model}/predict",
    "/v1/models/{model}/versions/{version}/predict",
    "/v1/models/{model}/labels/{label}/predict",
)
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_INFER_PATHS = ("/v2/models/{model}/infer", "/v2/models/{model}/versions/{version}/infer")


@dataclass(frozen=True, slots=True)
class Api:
    """The parts that an API process needs in order to run and to stop."""

    app: FastAPI
    asgi: ASGIApp  # what uvicorn runs
    catalog: ServingCatalog
    devices: Devices
    switch: AdmissionSwitch
    pools: Sequence[ThreadPoolExecutor]
    apart: DecodingApart
    keys: ApiKeys
    refusals: RefusalLog
    admin: ASGIApp | None  # what SACCADE_ADMIN_PORT shows
    traces: TraceRecorder | None
    metrics: Metrics
    early: EarlyRefusals | None  # none where answers have more headers than the endpoint's own


def build_api(
    settings: Settings,
    acknowledge: Callable[[int], None],
    desire: Callable[[VersionKey], None] = lambda key: None,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Api:
    """Builds the HTTP application and its parts.

    `acknowledge` is called with the generation of each catalog once it is in force, `desire` with versions that
    requests wait for; `environment` says by OpenTelemetry's variables whether requests are traced.
    """
    metrics = Metrics(CollectorRegistry(), __version__)
    catalog = ServingCatalog(metrics, acknowledge, desire)
    cold_starts = ColdStarts(catalog, settings.slots)
    devices = _devices(settings, metrics)
    admission = Admission(devices, _bounds(settings))
    pools = [ThreadPoolExecutor(settings.decode_threads, name) for name in ("pixels", "slow-pixels")]
    lag = EventLoopLag()
    threads = ImageThreads(pools[0], settings.decode_threads, lag=lag, slow_pool=pools[1])
    rule = FallbackRule(settings.has_ladder, settings.objective_ms / 1000 or None)
    fallback = Fallback(
        rule, admission.expected_wait_s, lambda model, level: metrics.brownout_rung.labels(model).set(level)
    )
    limits = ImageLimits(settings.max_pixels, settings.more_formats)
    apart = DecodingApart(settings.decode_threads)
    filling = SlotFilling(threads, apart, limits, settings.inline_decode_pixels or 0)
    disagreements = Disagreements(settings.repository, settings.shadow_pictures)
    shadows = Shadows(catalog, admission, filling, threads, metrics, disagreements)
    shares = settings.jpeg_decoder == "auto"
    predictor = Predictor(admission, fallback, filling, threads, lag, shadows, settings.quality, shares_decoding=shares)
    tiled = TiledPredictor(predictor, threads, apart, TileLimits(limits, settings.max_tiles, settings.decode_threads))
    keys = ApiKeys.from_file(settings.api_keys_file)
    switch = AdmissionSwitch()
    predict_limits = _limits(settings)
    refusals = RefusalLog()
    held = (UploadBudget(predict_limits.body), KeyLimits(predict_limits.max_concurrent_per_key), refusals)
    parts = (catalog, predictor, tiled, predict_limits, keys, metrics, switch, cold_starts, lag, *held)
    answering = PredictEndpoint(*parts)
    predict: ASGIApp = answering
    infer: ASGIApp = InferEndpoint(*parts)
    traces = recorder_from(environment, metrics.count_traces)
    if traces is not None:
        predict, infer = TracedEndpoint(predict, traces, "predict"), TracedEndpoint(infer, traces, "infer")
    app = FastAPI(
        title="saccade",
        version=__version__,
        docs_url=None,  # playground/docs.html
        redoc_url=None,
        openapi_url=None,  # _add_openapi_route
        generate_unique_id_function=lambda route: route.name,
    )
    for endpoint, paths in ((predict, PREDICT_PATHS), (infer, _INFER_PATHS)):
        for path in paths:
            app.router.routes.append(Route(path, endpoint, methods=["POST"], include_in_schema=False))
    app.include_router(model_router(catalog))
    app.include_router(version_files_router(catalog, settings.repository))
    app.include_router(shadow_router(catalog, settings.repository, has_keys=settings.api_keys_file is not None))

    def reason_now() -> str | None:
        return not_ready_reason(catalog.snapshot, devices.is_connected, settings.pins)

    app.include_router(health_router(reason_now))
    _add_metrics_route(app, metrics, catalog)
    app.include_router(
        oip_router(
            OipParts(
                catalog,
                cold_starts,
                settings.default_deadline_ms / 1000,
                reason_now,
                metrics.collected,
                settings.max_images_per_request,
            )
        )
    )
    app.include_router(playground_router())
    refuse = partial(_refused, refusals)
    _add_error_handlers(app, refuse, refusals)
    _add_openapi_route(app, settings)
    gate = KeyGate(app, keys, partial(scope_needed, open_without_key=settings.open_paths), refuse)
    entrance = _entrance(settings, PredictShortcut(predict, infer, gate), app, catalog, switch)
    admin = _admin(settings, catalog, keys, refuse, refusals) if settings.admin_port else None
    early = None if settings.cors or traces is not None else EarlyRefusals(answering, predict_limits.body)
    return Api(app, entrance, catalog, devices, switch, pools, apart, keys, refusals, admin, traces, metrics, early)


def _admin(
    settings: Settings,
    catalog: ServingCatalog,
    keys: ApiKeys,
    refuse: Callable[[Request, Exception], Awaitable[Response]],
    refusals: RefusalLog,
) -> ASGIApp:
    app = admin_app(settings, catalog)
    _add_error_handlers(app, refuse, refusals)
    add_refusals(app, refusals.error)
    return KeyGate(AdminEntrance(app, refuse), keys, lambda method, path: Scope.ADMIN, refuse)


def _entrance(
    settings: Settings, inner: ASGIApp, app: FastAPI, catalog: ServingCatalog, switch: AdmissionSwitch
) -> ASGIApp:
    def is_draining() -> bool:
        return catalog.snapshot.draining or not switch.is_open

    entrance = HttpConventions(inner, app, settings.root_path, is_draining)
    if not settings.cors:
        return entrance
    return CORSMiddleware(
        entrance,
        allow_origins=settings.cors,
        allow_methods=["GET", "HEAD", "POST", "OPTIONS"],
        allow_headers=["*"],
        expose_headers=_EXPOSED_HEADERS,
    )


def _devices(settings: Settings, metrics: Metrics) -> Devices:
    in_use = SlotsInUse(metrics.slots_in_use.set, a_moment_later)
    devices = {}
    for name in settings.devices:
        slots, estimates = Slots(partial(in_use.set, name)), InstanceEstimates(max(1, settings.api_processes))
        client = WorkerClient(slots, estimates, settings.slots, settings.max_slot_bytes)
        devices[name] = Device(slots, estimates, client)
    return Devices(devices)


def _bounds(settings: Settings) -> WaitBounds:
    if settings.max_estimated_wait_ms is None:
        return WaitBounds(has_objective=True, objective_s=settings.objective_ms / 1000)
    return WaitBounds(settings.max_estimated_wait_ms / 1000)


def _limits(settings: Settings) -> PredictLimits:
    return PredictLimits(
        BodyLimits(settings.max_body_bytes, settings.max_buffered_bytes, settings.body_timeout_ms / 1000),
        DeadlineRule(settings.default_deadline_ms, settings.max_deadline_ms),
        settings.max_images_per_request,
        settings.max_concurrent_per_key,
        settings.trust_sample,
    )


def _add_metrics_route(app: FastAPI, metrics: Metrics, catalog: ServingCatalog) -> None:
    # This route is not async because it reads the files of other processes; FastAPI runs it in a thread.
    @app.get("/metrics", tags=["metrics"], response_class=Response, responses={200: {"content": _TEXT}})
    def prometheus_metrics() -> Response:
        return Response(metrics.exposition(lambda: catalog.snapshot), media_type=CONTENT_TYPE_LATEST)


async def _refused(refusals: RefusalLog, request: Request, error: Exception) -> Response:
    assert isinstance(error, SaccadeError)
    request_id = request_id_of(dict(request.scope["headers"]))
    refusals.error(error, request_id)
    if _speaks_oip(request):
        status, document = refusal_of(error, request_id)
        response: Response = JSONResponse(document, status)
    else:
        response = problem_response(problem_of(error, request_id))
    for name, value in refusal_headers(error, must_close=False):
        response.headers[name.decode()] = value.decode()
    return response


def _add_error_handlers(
    app: FastAPI, refuse: Callable[[Request, Exception], Awaitable[Response]], refusals: RefusalLog
) -> None:
    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        request_id = request_id_of(dict(request.scope["headers"]))
        refusals.note(
            f"HTTP {error.status_code}", error.status_code, f"{request.method} {request.url.path}", request_id
        )
        title = {404: "Not found", 405: "Method not allowed"}.get(error.status_code, "Refused")
        detail = f"{request.method} {request.url.path}: {error.detail}; the paths are listed at /docs"
        if _speaks_oip(request):
            response: Response = JSONResponse({"error": detail}, error.status_code)
        else:
            response = problem_response(problem(error.status_code, title, detail, request_id))
        response.headers.update(error.headers or {})
        if "allow" in response.headers:
            response.headers["allow"] = allowed_methods(set(response.headers["allow"].split(", ")))
        return response

    async def unforeseen(request: Request, error: Exception) -> Response:
        # Starlette logs the trace itself; the client gets only the id.
        return await refuse(request, SaccadeError(type(error).__name__))

    app.add_exception_handler(SaccadeError, refuse)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unforeseen)


def _speaks_oip(request: Request) -> bool:
    """Clients of the Open Inference Protocol read {"error": text}."""
    path: str = request.scope["path"][len(request.scope["root_path"]) :]
    return path.startswith("/v2")


def _add_openapi_route(app: FastAPI, settings: Settings) -> None:
    """Written once: FastAPI would write it for each request, 2 ms in the event loop."""
    root_path = settings.root_path.rstrip("/")

    @cache
    def document() -> dict[str, Any]:
        has_keys, is_open = settings.api_keys_file is not None, settings.open_paths
        return openapi_document(app, PREDICT_PATHS, _INFER_PATHS, has_keys=has_keys, open_without_key=is_open)

    @cache
    def written() -> bytes:
        servers = {"servers": [{"url": root_path}]} if root_path else {}
        return orjson.dumps({**document(), **servers})

    async def openapi(request: Request) -> Response:
        return Response(written(), media_type="application/json")

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    app.router.routes.append(Route("/openapi.json", openapi, include_in_schema=False))
