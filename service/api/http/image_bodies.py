"""Takes the images out of a request body: raw, multipart or JSON base64. Promises: typed errors, no temporary files."""

from __future__ import annotations

import asyncio
import binascii
from dataclasses import dataclass

import msgspec

from saccade.service.api.http.json_entries import Scalar, ensure_few_entries
from saccade.service.api.http.multipart import ensure_count, parts_of
from saccade.service.errors import BadParameter, BadRequest, UnsupportedMedia
from saccade.service.vision.parameters import NOTHING_GIVEN, GivenParameters, parse_given

RAW_TYPE = "application/octet-stream"
RAW_TYPES = ("image/jpeg", "image/png", "image/webp", "image/bmp", RAW_TYPE)  # as documented; the bytes decide
_OTHER_RAW_TYPES = ("", "binary/octet-stream")
FORM_TYPE = "application/x-www-form-urlencoded"  # of curl's --data-binary too
_INLINE_BYTES = 256 * 1024  # parsed in under a millisecond; larger bodies leave the event loop
_IMAGE_STARTS = (b"\xff\xd8", b"\x89PNG", b"RIFF", b"BM", b"GIF8")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TO_PLAIN_BASE64 = str.maketrans({" ": None, "\t": None, "\r": None, "\n": None, "-": "+", "_": "/"})
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
    parameters: dict[str, Scalar] = {}


_USUAL_RAW_TYPES = frozenset(name.encode() for name in RAW_TYPES)
_json_decoder = msgspec.json.Decoder(_JsonBody)


def media_type_of(content_type: bytes | None) -> str:
    """RAW_TYPE, FORM_TYPE, multipart or JSON. Raises UnsupportedMedia for anything else."""
    if content_type in _USUAL_RAW_TYPES:
        return RAW_TYPE
    media_type = (content_type or b"").decode("latin-1").partition(";")[0].strip().lower()
    if media_type == RAW_TYPE or media_type in _OTHER_RAW_TYPES or media_type.startswith("image/"):
        return RAW_TYPE
    if media_type in (_MULTIPART, _JSON, FORM_TYPE):
        return media_type
    allowed = ", ".join((*RAW_TYPES, _MULTIPART, _JSON))
    raise UnsupportedMedia(f"content type {media_type[:64]!r} is not taken; allowed are: {allowed}")


async def images_from(body: bytes, media_type: str, content_type: bytes | None, max_images: int) -> GivenImages:
    """The images of a request, in order, at least one. Raises BadRequest or one of its kind."""
    if media_type == _JSON:
        is_small = len(body) <= _INLINE_BYTES
        given = _from_json(body, max_images) if is_small else await asyncio.to_thread(_from_json, body, max_images)
    elif media_type == _MULTIPART:
        given = await _from_multipart(body, content_type or b"", max_images)
    else:
        if media_type == FORM_TYPE:
            _ensure_binary(body)
        return GivenImages([body], NOTHING_GIVEN)
    if not given.images:
        raise BadRequest("the request holds no image")
    return given


def _ensure_binary(body: bytes) -> None:
    """Raises BadRequest for what curl's -d makes: text, or an image without its NULs and line ends."""
    if not body or b"\x00" in body:  # every image file has some
        return
    if body.lstrip()[:1] in (b"{", b"["):
        hint = "the body looks like JSON: add -H 'Content-Type: application/json'"
    elif body.startswith(_IMAGE_STARTS):
        hint = "the body is an image without its line ends: send it with --data-binary @FILE instead of -d"
    else:
        hint = "send an image with --data-binary @FILE or -F image=@FILE, and JSON as application/json"
    raise BadRequest(f"the body is text, as curl's -d makes it, or its file is no picture; {hint}")


def _from_json(body: bytes, max_images: int) -> GivenImages:
    ensure_few_entries(body, max_images)
    try:
        parsed = _json_decoder.decode(body.removeprefix(_BYTE_ORDER_MARK))
    except msgspec.ValidationError as error:
        raise BadRequest(f"the JSON body is not as expected: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    ensure_count(len(parsed.images), max_images)
    images = [_image_from_entry(entry, index) for index, entry in enumerate(parsed.images)]
    return GivenImages(images, parse_given(parsed.parameters, is_text=False))


def _image_from_entry(entry: _ImageEntry, index: int) -> bytes | BadRequest:
    if entry.url is not None:
        return BadParameter(f"images[{index}].url: this server does not fetch images; send them as b64")
    if entry.b64 is None:
        return BadRequest(f"images[{index}] has no b64")
    try:
        return from_base64(entry.b64)
    except ValueError as error:  # binascii.Error is one
        return BadRequest(f"images[{index}].b64 is not base64: {error}")


def from_base64(text: str) -> bytes:
    """Also wrapped, URL-safe, unpadded, and as a data URI. Raises ValueError."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        if text[:5].lower() == "data:":
            head, comma, text = text.partition(",")
            if not comma or not head.lower().endswith(";base64"):
                raise ValueError("a data URI that is not base64") from None
        bare = text.translate(_TO_PLAIN_BASE64).rstrip("=")
        return binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)


async def _from_multipart(body: bytes, content_type: bytes, max_images: int) -> GivenImages:
    images, fields = await parts_of(body, content_type, max_images)
    return GivenImages([*images], parse_given(fields, is_text=True))
