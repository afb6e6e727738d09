"""Malformed requests of the Open Inference Protocol: each is refused, and the connection goes on."""

from __future__ import annotations

import http.client
import json
from typing import Any

import pytest

from tests.support.images import scene_jpeg
from tests.support.oip_requests import (
    IMAGE_BYTES,
    INFER,
    LENGTH,
    binary_body,
    infer,
    pixel_input,
    pixels,
    reds_of,
)
from tests.support.server import Server
from tests.support.versions import SIDE

# Malformed bodies

ONE = pixels(1)
GOOD = {"inputs": [pixel_input(ONE)]}
MALFORMED: dict[str, tuple[dict[str, Any] | bytes, bytes, str]] = {
    "no JSON": (b"{", b"", "failed to parse"),
    "no object": (b"[]", b"", "not as expected"),
    "no inputs": ({}, b"", "inputs"),
    "empty inputs": ({"inputs": []}, b"", "expected 1 inputs but got 0"),
    "unknown input": ({"inputs": [pixel_input(ONE, name="x")]}, ONE.tobytes(), "unexpected inference input 'x'"),
    "duplicate inputs": ({"inputs": [pixel_input(ONE)] * 2}, ONE.tobytes() * 2, "more than once"),
    "an input too many": ({"inputs": [pixel_input(ONE), pixel_input(ONE, name="x")]}, ONE.tobytes() * 2, "'x'"),
    "wrong datatype": ({"inputs": [pixel_input(ONE, datatype="FP32")]}, ONE.tobytes(), "data-type is 'FP32'"),
    "no batch": ({"inputs": [pixel_input(ONE, shape=[SIDE, SIDE, 3])]}, ONE.tobytes(), "unexpected shape"),
    "wrong shape": ({"inputs": [pixel_input(ONE, shape=[1, 3, SIDE, SIDE])]}, ONE.tobytes(), "unexpected shape"),
    "empty shape": ({"inputs": [pixel_input(ONE, shape=[])]}, ONE.tobytes(), "unexpected shape"),
    "negative shape": ({"inputs": [pixel_input(ONE, shape=[-1, SIDE, SIDE, 3])]}, ONE.tobytes(), "unexpected shape"),
    "zero images": ({"inputs": [pixel_input(ONE, shape=[0, SIDE, SIDE, 3])]}, b"", "unexpected shape"),
    "a billion images": ({"inputs": [pixel_input(ONE, shape=[10**9, SIDE, SIDE, 3], parameters={})]}, b"", "<= 16"),
    "huge shape": ({"inputs": [pixel_input(ONE, shape=[10**30, 10**30])]}, b"", "unexpected shape"),
    "text in shape": ({"inputs": [pixel_input(ONE, shape=["a"])]}, b"", "shape"),
    "too few bytes": (GOOD, ONE.tobytes()[:-5], "expecting 5 additional bytes"),
    "too many bytes": (GOOD, ONE.tobytes() + b"x", "unexpected additional input data"),
    "wrong size": ({"inputs": [pixel_input(ONE, parameters={"binary_data_size": 7})]}, b"1234567", "total byte size 7"),
    "negative size": ({"inputs": [pixel_input(ONE, parameters={"binary_data_size": -1})]}, b"", "at least 0"),
    "size is a text": ({"inputs": [pixel_input(ONE, parameters={"binary_data_size": "9"})]}, b"", "whole number"),
    "no data": ({"inputs": [pixel_input(ONE, parameters={})]}, b"", "neither data"),
    "both data": ({"inputs": [pixel_input(ONE, data=[1])]}, ONE.tobytes(), "both data"),
    "too few numbers": ({"inputs": [pixel_input(ONE, parameters={}, data=[1, 2])]}, b"", f"{IMAGE_BYTES} whole"),
    "number too large": ({"inputs": [pixel_input(ONE, parameters={}, data=[256] * IMAGE_BYTES)]}, b"", "0 to 255"),
    "negative number": ({"inputs": [pixel_input(ONE, parameters={}, data=[-1] * IMAGE_BYTES)]}, b"", "0 to 255"),
    "fractions": ({"inputs": [pixel_input(ONE, parameters={}, data=[0.5] * IMAGE_BYTES)]}, b"", "0 to 255"),
    "data is an object": ({"inputs": [pixel_input(ONE, parameters={}, data={})]}, b"", "0 to 255"),
    "unknown output": ({**GOOD, "outputs": [{"name": "x"}]}, ONE.tobytes(), "unexpected inference output 'x'"),
    "duplicate output": ({**GOOD, "outputs": [{"name": "scores"}] * 2}, ONE.tobytes(), "more than once"),
    "classes of ids": (
        {**GOOD, "outputs": [{"name": "class_ids", "parameters": {"classification": 2}}]},
        ONE.tobytes(),
        "only a classifier's 'scores'",
    ),
    "shared memory": (
        {"inputs": [pixel_input(ONE, parameters={"shared_memory_region": "r", "shared_memory_byte_size": 1})]},
        b"",
        "shared memory",
    ),
    "sequence": ({**GOOD, "parameters": {"sequence_id": 1}}, ONE.tobytes(), "sequences are not supported"),
    "negative timeout": ({**GOOD, "parameters": {"timeout": -1}}, ONE.tobytes(), "timeout"),
    "reserved": ({**GOOD, "parameters": {"triton_x": 1}}, ONE.tobytes(), "reserved"),
    "timeout beyond the limit": ({**GOOD, "parameters": {"timeout": 10**12}}, ONE.tobytes(), "deadline_ms"),
    "element longer than the body": (
        {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 8}}]},
        b"\xff\xff\xff\xffabcd",
        "does not hold 1 elements",
    ),
    "BYTES that are no base64": (
        {"inputs": [{"name": "images", "datatype": "BYTES", "shape": [1], "data": ["#"]}]},
        b"",
        "base64",
    ),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_request_is_invalid_and_the_connection_goes_on(server: Server, kind: str) -> None:
    document, tensors, words = MALFORMED[kind]
    header = document if isinstance(document, bytes) else json.dumps(document).encode()

    response = infer(server, header + tensors, {LENGTH: str(len(header))})

    assert (response.status_code, list(response.json())) == (400, ["error"])
    assert words in response.json()["error"]
    assert "connection" not in response.headers
    assert reds_of(infer(server, *binary_body(GOOD, ONE.tobytes()))) == [1]


@pytest.mark.parametrize("length", ["-1", "1000000", "abc", "", "9" * 40, "1.5"])
def test_header_length_beyond_the_body_is_invalid(server: Server, length: str) -> None:
    response = infer(server, binary_body(GOOD, ONE.tobytes())[0], {LENGTH: length})

    assert response.status_code == 400
    assert "between 0 and" in response.json()["error"]


def test_body_over_the_limit_is_refused_before_it_is_read(server: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    connection.putrequest("POST", INFER)
    connection.putheader("Content-Length", str(10**9))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    assert "SACCADE_MAX_BODY_BYTES" in json.loads(response.read())["error"]
    connection.close()


def test_jpeg_by_plain_curl_is_answered(server: Server) -> None:
    form = {LENGTH: "0", "Content-Type": "application/x-www-form-urlencoded"}  # as curl --data-binary sends it
    assert infer(server, scene_jpeg(), form).status_code == 200
