"""Compressed request bodies. Promises: no more is decompressed than a body may have, in steps of a millisecond."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable
from typing import Protocol

from saccade.service.errors import BadRequest, SaccadeError, UnsupportedEncoding

ENCODINGS = ("gzip", "deflate", "br")
_STEP_BYTES = 256 * 1024  # decompressed in under a millisecond
_INPUT_BYTES = 64 * 1024
_MAX_MEMBERS = 1024  # bgzip makes one of 64 KiB; many empty ones would hold the event loop
_GZIP_START = b"\x1f\x8b"
_GZIP_OR_ZLIB, _RAW_DEFLATE = 47, -15  # wbits


def encoding_of(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Content-Encoding; several lines of it are one list, as HTTP has it."""
    return b", ".join(value for name, value in headers if name == b"content-encoding")


async def decoded_body(content: bytes, encoding: bytes, take: Callable[[int], None]) -> bytes:
    """The body as it was before compression.

    `take` hears of each piece before the next one is made, and refuses what is too much. Raises UnsupportedEncoding,
    BadRequest for a damaged body, or what `take` raises.
    """
    name = encoding.decode("latin-1").strip().lower()
    if name in ("", "identity"):
        return content
    decoder = _decoder_for(name, content)
    pieces: list[bytes] = []
    while True:
        try:
            piece = decoder.next_piece()
        except SaccadeError:
            raise
        except Exception as error:  # zlib.error and brotli.error
            raise BadRequest(f"the body is not {name}, as Content-Encoding says") from error
        take(len(piece))
        pieces.append(piece)
        if decoder.is_finished:
            return b"".join(pieces)
        if not piece:
            raise BadRequest(f"the {name} body is cut off")
        await asyncio.sleep(0)  # other requests get their turn while a large body is decompressed


class _Decoder(Protocol):
    @property
    def is_finished(self) -> bool: ...

    def next_piece(self) -> bytes: ...


def _decoder_for(name: str, content: bytes) -> _Decoder:
    if name in ("gzip", "x-gzip", "deflate"):
        return _ZlibDecoder(content)
    if name == "br":
        return _BrotliDecoder(content)
    allowed = ", ".join(ENCODINGS)
    if "," in name:
        raise UnsupportedEncoding(f"several content encodings, {name[:64]!r}, are not taken; use one of: {allowed}")
    raise UnsupportedEncoding(f"content encoding {name[:64]!r} is not taken; allowed are: {allowed}")


class _ZlibDecoder:
    """gzip of one member or several, zlib, and the bare deflate that some clients send under its name."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0
        self._members = 1
        self._is_gzip = content.startswith(_GZIP_START)
        # zlib's two header bytes are a multiple of 31.
        is_wrapped = self._is_gzip or int.from_bytes(content[:2], "big") % 31 == 0
        self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB if is_wrapped else _RAW_DEFLATE)

    @property
    def is_finished(self) -> bool:
        return self._decoder.eof

    def next_piece(self) -> bytes:
        data = self._decoder.unconsumed_tail
        while True:
            if not data:
                data = self._content[self._position : self._position + _INPUT_BYTES]
                self._position += len(data)
            piece = self._decoder.decompress(data, _STEP_BYTES)
            data = self._decoder.unconsumed_tail
            if self._decoder.eof and self._is_gzip:
                self._begin_next_member()
            if piece or self._decoder.eof or (not data and self._position >= len(self._content)):
                return piece

    def _begin_next_member(self) -> None:
        """Goes on where a member ended; what is no member there is left, as gzip leaves it."""
        self._position -= len(self._decoder.unused_data)
        if not self._content.startswith(_GZIP_START, self._position):
            return
        self._members += 1
        if self._members > _MAX_MEMBERS:
            raise BadRequest(f"the gzip body has more than {_MAX_MEMBERS:,} members; compress it as one")
        self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB)


class _BrotliDecoder:
    def __init__(self, content: bytes) -> None:
        try:
            import brotli  # late: few clients send it
        except ImportError as error:
            raise UnsupportedEncoding("content encoding 'br' is not taken here; allowed are: gzip, deflate") from error
        self._left = content
        self._decoder = brotli.Decompressor()

    @property
    def is_finished(self) -> bool:
        return bool(self._decoder.is_finished())

    def next_piece(self) -> bytes:
        piece: bytes = self._decoder.process(self._left, output_buffer_limit=_STEP_BYTES)
        self._left = b""
        return piece
