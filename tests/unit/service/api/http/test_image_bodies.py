"""Images out of a body: raw, multipart, JSON; one bad image is its own error, a bad body is everybody's."""

from __future__ import annotations

import base64
from typing import Any

import httpx
import orjson
import pytest

from saccade.service.api.http.image_bodies import (
    FORM_TYPE,
    RAW_TYPE,
    RAW_TYPES,
    GivenImages,
    images_from,
    media_type_of,
)
from saccade.service.errors import BadParameter, BadRequest, SaccadeError, Unprocessable, UnsupportedMedia
from saccade.service.vision.parameters import GivenParameters


def b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


async def from_json(document: Any, max_images: int = 3) -> GivenImages:
    body = document if isinstance(document, bytes) else orjson.dumps(document)
    return await images_from(body, "application/json", b"application/json", max_images)


async def from_multipart(parts: list[tuple[str, Any]], max_images: int = 3) -> GivenImages:
    """`parts` as httpx encodes them, so that a real client's bytes are read."""
    request = httpx.Request("POST", "http://test", files=parts)
    content_type = request.headers["content-type"].encode()
    return await images_from(request.read(), "multipart/form-data", content_type, max_images)


# Content types


@pytest.mark.parametrize("media_type", ["application/json", "multipart/form-data", FORM_TYPE])
def test_allowed_types_are_taken_whatever_their_case_and_parameters(media_type: str) -> None:
    assert media_type_of(f"{media_type.upper()} ; charset=x".encode()) == media_type


@pytest.mark.parametrize("media_type", [*RAW_TYPES, "image/jpg", "image/*", "binary/octet-stream"])
def test_any_image_type_is_raw_bytes(media_type: str) -> None:
    assert media_type_of(media_type.encode()) == media_type_of(f"{media_type.upper()};q=1".encode()) == RAW_TYPE


@pytest.mark.parametrize("content_type", [None, b""])
def test_client_that_did_not_say_sends_raw_bytes(content_type: bytes | None) -> None:
    assert media_type_of(content_type) == RAW_TYPE


@pytest.mark.parametrize("content_type", [b"video/mp4", b"text/plain", b"\xff\xfe"])
def test_other_types_are_refused_with_those_allowed(content_type: bytes) -> None:
    with pytest.raises(UnsupportedMedia, match=r"allowed are: image/jpeg, .*application/json"):
        media_type_of(content_type)


# Raw


async def test_raw_body_is_one_image() -> None:
    assert await images_from(b"jpeg", "image/jpeg", b"image/jpeg", 1) == GivenImages([b"jpeg"], GivenParameters())


# JSON


async def test_json_images_come_in_order_with_parameters() -> None:
    given = await from_json({"images": [b64(b"one"), b64(b"two")], "parameters": {"top_k": 2}})

    assert given == GivenImages([b"one", b"two"], GivenParameters(top_k=2))


@pytest.mark.parametrize("text", ["####", "a", "YQ==YQ==", "ü", "a" * 5, "data:image/png,YWJj", "data:;base64"])
async def test_bad_base64_fails_its_own_image_only(text: str) -> None:
    given = await from_json({"images": [b64(b"one"), {"b64": text}, b64(b"three")]})

    assert given.images[0] == b"one"
    assert given.images[2] == b"three"
    assert isinstance(given.images[1], BadRequest)
    assert "images[1].b64 is not base64" in str(given.images[1])


async def test_entry_without_an_image_fails_alone() -> None:
    given = await from_json({"images": [{}, b64(b"two")]})

    assert str(given.images[0]) == "images[0] has no b64"
    assert given.images[1] == b"two"


async def test_url_is_refused_with_what_to_do() -> None:
    given = await from_json({"images": [{"url": "http://169.254.169.254/"}]})

    assert isinstance(given.images[0], BadParameter)
    assert "does not fetch images; send them as b64" in str(given.images[0])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "the body is not JSON"),
        (b"{", "the body is not JSON"),
        (b'{"images": [{"b64": "\xff"}]}', "the body is not JSON|not as expected"),
        ([], "not as expected: Expected `object`"),
        ({}, "missing required field `images`"),
        ({"images": "x"}, r"Expected `array`.*\$\.images"),
        ({"images": [1]}, r"\$\.images\[0\]"),
        ({"images": [{"b64": 3}]}, r"\$\.images\[0\]\.b64"),
        ({"images": [{"base64": ""}]}, "unknown field `base64`"),
        ({"images": [], "image": []}, "unknown field `image`"),
        ({"images": []}, "the request holds no image"),
        (b"[" * 5000, "not JSON|not as expected"),
        (b'{"images": ' + b"[" * 5000, "not JSON|not as expected"),
        (b'{"images": [], "parameters": {"a": ' + b"[" * 5000, "not JSON|not as expected"),
    ],
)
async def test_json_that_is_not_as_expected_is_refused_with_the_place(document: Any, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        await from_json(document)


async def test_unknown_parameter_in_the_body_is_refused() -> None:
    with pytest.raises(BadParameter, match="unknown parameter 'k'"):
        await from_json({"images": [b64(b"one")], "parameters": {"k": 2}})


async def test_too_many_json_images_are_refused_with_the_setting() -> None:
    with pytest.raises(Unprocessable, match=r"4 images in one request, at most 3 .*SACCADE_MAX_IMAGES_PER_REQUEST"):
        await from_json({"images": [b64(b"x")] * 4})


# Multipart


async def test_multipart_images_come_in_order_with_parameters() -> None:
    given = await from_multipart(
        [("image", ("a.jpg", b"one")), ("top_k", (None, b"2")), ("image", ("b.jpg", b"\r\n--two\r\n"))]
    )

    assert given == GivenImages([b"one", b"\r\n--two\r\n"], GivenParameters(top_k=2))


async def test_large_multipart_image_stays_in_memory_and_whole() -> None:
    content = bytes(range(256)) * 8192  # 2 MiB, beyond where Starlette would use a temporary file

    assert (await from_multipart([("image", ("a.jpg", content))])).images == [content]


async def test_file_under_another_name_is_refused_with_the_right_one() -> None:
    with pytest.raises(BadRequest, match="file field 'photo' is not taken; name it 'image'"):
        await from_multipart([("photo", ("a.jpg", b"one"))])


async def test_parts_are_images_by_name_with_or_without_a_file_name() -> None:
    given = await from_multipart(
        [("file", ("a.jpg", b"one")), ("image", (None, b"\xff\x00two")), ("top_k", (None, b"2"))]
    )

    assert given == GivenImages([b"one", b"\xff\x00two"], GivenParameters(top_k=2))


async def test_field_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadParameter, match="send an image as 'image'"):
        await from_multipart([("picture", (None, b"\xff\xd8\xff"))])


async def test_multipart_without_a_file_is_refused() -> None:
    with pytest.raises(BadRequest, match="the request holds no image"):
        await from_multipart([("top_k", (None, b"2"))])


@pytest.mark.parametrize("count", [4, 9])
async def test_too_many_files_are_refused_with_the_setting(count: int) -> None:
    with pytest.raises(Unprocessable, match=r"4 images in one request, at most 3 .*SACCADE_MAX_IMAGES_PER_REQUEST"):
        await from_multipart([("image", ("a.jpg", b"one"))] * count)


async def test_bad_parameter_field_is_refused() -> None:
    with pytest.raises(BadParameter, match="unknown parameter 'colour'"):
        await from_multipart([("image", ("a.jpg", b"one")), ("colour", (None, b"red"))])


@pytest.mark.parametrize(
    "preamble", [b"This is a message in MIME format.\r\n", b"--XY\r\n--X: no\r\n", b"\r\n", b"a" * 2**19 + b"\r\n"]
)
async def test_what_comes_before_the_first_boundary_is_ignored(preamble: bytes) -> None:
    part = b"--X\r\nContent-Disposition: form-data; name=image\r\n\r\none\r\n"
    body = preamble + part + part.replace(b"one", b"two") + b"--X--\r\n"
    given = await images_from(body, "multipart/form-data", b"multipart/form-data; boundary=X", 3)

    assert given.images == [b"one", b"two"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", b"multipart/form-data"),
        (b"only a preamble\r\n--X--\r\n", b"multipart/form-data; boundary=X"),
        (b"garbage", b"multipart/form-data; boundary=X"),
        (b"--X\r\nno colon\r\n\r\n", b"multipart/form-data; boundary=X"),
        (b"--X\r\nContent-Disposition: form-data\r\n\r\na\r\n--X--\r\n", b"multipart/form-data; boundary=X"),
        (
            b"--X\r\nContent-Disposition: form-data; name=image; filename=a\r\n\r\nabc",
            b"multipart/form-data; boundary=X",
        ),
        (b'--X\r\nContent-Disposition: form-data; name="v"\r\n\r\n' + b"x" * 2**21, b"multipart/form-data; boundary=X"),
    ],
)
async def test_damaged_multipart_is_a_bad_request_and_nothing_worse(body: bytes, content_type: bytes) -> None:
    with pytest.raises(SaccadeError) as caught:
        await images_from(body, "multipart/form-data", content_type, 3)
    assert isinstance(caught.value, BadRequest)
