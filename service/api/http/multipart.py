"""Images and parameters out of a multipart body. Promises: parts are counted while they come; no temporary files."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from saccade.service.errors import BadParameter, BadRequest, Unprocessable
from saccade.service.vision.parameters import GivenParameters

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks  # it is there for type checkers only

IMAGE_NAMES = (b"image", b"file")
_MAX_FIELDS = len(GivenParameters.__struct_fields__)
_MAX_FIELD_BYTES = 4096  # of a parameter's value
_STEP_BYTES = 256 * 1024  # parsed in under a millisecond


def ensure_count(count: int, max_images: int) -> None:
    """Raises Unprocessable for too many images in one request."""
    if count > max_images:
        raise Unprocessable(
            f"{count} images in one request, at most {max_images} are allowed: send several requests, or raise "
            "SACCADE_MAX_IMAGES_PER_REQUEST"
        )


async def parts_of(body: bytes, content_type: bytes, max_images: int) -> tuple[list[bytes], dict[str, str]]:
    """Images in order, and fields by name. Raises BadRequest or one of its kind."""
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BadRequest("multipart/form-data without a boundary")
    if b"--" + boundary + b"--" not in body:  # the parser would drop the unfinished part without a word
        raise BadRequest("the multipart body is damaged: it ends before its closing boundary")
    parts = _Parts(max_images)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        for start in range(_preamble_bytes(body, boundary), len(body), _STEP_BYTES):
            parser.write(body[start : start + _STEP_BYTES])
            await asyncio.sleep(0)  # other requests get their turn while a large body is parsed
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"the multipart body is damaged: {error}") from error
    return parts.images, parts.fields


def _preamble_bytes(body: bytes, boundary: bytes) -> int:
    """How much comes before the first boundary; RFC 2046 has it ignored."""
    delimiter = b"--" + boundary
    if body.startswith((delimiter + b"\r\n", delimiter + b"--")):
        return 0
    return body.find(b"\n" + delimiter + b"\r\n") + 1  # 0 without one, which the parser refuses


class _Parts:
    """What the parser has found so far. A part named `image` or `file` is an image, with a file name or without."""

    def __init__(self, max_images: int) -> None:
        self.images: list[bytes] = []
        self.fields: dict[str, str] = {}
        self._max_images = max_images
        self._header_name = self._header_value = self._disposition = b""
        self._name = b""
        self._content: list[bytes] = []
        self._size = 0

    def callbacks(self) -> MultipartCallbacks:
        """As the parser wants them."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_to_header_name,
            "on_header_value": self._add_to_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_content,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._header_name = self._header_value = self._disposition = b""
        self._content, self._size = [], 0

    def _add_to_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _add_to_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _end_header(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _end_headers(self) -> None:
        options = parse_options_header(self._disposition)[1]
        if b"name" not in options:
            raise BadRequest("the multipart body is damaged: a part has no name")
        self._name = options[b"name"]
        shown = self._name[:64].decode("utf-8", "replace")
        if self._name in IMAGE_NAMES:
            ensure_count(len(self.images) + 1, self._max_images)
        elif b"filename" in options:
            raise BadRequest(f"file field {shown!r} is not taken; name it 'image'")
        elif shown in self.fields:
            raise BadParameter(f"field {shown!r} appears twice")
        elif len(self.fields) == _MAX_FIELDS:
            raise BadRequest(f"the multipart body has more than {_MAX_FIELDS} fields")

    def _add_content(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        if self._name not in IMAGE_NAMES and self._size > _MAX_FIELD_BYTES:
            raise BadParameter(f"a field has more than {_MAX_FIELD_BYTES:,} bytes; send an image as 'image'")
        self._content.append(data[start:end])

    def _end(self) -> None:
        content = b"".join(self._content)
        if self._name in IMAGE_NAMES:
            self.images.append(content)
            return
        try:
            self.fields[self._name.decode()] = content.decode()
        except UnicodeDecodeError as error:
            raise BadParameter("a field is not UTF-8; send an image as 'image'") from error
