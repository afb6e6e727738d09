"""Sends predict requests straight to their endpoint, everything else to FastAPI. Promises: same answers either way.

FastAPI's middlewares and router cost about as much per request as queueing and batching together; predict needs
none of them. The same endpoint is also a route of the application, which answers other methods with 405.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

_PREDICT = re.compile(r"/v1/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+)|/labels/(?P<label>[^/]+))?/predict")


class FrontDoor:
    """The ASGI application that uvicorn runs."""

    def __init__(self, predict: ASGIApp, others: ASGIApp) -> None:
        self._predict = predict
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            match = _PREDICT.fullmatch(scope["path"])
            if match is not None:
                scope["path_params"] = match.groupdict()
                await self._predict(scope, receive, send)
                return
        await self._others(scope, receive, send)
