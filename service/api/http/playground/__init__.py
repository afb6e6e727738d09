"""The pages at `/` and `/docs`. Promises: read once at start, nothing from outside, off the predict path."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request, Response

_HERE = Path(__file__).parent
_SCRIPT_TYPE = "text/javascript; charset=utf-8"
# (path, file, content type); a file that is not listed is not served.
_PAGES = (
    ("/", "index.html", "text/html; charset=utf-8"),
    ("/docs", "docs.html", "text/html; charset=utf-8"),
    ("/playground/docs.css", "docs.css", "text/css; charset=utf-8"),
    ("/playground/docs.js", "docs.js", _SCRIPT_TYPE),
    ("/playground/playground.css", "playground.css", "text/css; charset=utf-8"),
    ("/playground/playground.js", "playground.js", _SCRIPT_TYPE),
    ("/playground/api.js", "api.js", _SCRIPT_TYPE),
    ("/playground/camera.js", "camera.js", _SCRIPT_TYPE),
    ("/playground/compare.js", "compare.js", _SCRIPT_TYPE),
    ("/playground/drawing.js", "drawing.js", _SCRIPT_TYPE),
    ("/playground/heat.js", "heat.js", _SCRIPT_TYPE),
    ("/playground/load.js", "load.js", _SCRIPT_TYPE),
    ("/playground/masks.js", "masks.js", _SCRIPT_TYPE),
    ("/playground/panels.js", "panels.js", _SCRIPT_TYPE),
    ("/playground/pictures.js", "pictures.js", _SCRIPT_TYPE),
    ("/playground/produced.js", "produced.js", _SCRIPT_TYPE),
    ("/playground/request.js", "request.js", _SCRIPT_TYPE),
    ("/playground/snippets.js", "snippets.js", _SCRIPT_TYPE),
    ("/playground/sources.js", "sources.js", _SCRIPT_TYPE),
    ("/playground/vectors.js", "vectors.js", _SCRIPT_TYPE),
    ("/playground/icon.svg", "icon.svg", "image/svg+xml"),
)
# blob: and data: are the images the user chose and the masks of the answer; neither can run anything.
_CONTENT_SECURITY_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def playground_router() -> APIRouter:
    """The pages and their files. Raises OSError when one is missing from the installation."""
    router = APIRouter()
    for path, name, content_type in _PAGES:
        router.add_route(path, _endpoint((_HERE / name).read_bytes(), content_type), include_in_schema=False)
    return router


def _endpoint(content: bytes, content_type: str) -> Callable[[Request], Awaitable[Response]]:
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {
        "cache-control": "no-cache",  # revalidated each time: after an upgrade no browser mixes old and new files
        "etag": etag,
        "content-security-policy": _CONTENT_SECURITY_POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }

    async def page(request: Request) -> Response:
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=content_type)

    return page
