"""What coverage-guided fuzzing is aimed at: per target the function that gets the bytes, and seeds to begin with.

A target returns, whatever it is given; what the callers of the code under test expect is caught. All else is a finding.
"""

from __future__ import annotations

import asyncio
import re
import warnings
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import uvicorn
from PIL import Image
from uvicorn.server import ServerState

from saccade.models.contract.manifest import ManifestError, manifest_bytes, manifest_from_bytes
from saccade.models.contract.specs import Task
from saccade.service.api.http.image_bodies import images_from
from saccade.service.api.http.limited_heads import LimitedHeads
from saccade.service.api.http.oip.tensors import ModelTensors, infer_request
from saccade.service.api.refusal_log import RefusalLog
from saccade.service.errors import BadRequest, SaccadeError
from saccade.service.ipc.frames import FrameProtocol
from saccade.service.repository.serving_document import ServingRefused, document_bytes, document_from
from saccade.service.vision.image_decoder import ImageLimits, decode_image
from tests.support.images import json_body, red_png
from tests.support.odd_pictures import REFUSED, TAKEN
from tests.support.oip_requests import IMAGE_BYTES, binary_body, pixel_input, pixels
from tests.support.versions import manifest_for

_GOLDEN_MESSAGES = Path(__file__).parents[1] / "golden/messages.txt"
_MULTIPART = "multipart/form-data"
_FORM = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n--b--\r\n'
_MAX_IMAGES = 4
_ANSWERED = {100, 200, 400, 431, 501, 505}  # nothing that LimitedHeads lets through may fail behind it
_REQUESTS = (
    b"GET /a?b=c HTTP/1.1\r\nHost: x\r\n\r\n" * 2 + b"GET / HTTP/1.1\r\nHo",
    b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;e=1\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    b"POST /a HTTP/1.0\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\nabGET / HTTP/2.0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nCONNECT a:1 HTTP/1.1\r\n\r\n",
)
_LIMITS = ImageLimits(max_pixels=10_000, more_formats=frozenset({"gif", "tiff"}))
_TENSORS = ModelTensors("m", manifest_for("m", 1).input, manifest_for("m", 1).answer, _MAX_IMAGES)
_HOLD: dict[str, Any] = {"generation": 3, "policy": "hold", "labels": {"stable": 1, "next": 3}}
_ROLLOUT = {"steps": [{"share": 0.05}, {"share": 0.5, "min_requests": 9}], "limits": {"slower": 2.0}}


@dataclass(frozen=True, slots=True)
class Target:
    """`run` gets the bytes; `seeds` is called once."""

    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]


def _infer(data: bytes) -> None:
    """A body of /v2, behind a line with the length of its JSON."""
    length, _, body = data.partition(b"\n")
    with suppress(BadRequest):
        infer_request(body, length or None, _TENSORS)


def _infer_seeds() -> list[bytes]:
    texts = {"name": "images", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}
    wanted = {"outputs": [{"name": "scores", "parameters": {"classification": 2, "binary_data": True}}]}
    numbers = pixel_input(pixels(1), parameters={}, data=[1] * IMAGE_BYTES)
    bodies = [
        binary_body({"inputs": [pixel_input(pixels(1, 2))], "id": "a", **wanted}, pixels(1, 2).tobytes()),
        binary_body({"inputs": [texts], "parameters": {"timeout": 9, "priority": 1, "binary_data_output": True}}),
        binary_body({"inputs": [texts | {"data": [], "parameters": {"binary_data_size": 6}}]}, b"\2\0\0\0ab"),
        binary_body({"inputs": [numbers]}),
    ]
    return [b"0\nraw", *(length.encode() + b"\n" + body for body, headers in bodies for length in headers.values())]


def _manifest(data: bytes) -> None:
    """What is accepted can be written and read again."""
    with suppress(ManifestError):
        found = manifest_from_bytes(data)
        assert manifest_from_bytes(manifest_bytes(found)) == found


def _serving(data: bytes) -> None:
    with suppress(ServingRefused):
        found = document_from(data, "it")
        assert document_from(document_bytes(found), "it") == found


def _serving_seeds() -> list[bytes]:
    canary = {"canary": {"version": 2, "share": 0.05, "salt": "x"}, "shadow": {"version": 2, "sample": 0.5}}
    documents = [{"generation": 1}, _HOLD | {"objective_ms": 9.5, "reason": "why"}, _HOLD | canary]
    return [orjson.dumps(each) for each in (*documents, _HOLD | canary | {"rollout": _ROLLOUT})]


class _Closable(asyncio.Transport):
    def close(self) -> None:
        """Nothing is open."""


def _messages(data: bytes) -> None:
    """A stream in two pieces, as a socket may give it. What is no list of messages ends the connection."""
    protocol = FrameProtocol(lambda message: None, lambda: None)
    protocol.connection_made(_Closable())
    for piece in (data[:7], data[7:]):
        protocol.data_received(piece)


class _Wire(_Closable):
    """A client's connection, and what was sent on it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self._is_closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def pause_reading(self) -> None:
        """All is given to it at once."""

    def resume_reading(self) -> None:
        """As above."""

    def get_write_buffer_size(self) -> int:
        return 0  # the client takes everything at once


async def _app(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


@cache
def _config() -> uvicorn.Config:
    config = uvicorn.Config(_app, lifespan="off", ws="none", access_log=False, log_config=None)
    config.load()
    return config


async def _answered(data: bytes) -> None:
    wire, state = _Wire(), ServerState()
    protocol = LimitedHeads(timeout_s=5.0, refusals=RefusalLog(), config=_config(), server_state=state, app_state={})
    protocol.connection_made(wire)
    for piece in (data[: len(data) // 2], data[len(data) // 2 :]):
        if not wire.is_closing():
            protocol.data_received(piece)
            await asyncio.sleep(0)
    if not wire.is_closing():
        protocol.eof_received()
    protocol.connection_lost(None)
    await asyncio.gather(*state.tasks)
    statuses = {int(status) for status in re.findall(rb"(?:^|\r\n)HTTP/1\.1 (\d+) ", wire.sent)}
    assert statuses <= _ANSWERED, wire.sent


def _heads(data: bytes) -> None:
    """A connection's bytes in two pieces, and its end."""
    with asyncio.Runner() as runner:
        runner.run(_answered(data))


def _picture(data: bytes) -> None:
    with warnings.catch_warnings(), suppress(SaccadeError):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)
        found = decode_image(data, _LIMITS)
        assert (found.ndim, found.shape[2], found.dtype) == (3, 3, "uint8")


def _json(data: bytes) -> None:
    with suppress(SaccadeError):
        _finished(images_from(data, "application/json", None, _MAX_IMAGES))


def _multipart(data: bytes) -> None:
    with suppress(SaccadeError):
        _finished(images_from(data, _MULTIPART, b"multipart/form-data; boundary=b", _MAX_IMAGES))


def _finished(work: Coroutine[Any, Any, object]) -> None:
    """Without an event loop: it only ever waits for its next turn."""
    with suppress(StopIteration):
        while True:
            work.send(None)


TARGETS = {
    "infer": Target(_infer, _infer_seeds),
    "manifest": Target(_manifest, lambda: [manifest_bytes(manifest_for("m", 1, task)) for task in Task]),
    "serving": Target(_serving, _serving_seeds),
    "messages": Target(
        _messages,
        lambda: [bytes.fromhex(text) for text in re.findall(r"^  ([0-9a-f]+)$", _GOLDEN_MESSAGES.read_text(), re.M)],
    ),
    "picture": Target(_picture, lambda: [data for data, _ in (*TAKEN.values(), *REFUSED.values())]),
    "json": Target(
        _json, lambda: [orjson.dumps(json_body(red_png(1), b"", top_k=3)), b'{"images":[{"url":"http://x"}]}']
    ),
    "heads": Target(_heads, lambda: list(_REQUESTS)),
    "multipart": Target(_multipart, lambda: [_FORM % (b"image", red_png(1)), _FORM % (b"top_k", b"3")]),
}
