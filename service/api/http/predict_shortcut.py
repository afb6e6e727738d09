"""Sends predict requests straight to their endpoint and everything else to FastAPI; the answers are the same.

FastAPI's middlewares and router cost about as much per request as queueing and batching together; predict needs
none of them. The same endpoint is also a route of the application, which answers other methods with 405.
"""

from __future__ import annotations

import re
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

_KEPT_PATHS = 256
_PREDICT = re.compile(r"/v1/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+)|/labels/(?P<label>[^/]+))?/predict")


@lru_cache(_KEPT_PATHS)
def _names_in(path: str) -> dict[str, str | None] | None:
    """Model, version and label of a predict path; None for another one."""
    match = _PREDICT.fullmatch(path)
    return None if match is None else match.groupdict()


class PredictShortcut:
    """The ASGI application that uvicorn runs."""

    def __init__(self, predict: ASGIApp, others: ASGIApp) -> None:
        self._predict = predict
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            names = _names_in(scope["path"])
            if names is not None:
                scope["path_params"] = names
                await self._predict(scope, receive, send)
                return
        await self._others(scope, receive, send)
