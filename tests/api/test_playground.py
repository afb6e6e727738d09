"""The playground page as files: content types, policy, caching, and nothing from outside."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import httpx
import pytest

import saccade.service.api.http.playground
from saccade.service.api.app import build_api
from saccade.service.settings import Settings

FOLDER = Path(saccade.service.api.http.playground.__file__).parent
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js", ".svg"))
SVG_NAMESPACE = "http://www.w3.org/2000/svg"  # a name, which no browser fetches

CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


def path_of(file: Path) -> str:
    return {"index.html": "/", "docs.html": "/docs"}.get(file.name, f"/playground/{file.name}")


def content_of(file: Path) -> bytes:
    return file.read_bytes()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    api = build_api(Settings(decode_threads=1), lambda generation: None)
    transport = httpx.ASGITransport(api.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client
    for pool in api.pools:
        pool.shutdown()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
async def test_file_is_sent_as_it_is_with_its_type_and_a_strict_policy(client: httpx.AsyncClient, file: Path) -> None:
    answer = await client.get(path_of(file))

    assert answer.status_code == 200
    assert answer.content == content_of(file)
    assert answer.headers["content-type"] == CONTENT_TYPES[file.suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
async def test_known_file_is_not_sent_again(client: httpx.AsyncClient, file: Path) -> None:
    etag = (await client.get(path_of(file))).headers["etag"]

    answer = await client.get(path_of(file), headers={"If-None-Match": etag})

    assert answer.status_code == 304
    assert answer.content == b""


async def test_page_answers_head_and_refuses_post(client: httpx.AsyncClient) -> None:
    assert (await client.head("/")).status_code == 200

    refused = await client.post("/")

    assert refused.status_code == 405
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/playground/__init__.py", "/playground/..%2fauth.py", "/playground/", "/playground"])
async def test_only_listed_files_are_served(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 404


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_file_names_no_other_host(file: Path) -> None:
    text = file.read_text("utf-8").replace(SVG_NAMESPACE, "")

    assert not re.findall(r"(?:https?:|wss?:)?//[a-z0-9-]+\.[a-z]", text, re.IGNORECASE)


class References(HTMLParser):
    """What the page refers to, and whether it holds code or styles of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.paths += [value for name, value in attrs if name in ("src", "href") and value and value[0] != "#"]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


@pytest.mark.parametrize("page", ["index.html", "docs.html"])
async def test_everything_a_page_refers_to_is_served(client: httpx.AsyncClient, page: str) -> None:
    references = References()
    references.feed((FOLDER / page).read_text("utf-8"))
    imported = [
        urljoin("/playground/", path)
        for file in FILES
        if file.suffix == ".js"
        for path in re.findall(r'from "([^"]+)"', file.read_text("utf-8"))
    ]

    statuses = {
        path: (await client.get(path)).status_code
        for path in {*[urljoin("/", path) for path in references.paths], *imported}
    }

    assert "/playground/masks.js" in statuses
    assert set(statuses.values()) == {200}, statuses
    assert references.inline == []  # the policy would refuse it


@pytest.mark.parametrize("file", [file for file in FILES if file.suffix == ".js"], ids=lambda file: file.name)
def test_script_never_makes_markup_or_code_from_text(file: Path) -> None:
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|localStorage"

    assert not re.findall(forbidden, file.read_text("utf-8"))


async def test_docs_have_a_page_of_their_own_below_any_slash(client: httpx.AsyncClient) -> None:
    moved = await client.get("/docs/")

    assert (moved.status_code, moved.headers["location"]) == (307, "/docs")
    assert (await client.get("/redoc")).status_code == 404


async def test_page_stays_out_of_the_api_description(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]

    assert not [path for path in paths if path == "/" or path.startswith("/playground")]


def test_first_paint_is_small() -> None:
    assert sum(len(content_of(file)) for file in FILES if not file.name.startswith("docs")) <= 300_000
