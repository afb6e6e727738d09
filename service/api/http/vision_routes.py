"""POST …/predict. Promises: one answer or one problem per request, counted once, whatever happens on the way.

A plain ASGI endpoint: FastAPI's per-request machinery costs as much as decoding a small image. Its schema is
written down in schemas.py and merged into the OpenAPI document.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec
import orjson
import structlog
from starlette.types import Receive, Scope, Send

from saccade.models.contract.extras import ExtraKind
from saccade.service.api.asking import able, gives
from saccade.service.api.canary import is_drawn
from saccade.service.api.catalog import ServingCatalog, ServingTarget
from saccade.service.api.cold_starts import ColdStarts
from saccade.service.api.event_loop_lag import EventLoopLag
from saccade.service.api.http.answer_writing import document_of, refusal_headers, send_answer, server_timing, timings_of
from saccade.service.api.http.client_watch import DisconnectWatch
from saccade.service.api.http.content_encoding import decoded_body, encoding_of
from saccade.service.api.http.error_responses import PROBLEM_TYPE, problem_of, shed_reason, status_of
from saccade.service.api.http.image_bodies import FORM_TYPE, RAW_TYPE, images_from, media_type_of
from saccade.service.api.http.key_limits import KeyLimits
from saccade.service.api.http.limits import Body, BodyLimits, UploadBudget
from saccade.service.api.http.picture_bodies import accepted_picture, as_accepted, picture_headers, picture_type
from saccade.service.api.http.predict_shortcut import PathNames
from saccade.service.api.http.request_head import Headers, query_parameters, request_id_of
from saccade.service.api.predictor import ImageAnswer, Predictor, Render
from saccade.service.api.priority import Priority, priority_from
from saccade.service.api.refusal_log import RefusalLog
from saccade.service.api.shadows import Asked
from saccade.service.api.slot_filling import Image
from saccade.service.api.tiled_predictor import TiledPredictor
from saccade.service.api.tracing.request_trace import TRACE_SCOPE
from saccade.service.core import Outcome
from saccade.service.errors import ClientLeft, Draining, NotLoaded, Overloaded, SaccadeError, WorkerLost, without_frames
from saccade.service.ipc.api_keys import ApiKeys
from saccade.service.ipc.api_keys import Scope as KeyScope
from saccade.service.logs import is_debug
from saccade.service.metrics import Metrics
from saccade.service.vision.answers import json_of, picture_of
from saccade.service.vision.parameters import (
    DeadlineRule,
    GivenParameters,
    Parameters,
    complete,
    merged,
)
from saccade.service.vision.produced import Produced

log = structlog.get_logger()

_JSON = b"application/json"
_REFUSING_S = 0.1  # after a refusal for want of room, the next ones are expected for so long
_TRUST_SALT = b"trust"
_KEPT_PARAMETERS = 64  # most clients ask for the same thing each time


@dataclass(frozen=True, slots=True)
class PredictLimits:
    body: BodyLimits
    deadline: DeadlineRule
    max_images: int
    max_concurrent_per_key: int = 0
    trust_sample: float = 0.0  # share of requests whose pictures are counted as familiar or not


class PredictCall(msgspec.Struct, frozen=True):
    """What one request asks for, whatever protocol it speaks."""

    images: Sequence[Image | SaccadeError]
    parameters: Parameters
    priority: Priority
    render: Render = json_of
    is_whole: bool = True  # images are pictures, to be cut into tiles where the network takes tiles


class Rendered(msgspec.Struct, frozen=True):
    """An answer without its status, which is 200."""

    content_type: bytes
    body: bytes
    server_timing: str
    headers: list[tuple[bytes, bytes]]


class AdmissionSwitch:
    """Open while the process takes requests."""

    def __init__(self) -> None:
        self.is_open = True

    def shut(self) -> None:
        self.is_open = False

    def ensure_open(self) -> None:
        """Raises Draining."""
        if not self.is_open:
            raise Draining("this server is shutting down; send the request to another replica")


class PredictEndpoint:
    """Serves predict by model, by version and by label.

    `_query`, `_media_type`, `_read`, `_call`, `_rendered` and `_refuse` are what another protocol does in its own way.
    """

    def __init__(
        self,
        catalog: ServingCatalog,
        predictor: Predictor,
        tiled: TiledPredictor,
        limits: PredictLimits,
        keys: ApiKeys,
        metrics: Metrics,
        switch: AdmissionSwitch,
        cold_starts: ColdStarts,
        lag: EventLoopLag,
        budget: UploadBudget,
        key_limits: KeyLimits,
        refusals: RefusalLog,
    ) -> None:
        self._catalog = catalog
        self._cold_starts = cold_starts
        self._lag = lag
        self._predictor = predictor
        self._tiled = tiled
        self._limits = limits
        self._keys = keys
        self._metrics = metrics
        self._switch = switch
        self._budget = budget
        self._key_limits = key_limits
        self._refusals = refusals
        self._refused_s = -_REFUSING_S  # when a request was refused for want of room

    @property
    def refuses_now(self) -> bool:
        """Whether a request was refused for want of room a moment ago."""
        return time.monotonic() < self._refused_s + _REFUSING_S

    def early_refusal(self, names: PathNames, query_string: bytes, headers: Headers) -> tuple[Overloaded, str] | None:
        """The refusal of a request without room, counted, and its id; None for all that `__call__` must answer."""
        if self._catalog.snapshot.draining:
            return None
        lag_s, request_id = self._lag.lag_s(), request_id_of(headers)
        try:
            self._keys.ensure(headers.get(b"authorization"), KeyScope.PREDICT)
            self._switch.ensure_open()
            priority = priority_from(headers.get(b"x-priority"))
            query = query_parameters(query_string)
            media_type = media_type_of(headers.get(b"content-type"))
            routing_key = headers.get(b"x-routing-key") or request_id.encode()
            model, version, label = names["model"], names["version"], names["label"]
            target = self._catalog.resolve(*self._catalog.routed(model, version, label, routing_key))
            target = able(self._turns(names, target), query)
            allowed_s = self._allowed_s(query, media_type, lag_s)
            self._predictor.ensure_room(target, query.variant, priority, allowed_s, query.deadline_ms is not None)
        except Overloaded as error:
            target.usage.last_used_s = time.monotonic()
            self._count_error({}, target, error)
            self._log(error, request_id, target)
            return error, request_id
        except SaccadeError:
            pass  # `__call__` finds and answers it
        return None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start_s, lag_s = time.perf_counter(), self._lag.lag_s()
        headers = dict(scope["headers"])
        request_id = request_id_of(headers)
        target: ServingTarget | None = None
        held_key: bytes | None = None
        body = Body(self._budget, self._limits.body)
        watch = DisconnectWatch(receive)
        try:
            key = self._keys.ensure(headers.get(b"authorization"), KeyScope.PREDICT)
            self._switch.ensure_open()
            digest = None if key is None else key.digest
            self._key_limits.begin(digest)
            held_key = digest
            priority = priority_from(headers.get(b"x-priority"))
            query = self._query(scope)
            routing_key = headers.get(b"x-routing-key") or request_id.encode()
            resolved, waited_s = await self._resolve(scope, query, routing_key)
            media_type = self._media_type(headers)
            self._catalog.begin(resolved, query.variant)
            target = resolved
            allowed_s = self._allowed_s(query, media_type, lag_s)
            urgency = (priority, allowed_s, query.deadline_ms is not None)
            ensure_room = partial(self._predictor.ensure_room, target, query.variant, *urgency)
            can_wait = media_type == RAW_TYPE and body.is_free_to_read(headers)  # admission asks again in any case
            if not can_wait:
                ensure_room()
            before_waiting = ensure_room if can_wait else None
            content = await body.read(receive, headers.get(b"content-length"), before_waiting)
            if b"content-encoding" in headers:
                content = await decoded_body(content, encoding_of(scope["headers"]), body.take)
            turns = self._turns(scope["path_params"], target)
            read, given = await self._read(content, media_type, headers, query, turns)
            if (other := able(turns, given)) is not target:  # it is asked for in the body
                self._catalog.begin(other, None)
                self._catalog.end(target)
                target = other
            call = self._call(read, self._complete(given, target, request_id), headers, target, priority)
            deadline_s = time.monotonic() + call.parameters.deadline_ms / 1000 - waited_s - lag_s
            cuts_tiles = call.is_whole and target.manifest.preprocess.fit == "tile"
            answers = await (self._tiled if cuts_tiles else self._predictor).predict(
                call.images,
                target,
                call.parameters,
                deadline_s,
                watch,
                call.priority,
                call.render,
                self._shadow(target, request_id),
            )
            _raise_if_nobody_waits(answers)
            encode_s = time.perf_counter()
            answer = self._rendered(call, target, request_id, answers, encode_s - start_s)
            encoded_s = time.perf_counter()
            self._count_answers(target, answers, encoded_s - start_s, encoded_s - encode_s)
            if (trace := scope.get(TRACE_SCOPE)) is not None:
                trace.answered(target.key, answers, encode_s, encoded_s)
            if is_debug():
                named = {"model": target.key.model, "version": str(target.key.version), "request_id": request_id}
                log.debug("request_answered", **named, timing=answer.server_timing)
            for each in answers:
                if each.error is not None:
                    self._log(each.error, request_id, target)
            await send_answer(
                send, 200, answer.content_type, answer.body, request_id, answer.server_timing, answer.headers
            )
        except SaccadeError as error:
            self._count_error(scope, target, without_frames(error))
            if not isinstance(error, ClientLeft):
                self._log(error, request_id, target)
                must_close = not body.can_be_dropped(headers)
                await self._refuse(send, error, request_id, must_close)
        except Exception as error:  # the last stop: logged with its trace, answered without it
            log.exception("request_failed", request_id=request_id, path=scope["path"])
            failure = SaccadeError(type(error).__name__)
            self._count_error(scope, target, failure)
            await self._refuse(send, failure, request_id, must_close=False)
        finally:
            watch.close()
            body.release()
            self._key_limits.end(held_key)
            if target is not None:
                self._catalog.end(target)

    def _log(self, error: SaccadeError, request_id: str, target: ServingTarget | None) -> None:
        named = ("", "") if target is None else (target.key.model, str(target.key.version))
        self._refusals.error(error, request_id, *named)

    def _shadow(self, target: ServingTarget, request_id: str) -> Asked | None:
        candidate = self._catalog.shadow_of(target, request_id)
        return None if candidate is None else Asked(request_id, target, candidate)

    def _query(self, scope: Scope) -> GivenParameters:
        return query_parameters(scope["query_string"])

    def _media_type(self, headers: Headers) -> str:
        """Raises UnsupportedMedia."""
        return media_type_of(headers.get(b"content-type"))

    async def _read(
        self,
        content: bytes,
        media_type: str,
        headers: Headers,
        query: GivenParameters,
        turns: Sequence[ServingTarget],
    ) -> tuple[Any, GivenParameters]:
        """The body, for `_call`, and all parameters; `turns` may answer. Raises BadRequest or one of its kind."""
        given = await images_from(content, media_type, headers.get(b"content-type"), self._limits.max_images)
        return given.images, merged(query, given.parameters)

    def _call(
        self, read: Any, parameters: Parameters, headers: Headers, target: ServingTarget, priority: Priority
    ) -> PredictCall:
        """What the version that answers is asked. Raises BadRequest or one of its kind."""
        accepted = accepted_picture(headers.get(b"accept", b""), target.manifest.task.task)
        if accepted is None:
            return PredictCall(read, parameters, priority)
        return PredictCall(read, as_accepted(accepted, parameters, len(read)), priority, picture_of)

    def _rendered(
        self, call: PredictCall, target: ServingTarget, request_id: str, answers: list[ImageAnswer], total_s: float
    ) -> Rendered:
        level = answers[0].ladder_level
        rung = [] if level is None else [(b"x-saccade-rung", b"%d" % level)]
        if isinstance(picture := answers[0].prediction, Produced):
            timing = server_timing(timings_of(answers, total_s))
            return Rendered(
                picture_type(picture), picture.data, timing, rung + picture_headers(picture, answers[0], target)
            )
        document, timing = document_of(target, request_id, answers, total_s)
        return Rendered(_JSON, document, timing, rung)

    async def _refuse(self, send: Send, error: SaccadeError, request_id: str, must_close: bool) -> None:
        await _send_problem(send, error, request_id, must_close)

    def _complete(self, given: GivenParameters, target: ServingTarget, request_id: str) -> Parameters:
        known = target.parameters
        if given not in known:
            if len(known) >= _KEPT_PARAMETERS:
                known.clear()
            known[given] = complete(given, target.manifest, self._limits.deadline)
        is_counted = gives(target) & ExtraKind.TRUST.bit and is_drawn(
            request_id.encode(), self._limits.trust_sample, _TRUST_SALT
        )
        return replace(known[given], counts_trust=True) if is_counted else known[given]

    def _turns(self, path: Mapping[str, object], target: ServingTarget) -> tuple[ServingTarget, ...]:
        """The version that was drawn, and the one that may answer instead where the request names none."""
        is_named = path.get("version") is not None or path.get("label") is not None
        return (target,) if is_named else self._catalog.turns_of(target)

    async def _resolve(self, scope: Scope, query: GivenParameters, routing_key: bytes) -> tuple[ServingTarget, float]:
        """The version that answers, and the seconds it took to load it."""
        path = scope["path_params"]
        names = self._catalog.routed(path["model"], path.get("version"), path.get("label"), routing_key)
        try:
            target = self._catalog.resolve(*names)
            return able(self._turns(path, target), query), 0.0
        except NotLoaded as unloaded:
            start_s = time.monotonic()
            rule = self._limits.deadline
            named_ms = query.deadline_ms
            within_ms = rule.default_ms if named_ms is None else named_ms
            target = await self._cold_starts.wait(unloaded, *names, min(within_ms, rule.max_ms) / 1000)
            return target, time.monotonic() - start_s

    def _allowed_s(self, query: GivenParameters, media_type: str, lag_s: float) -> float | None:
        """Seconds until the deadline, as far as the headers tell; other bodies than raw ones may name one."""
        rule = self._limits.deadline
        if query.deadline_ms is not None:
            return query.deadline_ms / 1000 - lag_s if 0 <= query.deadline_ms <= rule.max_ms else None
        return rule.default_ms / 1000 - lag_s if media_type in (RAW_TYPE, FORM_TYPE) else None

    def _count_answers(
        self, target: ServingTarget, answers: list[ImageAnswer], total_s: float, encode_s: float
    ) -> None:
        counted = target.metrics
        counted.outcomes[Outcome.OK].inc()
        counted.duration.observe(total_s)
        target.tally.answered(total_s)
        counted.count_answer(answers[0].variant)
        for answer in answers:
            if answer.error is None:
                counted.stages["decode"].observe(answer.times.decode_s)
                counted.stages["queue"].observe(answer.times.queue_s)
                counted.stages["infer"].observe(answer.times.infer_s)
                counted.stages["postprocess"].observe(answer.times.postprocess_s)
        counted.stages["encode"].observe(encode_s)

    def _count_error(self, scope: Scope, target: ServingTarget | None, error: SaccadeError) -> None:
        outcome = status_of(error)[2]
        named = target.key.model if target else scope["path_params"]["model"]
        # Only known models become labels: clients must not be able to invent them.
        model = named if target or self._catalog.knows(named) else "unknown"
        if (trace := scope.get(TRACE_SCOPE)) is not None:
            trace.failed(None if target is None else target.key, error)
        if target is not None:
            target.metrics.outcomes[outcome].inc()
            if outcome in (Outcome.ERROR, Outcome.DEADLINE) or isinstance(error, WorkerLost):
                target.tally.failed()
        else:
            self._metrics.requests_total.labels(model, "", outcome.value).inc()
        if isinstance(error, Overloaded) and error.what in ("wait", "slots"):
            self._refused_s = time.monotonic()
        reason = shed_reason(error)
        if reason is not None:
            self._metrics.shed_total.labels(model, reason).inc()


def _raise_if_nobody_waits(answers: list[ImageAnswer]) -> None:
    """A single image's error is the request's; among several it takes its place, unless the client left."""
    for answer in answers:
        if answer.error is not None and (len(answers) == 1 or isinstance(answer.error, ClientLeft)):
            raise answer.error


async def _send_problem(send: Send, error: SaccadeError, request_id: str, must_close: bool = False) -> None:
    document = problem_of(error, request_id)
    headers = refusal_headers(error, must_close)
    await send_answer(send, document["status"], PROBLEM_TYPE, orjson.dumps(document), request_id, None, headers)
