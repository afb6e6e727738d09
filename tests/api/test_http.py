"""HTTP as real clients speak it: content types, encodings, methods, paths, proxies and other origins."""

from __future__ import annotations

import base64
import gzip
import http.client
import importlib.util
import json
import re
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.images import encoded, image_of, png_bomb, red_of, red_png, scene_jpeg
from tests.support.problems import is_problem
from tests.support.server import Server, running_server, wait_until

PREDICT = "/v1/models/classifier/predict"
IMAGE = red_png(77)


def answered_red(response: httpx.Response) -> int:
    assert response.status_code == 200, response.text
    return red_of(response.json()["predictions"][0])


# Types: the bytes decide


@pytest.mark.parametrize(
    "content_type",
    ["image/jpg", "image/pjpeg", "image/x-png", "image/gif", "binary/octet-stream", "IMAGE/PNG; q=1", "image/*", ""],
)
def test_bytes_decide_what_an_image_is(server: Server, content_type: str) -> None:
    assert answered_red(server.predict("classifier", IMAGE, headers={"Content-Type": content_type})) == 77


def test_image_without_a_type_is_taken(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.request("POST", PREDICT, IMAGE)  # this client adds no type
    assert connection.getresponse().status == 200
    connection.close()


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def test_curls_data_binary_is_an_image(server: Server) -> None:
    assert answered_red(server.predict("classifier", IMAGE, headers=FORM)) == 77


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"images": []}', "-H 'Content-Type: application/json'"),
        (b' [{"b64": ""}]', "-H 'Content-Type: application/json'"),
        (scene_jpeg().translate(None, b"\r\n\0"), "--data-binary @FILE instead of -d"),
        (IMAGE.translate(None, b"\r\n\0"), "--data-binary @FILE instead of -d"),
        (b"image=@photo.jpg", "-F image=@FILE"),
    ],
)
def test_what_curls_d_makes_of_a_body_gets_the_right_flag(server: Server, body: bytes, words: str) -> None:
    assert words in is_problem(server.predict("classifier", body, headers=FORM), 400)["detail"]


# Multipart and JSON


@pytest.mark.parametrize("name", ["image", "file"])
@pytest.mark.parametrize("filename", ["; filename=a.png", "", '; filename=""'])
def test_part_is_an_image_by_its_name(server: Server, name: str, filename: str) -> None:
    head = f'--x\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'.encode()
    tail = b'\r\n--x\r\nContent-Disposition: form-data; name="top_k"\r\n\r\n2\r\n--x--\r\n'

    response = server.predict(
        "classifier", head + IMAGE + tail, headers={"Content-Type": "multipart/form-data; boundary=x"}
    )

    assert answered_red(response) == 77
    assert len(response.json()["predictions"][0]["classes"]) == 2


def test_multipart_of_ten_thousand_parts_is_refused_and_the_connection_goes_on(server: Server) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\na\r\n'
    body = part * 10_000 + b"--x--\r\n"

    response = server.predict("classifier", body, headers={"Content-Type": "multipart/form-data; boundary=x"})

    assert "SACCADE_MAX_IMAGES_PER_REQUEST" in is_problem(response, 422)["detail"]
    assert answered_red(server.predict("classifier", IMAGE)) == 77


_TEXT = base64.b64encode(IMAGE).decode()
BASE64 = {
    "plain": _TEXT,
    "unpadded": _TEXT.rstrip("="),
    "wrapped": "\r\n".join(_TEXT[start : start + 76] for start in range(0, len(_TEXT), 76)) + "\n",
    "URL-safe": base64.urlsafe_b64encode(IMAGE).decode(),
    "URL-safe, unpadded": base64.urlsafe_b64encode(IMAGE).decode().rstrip("="),
    "data URI": "data:image/png;base64," + _TEXT,
    "data URI in capitals": "DATA:image/png;BASE64," + _TEXT,
    "data URI with a parameter": "data:image/png;charset=utf-8;base64," + _TEXT,
}


@pytest.mark.parametrize("kind", BASE64)
def test_base64_is_taken_as_clients_write_it(server: Server, kind: str) -> None:
    assert answered_red(server.client.post(PREDICT, json={"images": [{"b64": BASE64[kind]}]})) == 77


def test_json_may_begin_with_a_byte_order_mark(server: Server) -> None:
    body = b"\xef\xbb\xbf" + json.dumps({"images": [{"b64": _TEXT}]}).encode()

    assert answered_red(server.predict("classifier", body, headers={"Content-Type": "application/json"})) == 77


# Content encodings


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


def brotli_compress(content: bytes) -> bytes:
    import brotli

    compressed: bytes = brotli.compress(content)
    return compressed


def gzip_members(content: bytes) -> bytes:
    """As `cat a.gz b.gz` and bgzip make it, an empty member last."""
    parts = (content[:1000], content[1000:], b"")
    return b"".join(gzip.compress(part) for part in parts)


needs_brotli = pytest.mark.skipif(importlib.util.find_spec("brotli") is None, reason="brotli is not installed")
COMPRESSIONS = [
    pytest.param("gzip", gzip.compress, id="gzip"),
    pytest.param("x-gzip", gzip.compress, id="x-gzip"),
    pytest.param("deflate", zlib.compress, id="deflate"),
    pytest.param("deflate", raw_deflate, id="raw deflate"),
    pytest.param("br", brotli_compress, id="br", marks=needs_brotli),
    pytest.param("identity", bytes, id="identity"),
    pytest.param("gzip", gzip_members, id="gzip members"),
]


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSIONS)
def test_compressed_body_is_read(server: Server, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    noise = encoded(image_of((77, 3, 200), 700, 700), "BMP")  # 1.5 MB, several steps
    response = server.predict("classifier", compress(noise), headers={"Content-Encoding": encoding})
    assert answered_red(response) == 77


def test_compressed_json_is_read(server: Server) -> None:
    body = gzip.compress(json.dumps({"images": [{"b64": _TEXT}]}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "GZIP"}
    assert answered_red(server.predict("classifier", body, headers=headers)) == 77


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSIONS[:5])
def test_bomb_is_refused_at_the_limit_after_decompression(
    server: Server, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    bomb = compress(bytes(200_000_000))
    assert len(bomb) < 300_000

    response = server.predict("classifier", bomb, headers={"Content-Encoding": encoding})

    assert "SACCADE_MAX_BODY_BYTES" in is_problem(response, 413)["detail"]


@pytest.mark.parametrize(("encoding", "compress"), COMPRESSIONS[:5])
@pytest.mark.parametrize("damage", ["cut off", "no such format"])
def test_damaged_compression_is_a_problem(
    server: Server, encoding: str, compress: Callable[[bytes], bytes], damage: str
) -> None:
    body = compress(IMAGE)[:-9] if damage == "cut off" else b"\x07this is not compressed at all"
    response = server.predict("classifier", body, headers={"Content-Encoding": encoding})
    is_problem(response, 400)
    assert answered_red(server.predict("classifier", IMAGE)) == 77


@pytest.mark.parametrize("encoding", ["zstd", "compress", "gzip, br"])
def test_other_encodings_are_refused_with_those_allowed(server: Server, encoding: str) -> None:
    response = server.predict("classifier", IMAGE, headers={"Content-Encoding": encoding})

    assert "gzip" in is_problem(response, 415)["detail"]
    assert response.headers["accept-encoding"] == "gzip, deflate, br"


def test_two_lines_of_content_encoding_are_not_taken_for_one(server: Server) -> None:
    headers = [("Content-Encoding", "gzip"), ("Content-Encoding", "gzip")]
    response = server.client.post(PREDICT, content=gzip.compress(IMAGE), headers=headers)

    assert "several content encodings, 'gzip, gzip'" in is_problem(response, 415)["detail"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (gzip.compress(IMAGE) + gzip.compress(bytes(60_000_000)), 413),
        (gzip.compress(IMAGE) + gzip.compress(b"more")[:-3], 400),
        (gzip.compress(b"") * 5000 + gzip.compress(IMAGE), 400),
    ],
)
def test_members_of_gzip_are_held_to_what_a_body_is_held_to(server: Server, body: bytes, status: int) -> None:
    is_problem(server.predict("classifier", body, headers={"Content-Encoding": "gzip"}), status)


# Methods and paths

GET_PATHS = ["/", "/health/live", "/health/ready", "/health/startup", "/metrics", "/v1/models", "/v1/models/classifier"]


@pytest.mark.parametrize("path", [*GET_PATHS, "/docs", "/openapi.json"])
def test_head_is_get_without_its_body(server: Server, path: str) -> None:
    head, got = server.client.head(path), server.client.get(path)

    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    assert got.content


@pytest.mark.parametrize("path", ["/nothing", "/v1/models/nobody", PREDICT])
def test_head_of_what_cannot_be_got_is_the_same_refusal(server: Server, path: str) -> None:
    assert server.client.head(path).status_code == server.client.get(path).status_code >= 400


@pytest.mark.parametrize(
    ("path", "methods"),
    [(path, "GET, HEAD, OPTIONS") for path in GET_PATHS]
    + [(path, "OPTIONS, POST") for path in (PREDICT, "/v2/repository/index")],
)
def test_options_name_the_methods_of_a_path(server: Server, path: str, methods: str) -> None:
    response = server.client.options(path)

    assert (response.status_code, response.headers["allow"]) == (204, methods)


def test_options_of_nothing_is_not_found(server: Server) -> None:
    is_problem(server.client.options("/nothing"), 404)


@pytest.mark.parametrize("path", [path + "/" for path in GET_PATHS if path != "/"])
def test_trailing_slash_answers(server: Server, path: str) -> None:
    assert server.client.get(path).status_code == 200


def test_predict_with_a_trailing_slash_answers(server: Server) -> None:
    assert answered_red(server.client.post(PREDICT + "/", content=IMAGE)) == 77


# Behind a proxy


@pytest.fixture(scope="module")
def proxied(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(
        repository,
        tmp_path_factory.mktemp("proxied"),
        root_path="/vision",
        cors_origins="https://app.example",
        forwarded_allow_ips="127.0.0.1",
    ) as running:
        yield running


@pytest.mark.parametrize("prefix", ["", "/vision"])
def test_prefix_may_be_stripped_or_passed_on(proxied: Server, prefix: str) -> None:
    assert answered_red(proxied.client.post(prefix + PREDICT, content=IMAGE)) == 77
    assert [proxied.client.get(prefix + path).status_code for path in GET_PATHS] == [200] * len(GET_PATHS)
    assert proxied.client.get(prefix + "/v1/models/classifier/").status_code == 200


def test_prefix_counts_once(proxied: Server) -> None:
    is_problem(proxied.client.get("/vision/vision/v1/models"), 404)
    is_problem(proxied.client.get("/visionary/v1/models"), 404)


def test_pages_find_everything_below_the_prefix(proxied: Server) -> None:
    assert proxied.client.get("/vision").headers["location"] == "/vision/"
    page = proxied.client.get("/vision/").text
    assert "playground/playground.js" in page
    assert not re.findall(r'(?:href|src)="/', page)
    document = proxied.client.get("/vision/openapi.json").json()
    assert document["servers"] == [{"url": "/vision"}]


def test_page_of_an_allowed_origin_may_ask(proxied: Server) -> None:
    origin = {"Origin": "https://app.example"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}

    preflight = proxied.client.options(PREDICT, headers=asked)
    answer = proxied.client.post(PREDICT, content=IMAGE, headers=origin)

    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == "https://app.example"
    assert answered_red(answer) == 77
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "X-Request-Id" in answer.headers["access-control-expose-headers"]


def test_page_of_another_origin_may_not(proxied: Server, server: Server) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}

    assert "access-control-allow-origin" not in proxied.client.options(PREDICT, headers=headers).headers
    assert "access-control-allow-origin" not in server.client.options(PREDICT, headers=headers).headers


# Draining


def test_every_answer_closes_its_connection_while_draining(repository: Path, tmp_path: Path) -> None:
    with running_server(repository, tmp_path, drain_delay_ms=2500) as server:
        assert "connection" not in server.client.get("/health/ready").headers
        server.terminate()
        wait_until(lambda: server.readiness().status_code == 503, what="not ready")

        answers = [server.predict("classifier", IMAGE), server.client.get("/v1/models"), server.client.head("/metrics")]

        assert [answer.status_code for answer in answers] == [200, 200, 200]
        assert [answer.headers["connection"] for answer in answers] == ["close"] * 3


def test_connection_is_usable_after_each_refusal(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.connect()
    before = connection.sock
    for body, headers, status in (
        (gzip.compress(bytes(60_000_000)), {"Content-Encoding": "gzip"}, 413),
        (bytes(60_000_000), {}, 413),
        (b'{"images": [{"b64": "' + bytes(60_000_000) + b'"}]}', {"Content-Type": "application/json"}, 413),
        (IMAGE, {"Content-Encoding": "zstd"}, 415),
        (b"{}", FORM, 400),
        (png_bomb(60_000, 60_000), {}, 422),
        (IMAGE, {}, 200),
    ):
        connection.request("POST", PREDICT, body, headers)
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert connection.sock is before
    connection.close()


def test_head_answer_leaves_the_connection_in_step(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.connect()
    before = connection.sock
    bodies = []
    for method in ("HEAD", "GET"):
        connection.request(method, "/health/live")
        response = connection.getresponse()
        assert response.status == 200
        bodies.append(response.read())
    assert connection.sock is before
    assert bodies[0] == b""
    assert json.loads(bodies[1])["status"] == "ok"
    connection.close()
