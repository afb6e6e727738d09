"""Asks for a key on every path but health; predict and infer ask themselves, before they read a body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from saccade.service.errors import SaccadeError
from saccade.service.ipc.api_keys import ApiKeys, Scope

KEY = "saccade.key"  # in the scope of a request that this gate let through: its key, None where none is needed
METRICS, DOCS = "metrics", "docs"  # what SACCADE_OPEN_WITHOUT_KEY may name
_HEALTH = ("/health/", "/v2/health/")
_PAGES = ("/docs", "/openapi.json", "/playground/")


def asks_for_key(method: str, path: str, open_without_key: frozenset[str]) -> bool:
    """Tells whether a request to this path needs a key, here or at predict and infer."""
    return _is_asked_later(method, path) or scope_needed(method, path, open_without_key) is not None


def scope_needed(method: str, path: str, open_without_key: frozenset[str]) -> Scope | None:
    """What a key must allow for a request to this path; None where none is asked for here."""
    if path.startswith(_HEALTH) or _is_asked_later(method, path):
        return None
    if method == "POST" and path.startswith("/v2/repository/models/"):
        return Scope.ADMIN
    if path.startswith("/v1/models/") and path.endswith("/disagreements"):
        return Scope.ADMIN
    is_open = (METRICS in open_without_key and path == "/metrics") or (
        DOCS in open_without_key and (path == "/" or path.startswith(_PAGES))
    )
    return None if is_open else Scope.READ


def _is_asked_later(method: str, path: str) -> bool:
    return method == "POST" and path.endswith(("/predict", "/infer"))


class KeyGate:
    """Wraps the application; `needed` tells what a key must allow by method and path, `refuse` writes refusals."""

    def __init__(
        self,
        inner: ASGIApp,
        keys: ApiKeys,
        needed: Callable[[str, str], Scope | None],
        refuse: Callable[[Request, SaccadeError], Awaitable[Response]],
    ) -> None:
        self._inner = inner
        self._keys = keys
        self._needed = needed
        self._refuse = refuse

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path: str = scope["path"][len(scope["root_path"]) :]
            needed = self._needed(scope["method"], path)
            if needed is not None:
                try:
                    scope[KEY] = self._keys.ensure(dict(scope["headers"]).get(b"authorization"), needed)
                except SaccadeError as error:
                    await (await self._refuse(Request(scope), error))(scope, receive, send)
                    return
        await self._inner(scope, receive, send)
