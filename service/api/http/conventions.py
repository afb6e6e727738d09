"""HTTP conventions that hold on every path. Promises: HEAD as GET without its body, OPTIONS, trailing slashes, prefix.

While the process drains, every answer closes its connection, so that clients open their next one elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import unquote

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SLASH = re.compile(rb"%2f", re.IGNORECASE)


class HttpConventions:
    """Wraps `inner`, whose routes are those of `app`."""

    def __init__(self, inner: ASGIApp, app: FastAPI, root_path: str, is_draining: Callable[[], bool]) -> None:
        """`root_path` is the prefix under which clients see this server; a proxy may strip it or pass it on."""
        self._inner = inner
        self._app = app
        self._root_path = root_path.rstrip("/")
        self._is_draining = is_draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        if self._is_draining():
            send = _closing(send)
        if _SLASH.search(scope["raw_path"]):
            scope = {**scope, "path": _path_without_slash(scope["raw_path"])}
        path: str = scope["path"]
        if self._root_path:
            if path == self._root_path:
                await RedirectResponse(self._root_path + "/")(scope, receive, send)
                return
            bare = path.removeprefix(self._root_path) if path.startswith(self._root_path + "/") else path
            scope = {**scope, "root_path": self._root_path, "path": self._root_path + bare}
            path = bare
        if path == "/docs/":  # a page, whose files lie beside it
            await RedirectResponse(self._root_path + "/docs")(scope, receive, send)
            return
        if len(path) > 1 and path.endswith("/"):
            scope = {**scope, "path": scope["path"].rstrip("/")}
        if scope["method"] == "HEAD":
            await self._inner({**scope, "method": "GET"}, receive, _without_body(send))
        elif scope["method"] == "OPTIONS":
            await self._options(scope)(scope, receive, send)
        else:
            await self._inner(scope, receive, send)

    def _options(self, scope: Scope) -> ASGIApp:
        """204 with the methods of a path; what the application says of one that does not exist."""
        methods = {
            method
            for method in ("GET", "POST")
            for route in self._app.router.routes
            if route.matches({**scope, "method": method})[0] is Match.FULL
        }
        if not methods:
            return self._app
        return Response(status_code=204, headers={"Allow": allowed_methods(methods)})


def _path_without_slash(raw_path: bytes) -> str:
    """An encoded slash separates nothing, or else what a proxy allows by path would be more than it means to."""
    return "%2f".join(unquote(part.decode("ascii")) for part in _SLASH.split(raw_path))


def allowed_methods(methods: set[str]) -> str:
    """For an Allow header: with those that every path has."""
    with_head = {"HEAD"} if "GET" in methods else set()
    return ", ".join(sorted(methods | with_head | {"OPTIONS"}))


def _closing(send: Send) -> Send:
    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [header for header in message["headers"] if header[0].lower() != b"connection"]
            message = {**message, "headers": [*others, (b"connection", b"close")]}
        await send(message)

    return send_and_close


def _without_body(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await send(message)

    return send_head
