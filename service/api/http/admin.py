"""Routes of `/admin/v1`: which version each label of a model names, read and changed over HTTP, on a port of their own.

The same changes as `saccade rollout` makes, by the same code. Every request needs a key of scope `admin`, whose name is
who changed it in the history.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.types import ASGIApp, Receive, Scope, Send

from saccade.service import __version__
from saccade.service.api.catalog import ServingCatalog
from saccade.service.api.http.error_responses import problem, problem_response
from saccade.service.api.http.key_gate import KEY
from saccade.service.api.http.model_routes import serving_info
from saccade.service.api.http.request_head import request_id_of
from saccade.service.api.http.schemas import ServingInfo
from saccade.service.core import GIVEN_UP, LONGEST_OBJECTIVE_MS, SHORTEST_OBJECTIVE_MS, STABLE, VersionState
from saccade.service.errors import BadParameter, BadRequest, PayloadTooLarge, RepositoryError, SaccadeError
from saccade.service.ipc.api_keys import ApiKey
from saccade.service.repository.serving_changes import (
    Asked,
    Change,
    changed,
    following,
    labelled,
    present_of,
    promoted,
    rolled_back,
    started,
    with_canary,
    with_objective,
    with_shadow,
)
from saccade.service.repository.serving_document import Label, Limits, Number, ServingDocument, Step
from saccade.service.repository.serving_history import ServingConflict, serving_history
from saccade.service.settings import Settings

_MOST_BYTES = 64 * 1024
_POLL_S = 0.02
Refuse = Callable[[Request, SaccadeError], Awaitable[Response]]


class ChangeBody(BaseModel):
    """What every change may say."""

    model_config = ConfigDict(extra="forbid")

    expected_generation: int | None = Field(None, ge=0, description="change only this generation; null: the present")
    reason: str = Field("", max_length=1000, description="why, for the history")
    wait_s: float = Field(0.0, ge=0.0, le=60.0, description="answer once it is in force here, after so long at most")


class LabelBody(ChangeBody):
    label: Label
    version: Number | None = Field(description="null removes the label")


class CanaryBody(ChangeBody):
    version: Number | None = Field(description="null ends it")
    share: float = Field(0.05, gt=0.0, le=1.0, description="of the requests without version and label")


class ObjectiveBody(ChangeBody):
    objective_ms: float | None = Field(
        ge=SHORTEST_OBJECTIVE_MS, le=LONGEST_OBJECTIVE_MS, description="null: the server's objective"
    )


class PromoteBody(ChangeBody):
    version: Number | None = None
    label: Label | None = None
    follow: bool = Field(False, description="stable is the newest accepted version again")

    @model_validator(mode="after")
    def _say_one(self) -> PromoteBody:
        if sum((self.version is not None, self.label is not None, self.follow)) > 1:
            raise ValueError("name a version, a label, or `follow`: one of them; without any the canary is meant")
        return self


class RollbackBody(ChangeBody):
    version: Number | None = Field(
        None, description="null: what was stable before and is neither refused nor quarantined"
    )


class ShadowBody(ChangeBody):
    version: Number | None = Field(description="null ends it")
    sample: float = Field(0.1, gt=0.0, le=1.0, description="share of the images that stable answered")


class StartBody(ChangeBody):
    version: Number
    steps: list[Step] = Field(
        default=[Step(share=0.05), Step(share=0.25), Step(share=0.5)], min_length=1, max_length=20
    )
    limits: Limits = Limits()
    sample: float = Field(0.1, ge=0.0, le=1.0, description="of the images to compare; 0: none")


class ModelState(BaseModel):
    model: str
    versions: list[int]
    document: ServingDocument | None = Field(description="null: stable is the newest accepted version")
    served: ServingInfo = Field(description="what this process has in force")


class Changed(BaseModel):
    document: ServingDocument
    in_force: bool = Field(description="whether this process answers by it already: every version that it names")


def admin_app(settings: Settings, catalog: ServingCatalog) -> FastAPI:
    """Builds the application; whoever serves it asks for keys first, with `AdminEntrance`."""
    app = FastAPI(
        title="saccade admin",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url="/admin/v1/openapi.json",
        generate_unique_id_function=lambda route: route.name,
    )
    app.router.route_class = _UniqueKeys
    root, serving_dir = settings.repository, settings.serving_dir

    @app.get("/admin/v1/models/{model}")
    def show(model: str) -> ModelState:
        present = present_of(root, serving_dir, model)
        served = serving_info(catalog.serving(model))
        return ModelState(model=model, versions=present.versions, document=present.document, served=served)

    @app.get("/admin/v1/models/{model}/history")
    def history(model: str) -> list[ServingDocument]:
        present_of(root, serving_dir, model)  # refuses an unknown model
        return serving_history(root, model)

    async def make(request: Request, model: str, body: ChangeBody, change: Change) -> Changed:
        by = _name_of(request.scope[KEY])
        asked = Asked(root, model, by, body.reason, body.expected_generation, serving_dir)
        document = await asyncio.to_thread(changed, asked, change)
        return Changed(document=document, in_force=await _in_force(catalog, model, document, body.wait_s))

    @app.post("/admin/v1/models/{model}/label")
    async def label(request: Request, model: str, body: LabelBody) -> Changed:
        return await make(request, model, body, labelled(body.label, body.version))

    @app.post("/admin/v1/models/{model}/canary")
    async def canary(request: Request, model: str, body: CanaryBody) -> Changed:
        return await make(request, model, body, with_canary(body.version, body.share))

    @app.post("/admin/v1/models/{model}/objective")
    async def objective(request: Request, model: str, body: ObjectiveBody) -> Changed:
        return await make(request, model, body, with_objective(body.objective_ms))

    @app.post("/admin/v1/models/{model}/promote")
    async def promote(request: Request, model: str, body: PromoteBody) -> Changed:
        change = following() if body.follow else promoted(body.version, body.label)
        return await make(request, model, body, change)

    @app.post("/admin/v1/models/{model}/rollback")
    async def rollback(request: Request, model: str, body: RollbackBody) -> Changed:
        given_up = {
            str(status.version): status.reason or status.state
            for status in catalog.snapshot.versions
            if status.model == model and status.state in GIVEN_UP
        }
        return await make(request, model, body, rolled_back(body.version, given_up))

    @app.post("/admin/v1/models/{model}/shadow")
    async def shadow(request: Request, model: str, body: ShadowBody) -> Changed:
        return await make(request, model, body, with_shadow(body.version, body.sample))

    @app.post("/admin/v1/models/{model}/start")
    async def start(request: Request, model: str, body: StartBody) -> Changed:
        try:
            change = started(body.version, body.steps, body.limits, body.sample)
        except ValueError as error:
            raise BadRequest(str(error)) from error
        return await make(request, model, body, change)

    return app


class _UniqueKeys(APIRoute):
    """Refuses bodies that give a key twice, of which the parser would take the last."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def checked(request: Request) -> Response:
            with contextlib.suppress(ValueError, RecursionError):  # what is no JSON is refused where it is read
                json.loads(await request.body(), object_pairs_hook=_ensure_unique)
            return await handle(request)

        return checked


def _ensure_unique(pairs: list[tuple[str, Any]]) -> None:
    twice = next((name for name, count in Counter(name for name, _ in pairs).items() if count > 1), None)
    if twice is not None:
        raise BadParameter(f"{twice}: the body gives it twice")


def add_refusals(app: FastAPI, note: Callable[[SaccadeError, str], None]) -> None:
    """Has refused changes answered in words: 409 for another generation than the expected one, else 422."""

    async def refused(request: Request, error: Exception) -> Response:
        request_id = request_id_of(dict(request.scope["headers"]))
        assert isinstance(error, RepositoryError)
        note(error, request_id)
        is_conflict = isinstance(error, ServingConflict)
        status, title = (409, "Generation conflict") if is_conflict else (422, "Change refused")
        return problem_response(problem(status, title, str(error), request_id))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        request_id = request_id_of(dict(request.scope["headers"]))
        return problem_response(problem(422, "Bad parameter", f"{place}: {first['msg']}", request_id))

    app.add_exception_handler(RepositoryError, refused)
    app.add_exception_handler(RequestValidationError, invalid)


class AdminEntrance:
    """Refuses bodies that are too large or of unknown size before the application reads them."""

    def __init__(self, inner: ASGIApp, refuse: Refuse) -> None:
        self._inner = inner
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH"):
            length = dict(scope["headers"]).get(b"content-length", b"")
            error: SaccadeError | None = None
            if not length.isdigit():
                error = BadRequest("send the body with a Content-Length")
            elif int(length) > _MOST_BYTES:
                error = PayloadTooLarge(f"the body has {int(length):,} bytes, at most {_MOST_BYTES:,} are read")
            if error is not None:
                response = await self._refuse(Request(scope), error)
                response.headers["connection"] = "close"  # the body was not read
                await response(scope, receive, send)
                return
        await self._inner(scope, receive, send)


def _name_of(key: ApiKey | None) -> str:
    assert key is not None  # settings refuse an admin port without keys
    return key.name or f"key {key.digest.hex()[:8]}"


async def _in_force(catalog: ServingCatalog, model: str, document: ServingDocument, wait_s: float) -> bool:
    """Waits until every version that a document names answers here; False when one never will, or not in time."""
    try:
        async with asyncio.timeout(wait_s):
            while True:
                known = _answers_by(catalog, model, document)
                if known is not None:
                    return known
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        return False


def _answers_by(catalog: ServingCatalog, model: str, document: ServingDocument) -> bool | None:
    """Whether this process answers by a document; None while it may come to that."""
    serving = catalog.serving(model)
    if serving.generation != document.generation:  # what is said of another one may be old
        return False if f"generation {document.generation} " in serving.problem else None
    named = {each.version: each for each in catalog.snapshot.versions if each.model == model}
    states = [named[version] for version in document.named if version in named]
    if any(each.state in GIVEN_UP for each in states):
        return False
    can_answer = sum(each.state == VersionState.READY or each.on_demand for each in states)
    is_stable = serving.stable == document.labels.get(STABLE, 0)
    return True if is_stable and can_answer == len(document.named) else None
