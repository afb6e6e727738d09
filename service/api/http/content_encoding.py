"""Compressed request bodies. Promises: no more is decompressed than a body may have, in steps of a millisecond."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Protocol

from saccade.service.errors import BadRequest, UnsupportedEncoding

ENCODINGS = ("gzip", "deflate", "br")
_STEP_BYTES = 256 * 1024  # decompressed in under a millisecond
_GZIP_OR_ZLIB, _RAW_DEFLATE = 47, -15  # wbits


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
    raise UnsupportedEncoding(f"content encoding {name[:64]!r} is not taken; allowed are: {', '.join(ENCODINGS)}")


class _ZlibDecoder:
    """gzip, zlib, and the bare deflate that some clients send under its name; of one member, as HTTP clients make."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._position = 0
        # zlib's two header bytes are a multiple of 31; gzip's begin with 1F8B.
        is_wrapped = content[:2] == b"\x1f\x8b" or int.from_bytes(content[:2], "big") % 31 == 0
        self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB if is_wrapped else _RAW_DEFLATE)

    @property
    def is_finished(self) -> bool:
        return self._decoder.eof

    def next_piece(self) -> bytes:
        data = self._decoder.unconsumed_tail
        while True:
            if not data:
                data = self._content[self._position : self._position + _STEP_BYTES]
                self._position += len(data)
            piece = self._decoder.decompress(data, _STEP_BYTES)
            data = self._decoder.unconsumed_tail
            if piece or self._decoder.eof or (not data and self._position >= len(self._content)):
                return piece


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
