"""Refuses heads in the parser, before any key is asked. Promises: 431, 408, 400, 501 or 505, and the connection ends.

Under overload it also sends the refusals of `EarlyRefusals`, whose connections go on; their bodies are dropped.

A head is the request line and the header fields. Fields behind a chunked body (trailers) count with them. Beyond what
was read in one piece, a connection holds no more than the limit.
"""

from __future__ import annotations

import asyncio
import sys
from http import HTTPStatus
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import httptools
import orjson

from saccade.service.api.http.answer_writing import answer_headers
from saccade.service.api.http.error_responses import PROBLEM_TYPE, problem
from saccade.service.api.http.request_head import request_id_of
from saccade.service.api.http.taken_answers import TakenAnswers
from saccade.service.api.refusal_log import RefusalLog

if TYPE_CHECKING:
    from saccade.service.api.http.early_refusals import EarlyRefusals, Header

MAX_HEAD_BYTES = 64 * 1024
MAX_FIELDS = 100
_VERSIONS = ("1.1", "1.0")
_TOO_LARGE = (
    f"URL, headers and trailers are too large; at most {MAX_HEAD_BYTES:,} bytes and {MAX_FIELDS} fields are allowed"
)
_LAST_REQUEST_S = 0.5  # may still come on a connection that is open when the server is to end
_MAX_AHEAD = 100  # requests that wait for the answer to an earlier one; 40 bytes become some KB each


class _Refused(Exception):
    """Ends the parsing; llhttp knows no such limits and rules."""


class LimitedHeads(TakenAnswers):
    """uvicorn's protocol with limits on size and time of each head."""

    def __init__(
        self, *, timeout_s: float, refusals: RefusalLog, early: EarlyRefusals | None = None, **given: Any
    ) -> None:
        """`timeout_s` is how long a head may take to arrive; the rest is uvicorn's."""
        super().__init__(timeout_s=timeout_s, refusals=refusals, **given)
        self._early = early
        self._is_dropped = False  # this request was refused early
        self._is_head_open = False  # a head has begun, and is not complete
        self._is_message_open = False
        self._fields = 0  # of the head
        self._unread_bytes = 0  # in pieces that neither completed a head nor held any of a body
        self._had_progress = False
        self._refusal: tuple[HTTPStatus, str] | None = None  # why the parsing was ended
        self._is_refused = False  # what follows belongs to no request
        self._is_upgrade = False  # the parser takes what follows for another protocol
        self._piece = self._again = b""  # what is being parsed, and what is to be parsed behind it
        self._head_timer: asyncio.TimerHandle | None = None  # also of the rest of a body that was answered already

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn declares it
        super().connection_made(transport)
        self._wait_for_next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_timer()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)
        if self.cycle is not None:
            self.cycle.body = bytearray()  # nobody reads it, and connection and request refer to each other

    def data_received(self, data: bytes) -> None:
        """Refuses what is too large as far as it was read: a field without an end reaches no callback of the parser."""
        if self._is_refused:
            return
        was_open, size = self._is_message_open, len(data)
        self._had_progress = False
        while data:
            self._piece, self._again = data, b""
            super().data_received(data)
            if self.transport.is_closing() or self._is_refused:
                return
            data = self._again
        if not self._is_message_open:
            if not self._is_answering and self.timeout_keep_alive_task is None:
                self._wait_for_next()  # empty lines between requests have stopped the wait
            return
        if self._had_progress or not was_open:
            self._unread_bytes = 0
        else:
            self._unread_bytes += size
            if self._unread_bytes > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)
                return
        if self._head_timer is None and self._is_head_open:
            self._head_timer = self.loop.call_later(self._timeout_s, self._head_is_late)
        elif self._head_timer is None and not self._is_answering:  # the rest is dropped as it comes
            self._head_timer = self.loop.call_later(self._timeout_s, self.transport.close)

    def shutdown(self) -> None:
        """Called when the server is to end. A request that is on its way is taken: to close before it is a reset."""
        if self._is_answering:
            super().shutdown()
        else:
            self.loop.call_later(_LAST_REQUEST_S, super().shutdown)

    def on_message_begin(self) -> None:
        self._is_head_open = self._is_message_open = self._had_progress = True
        self._is_dropped = False
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._ensure_small()
        if self.parser.get_method() == b"CONNECT":
            raise self._refused(HTTPStatus.NOT_IMPLEMENTED, "this server is no proxy, and takes no CONNECT")
        if self.parser.should_upgrade():
            self._is_upgrade = True
            return
        self._ensure_http()
        if len(self.pipeline) >= _MAX_AHEAD:
            raise self._refused(HTTPStatus.BAD_REQUEST, f"more than {_MAX_AHEAD} requests wait for their answers")
        self._fields = len(self.headers)
        self._is_head_open, self._had_progress = False, True
        self._forget_timer()
        if self._early is None or not self._early.is_on or not self._refused_early(self._early):
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._had_progress = True
        if not self._is_dropped:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._is_upgrade:
            return
        if len(self.headers) > self._fields:  # there were trailers
            self._ensure_small()
        self._is_message_open = False
        self._forget_timer()
        if not self._is_dropped:
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn for whatever ended the parsing."""
        self._refuse(*self._refusal or (HTTPStatus.BAD_REQUEST, msg))

    def _unsupported_upgrade_warning(self) -> None:
        """Called by uvicorn where the parser stopped: the request goes on as if it had asked for no other protocol."""
        self._is_upgrade = False
        (offset,) = cast("httptools.HttpParserUpgrade", sys.exception()).args
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self._again = b"\r\n".join([line, *fields, b"", b""]) + self._piece[offset:]

    def _ensure_http(self) -> None:
        """What RFC 9112 has servers refuse, and the parser does not."""
        version, names = self.parser.get_http_version(), [name for name, _ in self.headers]
        if version not in _VERSIONS:
            raise self._refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "this server speaks HTTP/1.1 and HTTP/1.0")
        if names.count(b"host") != 1 and (version != "1.0" or b"host" in names):
            raise self._refused(HTTPStatus.BAD_REQUEST, "a request of HTTP/1.1 has one Host, and no more")
        codings = [value.strip().lower() for name, value in self.headers if name == b"transfer-encoding"]
        if codings not in ([], [b"chunked"]):
            raise self._refused(HTTPStatus.NOT_IMPLEMENTED, "the only transfer coding that is read is chunked")

    def _refused(self, status: HTTPStatus, detail: str) -> _Refused:
        self._refusal = status, detail
        return _Refused()

    def _refused_early(self, early: EarlyRefusals) -> bool:
        """Sends the refusal of a request without room; False for others, and for all that are no plain POST."""
        parser = self.parser
        if self._is_answering or self.flow.write_paused or self.expect_100_continue or parser.should_upgrade():
            return False
        if (parser.get_method(), parser.get_http_version()) != (b"POST", "1.1") or not parser.should_keep_alive():
            return False
        answer = early.answer_to(self.url, self.headers)
        if answer is None:
            return False
        headers, body = answer
        self._send(HTTPStatus.TOO_MANY_REQUESTS, [*self.server_state.default_headers, *headers], body)
        self._is_dropped = True
        self._wait_for_next()
        return True

    def _ensure_small(self) -> None:
        size = len(self.url) + sum(map(len, chain.from_iterable(self.headers)))
        if len(self.headers) > MAX_FIELDS or size > MAX_HEAD_BYTES:
            raise self._refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, _TOO_LARGE)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._is_answering:  # it was sent before the answer to an earlier request
            self._head_timer = self.loop.call_later(self._timeout_s, self._head_is_late)
        elif not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head did not arrive within {self._timeout_s:g} s")

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answers where this request's answer is the next one to send, and closes; earlier requests are answered."""
        self._forget_timer()
        if self._is_head_open and self._is_answering:
            self._is_refused = True
            self.cycle.keep_alive = False  # the last one that is answered
            return
        if self._is_head_open or self.cycle is None or not (self.cycle.response_started or self.pipeline):
            request_id = request_id_of({})
            self._refusals.note(f"HTTP {status.value}", status.value, detail, request_id)
            body = orjson.dumps(problem(status.value, status.phrase, detail, request_id))
            headers = answer_headers(PROBLEM_TYPE, body, request_id, [(b"connection", b"close")])
            self._send(status, headers, body)
        self.transport.close()

    def _send(self, status: HTTPStatus, headers: list[Header], body: bytes) -> None:
        lines = [b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode()), *map(b": ".join, headers), b"", body]
        self.transport.write(b"\r\n".join(lines))

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_for_next(self) -> None:
        """Ends a connection on which no request comes, as uvicorn does after an answer."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _forget_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
