"""Sends predict and infer requests straight to their endpoints, all else to FastAPI; the answers are the same.

FastAPI's middlewares and router cost about as much per request as queueing and batching together; these need none of
them. The same endpoints are also routes of the application, which answers other methods with 405.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypedDict, cast

from starlette.types import ASGIApp, Receive, Scope, Send

_KEPT_PATHS = 256
_PREDICT = re.compile(r"/v1/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+)|/labels/(?P<label>[^/]+))?/predict")
_INFER = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")


class PathNames(TypedDict):
    """What a path names; version and label are None where it does not."""

    model: str
    version: str | None
    label: str | None


@lru_cache(_KEPT_PATHS)
def _names_in(path: str) -> tuple[bool, dict[str, str | None]] | None:
    """Whether a path is one of infer, and its model, version and label; None for others than infer and predict."""
    match = _PREDICT.fullmatch(path) or _INFER.fullmatch(path)
    return None if match is None else (match.re is _INFER, match.groupdict())


def predict_names_in(path: str) -> PathNames | None:
    """Model, version and label in a path of predict; None for every other path."""
    found = _names_in(path)
    return None if found is None or found[0] else cast("PathNames", found[1])


class PredictShortcut:
    """The application with its shortest ways."""

    def __init__(self, predict: ASGIApp, infer: ASGIApp, others: ASGIApp) -> None:
        self._predict = predict
        self._infer = infer
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            found = _names_in(scope["path"][len(scope["root_path"]) :])
            if found is not None:
                is_infer, scope["path_params"] = found
                await (self._infer if is_infer else self._predict)(scope, receive, send)
                return
        await self._others(scope, receive, send)
