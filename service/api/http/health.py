"""Health endpoints. Promises: live = this loop turns; ready = a probed worker serves every settled model."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Response

from saccade.service.api.http.schemas import Health
from saccade.service.core import VersionState
from saccade.service.ipc.messages import Catalog

EMPTY_REPOSITORY = "the model repository holds no version"
_NO_PINS: Mapping[str, int] = {}
_GIVEN_UP: Mapping[str, str] = {VersionState.FAILED: "failed", VersionState.QUARANTINED: "is quarantined"}
_ON_THE_WAY = (VersionState.BUILDING, VersionState.LOADING, VersionState.WARMING)


def not_ready_reason(catalog: Catalog, is_worker_connected: bool, pins: Mapping[str, int] = _NO_PINS) -> str | None:
    """Why this process must get no traffic; None when it may.

    Ready means a worker answers probes, every model is settled (a version ready or loaded on demand, or all of them
    failed or quarantined), no pinned version has failed, and at least one model answers. A model that appears later
    need not be ready for that.
    """
    if catalog.draining:
        return "draining: shutting down"
    if not catalog.devices:
        return "starting: no device worker yet"
    if not any(device.up for device in catalog.devices):  # one that answers serves what it has
        return f"device worker not answering: {', '.join(device.device for device in catalog.devices)}"
    if not is_worker_connected:
        return "no connection to the device worker"
    blocked = [status for status in catalog.models if status.problem and not status.generation]
    for status in blocked:  # nothing of it is loaded, because a server that starts knows no document before
        if status.model not in {version.model for version in catalog.versions}:
            return f"desired state of {status.model!r} is refused: {status.problem}"
    if not catalog.versions:
        return EMPTY_REPOSITORY
    return _failed_pin(catalog, pins) or _unsettled_reason(catalog)


def _failed_pin(catalog: Catalog, pins: Mapping[str, int]) -> str | None:
    """A new pod whose pinned version fails must not replace an old one, even where its other models are ready."""
    for status in catalog.versions:
        given_up = _GIVEN_UP.get(status.state)
        if given_up and pins.get(status.model) == status.version:
            return f"pinned version {status.version} of {status.model!r} {given_up}: {status.reason}"
    return None


def _unsettled_reason(catalog: Catalog) -> str | None:
    states_by_model: dict[str, set[str]] = {}
    for status in catalog.versions:
        # What requests load is as good as ready, before its first one and while others have its place.
        is_settled = status.on_demand and status.state not in _GIVEN_UP
        states_by_model.setdefault(status.model, set()).add(VersionState.READY if is_settled else status.state)
    waiting = [
        model
        for model, states in states_by_model.items()
        if VersionState.READY not in states and not states.isdisjoint(_ON_THE_WAY) and model not in catalog.newcomers
    ]
    if waiting:
        return f"loading: {', '.join(sorted(waiting))}"
    if not any(VersionState.READY in states for states in states_by_model.values()):
        return "no model could be loaded; /v1/models has the reasons"
    return None


def health_router(reason_now: Callable[[], str | None]) -> APIRouter:
    """`/health/live`, `/health/ready`, `/health/startup`; `reason_now` returns why no traffic may come, or None."""
    router = APIRouter(tags=["health"])
    was_ready = False

    def answer(reason: str | None, response: Response) -> Health:
        response.status_code = 200 if reason is None else 503
        return Health(status="ok" if reason is None else "unavailable", reason=reason or "")

    def current_reason() -> str | None:
        nonlocal was_ready
        reason = reason_now()
        was_ready = was_ready or reason is None
        return reason

    @router.get("/health/live", responses={503: {"model": Health}})
    async def live(response: Response) -> Health:
        return answer(None, response)

    @router.get("/health/ready", responses={503: {"model": Health}})
    async def ready(response: Response) -> Health:
        return answer(current_reason(), response)

    @router.get("/health/startup", responses={503: {"model": Health}})
    async def startup(response: Response) -> Health:
        # An empty repository is a wait for the first version, not a start that failed: a restart would not help.
        reason = current_reason()
        return answer(None if was_ready or reason == EMPTY_REPOSITORY else reason, response)

    return router
