"""Takes the images out of a request body: raw, multipart or JSON base64. Promises: typed errors, no temporary files."""

from __future__ import annotations

import asyncio
import binascii
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import msgspec
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers
from starlette.formparsers import MultiPartException, MultiPartParser

from saccade.service.errors import BadParameter, BadRequest, Unprocessable, UnsupportedMedia
from saccade.service.vision.parameters import NOTHING_GIVEN, GivenParameters, parse_given

RAW_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", "application/octet-stream")
# What HTTP clients send when nobody told them; curl's --data-binary does.
_UNTOLD_TYPES = ("", "application/x-www-form-urlencoded")
_INLINE_BYTES = 256 * 1024  # parsed in under a millisecond; larger bodies leave the event loop
_MULTIPART = "multipart/form-data"
_JSON = "application/json"


@dataclass(frozen=True, slots=True)
class GivenImages:
    """Encoded images in order; one that could not even be read is its error, so that its neighbours go on."""

    images: list[bytes | BadRequest]
    parameters: GivenParameters


class _ImageEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    b64: str | None = None
    url: str | None = None


class _JsonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    images: list[_ImageEntry]
    parameters: dict[str, object] = {}


_json_decoder = msgspec.json.Decoder(_JsonBody)


def media_type_of(content_type: bytes | None) -> str:
    """Lower-case type without parameters. Raises UnsupportedMedia when it is none of ours."""
    media_type = (content_type or b"").decode("latin-1").partition(";")[0].strip().lower()
    if media_type in _UNTOLD_TYPES:
        return "application/octet-stream"
    if media_type in (*RAW_TYPES, _MULTIPART, _JSON):
        return media_type
    allowed = ", ".join((*RAW_TYPES, _MULTIPART, _JSON))
    raise UnsupportedMedia(f"content type {media_type!r} is not taken; allowed are: {allowed}")


async def images_from(body: bytes, media_type: str, content_type: bytes | None, max_images: int) -> GivenImages:
    """The images of a request, in order, at least one. Raises BadRequest or one of its kind."""
    if media_type == _JSON:
        is_small = len(body) <= _INLINE_BYTES
        given = _from_json(body, max_images) if is_small else await asyncio.to_thread(_from_json, body, max_images)
    elif media_type == _MULTIPART:
        given = await _from_multipart(body, content_type or b"", max_images)
    else:
        return GivenImages([body], NOTHING_GIVEN)
    if not given.images:
        raise BadRequest("the request holds no image")
    return given


def _ensure_count(count: int, max_images: int) -> None:
    if count > max_images:
        raise Unprocessable(
            f"{count} images in one request, at most {max_images} are allowed: send several requests, or raise "
            "SACCADE_MAX_IMAGES_PER_REQUEST"
        )


def _from_json(body: bytes, max_images: int) -> GivenImages:
    try:
        parsed = _json_decoder.decode(body)
    except msgspec.ValidationError as error:
        raise BadRequest(f"the JSON body is not as expected: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    _ensure_count(len(parsed.images), max_images)
    images = [_image_from_entry(entry, index) for index, entry in enumerate(parsed.images)]
    return GivenImages(images, parse_given(parsed.parameters, is_text=False))


def _image_from_entry(entry: _ImageEntry, index: int) -> bytes | BadRequest:
    if entry.url is not None:
        return BadParameter(f"images[{index}].url: this server does not fetch images; send them as b64")
    if entry.b64 is None:
        return BadRequest(f"images[{index}] has no b64")
    try:
        return binascii.a2b_base64(entry.b64, strict_mode=True)
    except ValueError as error:  # binascii.Error is one
        return BadRequest(f"images[{index}].b64 is not base64: {error}")


async def _from_multipart(body: bytes, content_type: bytes, max_images: int) -> GivenImages:
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadRequest("multipart/form-data without a boundary")
    if b"--" + boundary + b"--" not in body:  # the parser would drop the unfinished part without a word
        raise BadRequest("the multipart body is damaged: it ends before its closing boundary")

    async def stream() -> AsyncGenerator[bytes, None]:
        for start in range(0, len(body), _INLINE_BYTES):
            yield body[start : start + _INLINE_BYTES]
            await asyncio.sleep(0)  # other requests get their turn while a large body is parsed

    parser = MultiPartParser(
        Headers(raw=[(b"content-type", content_type)]),
        stream(),
        max_files=max_images,
        max_fields=len(GivenParameters.__struct_fields__),
    )
    parser.spool_max_size = len(body) + 1  # never spills to disk: the bytes are in memory already
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            _ensure_count(max_images + 1, max_images)
        raise BadRequest(f"the multipart body is damaged: {error.message}") from error
    images: list[bytes | BadRequest] = []
    fields: dict[str, str] = {}
    try:
        for name, value in form.multi_items():
            if isinstance(value, str):
                if name in fields:
                    raise BadParameter(f"field {name!r} appears twice")
                fields[name] = value
            elif name == "image":
                images.append(value.file.read())
            else:
                raise BadRequest(f"file field {name!r} is not taken; name it 'image'")
    finally:
        await form.close()
    _ensure_count(len(images), max_images)
    return GivenImages(images, parse_given(fields, is_text=True))
