"""Refuses predict requests for want of room once their head is parsed. Promises: the answer and counts of the endpoint.

At twice the capacity of a tiny network, a server refuses as many requests as it answers, on the same cores. Here a
refusal needs no task, no ASGI scope and no copy of the body.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from saccade.service.api.http.answer_writing import answer_headers, refusal_headers
from saccade.service.api.http.error_responses import PROBLEM_TYPE, problem_of
from saccade.service.api.http.limits import BodyLimits, can_be_dropped
from saccade.service.api.http.predict_shortcut import predict_names_in
from saccade.service.api.http.vision_routes import PredictEndpoint

Header = tuple[bytes, bytes]


class EarlyRefusals:
    """What the parser asks; belongs to the event loop of the endpoint."""

    def __init__(self, endpoint: PredictEndpoint, limits: BodyLimits) -> None:
        self._endpoint = endpoint
        self._limits = limits

    @property
    def is_on(self) -> bool:
        """Whether refusals are frequent now; while they are not, only the endpoint looks for room."""
        return self._endpoint.refuses_now

    def answer_to(self, url: bytes, headers: Sequence[Header]) -> tuple[list[Header], bytes] | None:
        """Headers and body of a refusal; None for a request that the endpoint must answer."""
        path, _, query = url.partition(b"?")
        names = predict_names_in(path.decode("latin-1"))
        fields = dict(headers)
        if names is None or b"%" in path or not can_be_dropped(fields, self._limits):
            return None
        refused = self._endpoint.early_refusal(names, query, fields)
        if refused is None:
            return None
        error, request_id = refused
        body = orjson.dumps(problem_of(error, request_id))
        return answer_headers(PROBLEM_TYPE, body, request_id, refusal_headers(error, must_close=False)), body
