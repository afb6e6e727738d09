"""How a JPEG travels to each server and its answer back. Promises: pure; the same bytes of image whatever is around."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from saccade.service.bench.workload import Endpoint, Item, Workload

_BOUNDARY = "peers-7c0f8e1b5d"


class Wire(StrEnum):
    """What a server's clients speak."""

    SACCADE = "saccade"  # the image is the body
    RAW = "raw"  # the same, answered with the classes alone
    BENTOML = "bentoml"  # a form whose field is a list of files
    TRITON = "triton"  # the inference protocol's binary extension


@dataclass(frozen=True, slots=True)
class Request:
    path: str
    headers: tuple[tuple[str, str], ...]
    content: bytes


@dataclass(frozen=True, slots=True)
class Class:
    """One of a server's best classes."""

    class_id: int
    score: float


class WrongAnswer(Exception):
    """A server does not answer as the ONNX file does; the message says where."""


def request_of(wire: Wire, model: str, jpeg: bytes, deadline_ms: float | None = None) -> Request:
    """`deadline_ms` is for servers that know deadlines; others ignore it."""
    match wire:
        case Wire.SACCADE:
            query = "" if deadline_ms is None else f"?deadline_ms={deadline_ms:g}"
            return Request(f"/v1/models/{model}/predict{query}", (("Content-Type", "image/jpeg"),), jpeg)
        case Wire.RAW:
            return Request("/classify", (("Content-Type", "image/jpeg"),), jpeg)
        case Wire.BENTOML:
            head = (
                f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="image.jpg"\r\n'
                "Content-Type: image/jpeg\r\n\r\n"
            )
            content = head.encode() + jpeg + f"\r\n--{_BOUNDARY}--\r\n".encode()
            return Request("/classify", (("Content-Type", f"multipart/form-data; boundary={_BOUNDARY}"),), content)
        case Wire.TRITON:
            return _triton_request(jpeg)


def _triton_request(jpeg: bytes) -> Request:
    tensor = len(jpeg).to_bytes(4, "little") + jpeg  # a string of bytes goes behind its length
    shown: dict[str, Any] = {"name": "image", "shape": [1, 1], "datatype": "BYTES"}
    shown["parameters"] = {"binary_data_size": len(tensor)}
    head = json.dumps({"inputs": [shown], "outputs": [{"name": "answer"}]}).encode()
    headers = (("Content-Type", "application/octet-stream"), ("Inference-Header-Content-Length", str(len(head))))
    return Request("/v2/models/classify/infer", headers, head + tensor)


def classes_of(wire: Wire, body: bytes) -> tuple[Class, ...]:
    """The best classes of an answer. Raises WrongAnswer for a document of another form."""
    try:
        document: Any = json.loads(body)
        match wire:
            case Wire.SACCADE:
                document = document["predictions"][0]
            case Wire.BENTOML:
                document = document[0]
            case Wire.TRITON:
                document = json.loads(document["outputs"][0]["data"][0])
            case Wire.RAW:
                pass
        return tuple(Class(int(each["class_id"]), float(each["score"])) for each in document["classes"])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WrongAnswer(f"not an answer of {wire}: {body[:200]!r} ({error!r})") from error


@dataclass(frozen=True, slots=True)
class Served:
    variant: str
    runtime: str

    def __str__(self) -> str:
        return f"{self.variant} in {self.runtime}"


def served_by(body: bytes, allowed: Collection[str]) -> Served:
    """What saccade's entry for a model says. Raises WrongAnswer unless it is one allowed variant everywhere."""
    try:
        versions = json.loads(body)["versions"]
        instances = [each for version in versions for each in version["instances"] if each["variant"]]
        found = {Served(each["variant"], each["backend"]) for each in instances}
    except (ValueError, KeyError, TypeError) as error:
        raise WrongAnswer(f"not a model of saccade: {body[:200]!r} ({error!r})") from error
    if len(found) != 1 or any(each.variant not in allowed for each in found):
        names = ", ".join(sorted(map(str, found))) or "nothing"
        raise WrongAnswer(f"serves {names}; the network of the peers is {', '.join(allowed)}")
    return found.pop()


def ensure_same(expected: Sequence[Class], got: Sequence[Class], tolerance: float) -> None:
    """Raises WrongAnswer. Classes whose scores are within `tolerance` of each other may change places."""
    if len(got) != len(expected):
        raise WrongAnswer(f"{len(got)} classes, expected {len(expected)}")
    score_by_id = {each.class_id: each.score for each in expected}
    for place, (mine, theirs) in enumerate(zip(expected, got, strict=True), 1):
        known = score_by_id.get(theirs.class_id)
        if known is None and theirs.score > expected[-1].score + tolerance:
            raise WrongAnswer(f"class {theirs.class_id} with {theirs.score:.6f} is none of the best {len(expected)}")
        if known is not None and abs(known - theirs.score) > tolerance:
            raise WrongAnswer(f"class {theirs.class_id} has {theirs.score:.6f}, expected {known:.6f}")
        if abs(mine.score - theirs.score) > tolerance:
            raise WrongAnswer(f"place {place} has {theirs.score:.6f}, expected {mine.score:.6f}")


def workload_of(requests: Sequence[Request], model: str, endpoint: Endpoint) -> Workload:
    """For the load client of `saccade bench`."""
    return Workload(tuple(_item(each, index, model, endpoint) for index, each in enumerate(requests)), {model: 1.0})


def _item(request: Request, index: int, model: str, endpoint: Endpoint) -> Item:
    fields: Mapping[str, str] = {
        "Host": endpoint.authority,
        **dict(request.headers),
        "Content-Length": str(len(request.content)),
    }
    lines = [f"POST {request.path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return Item(model, f"{index:02d}.jpg", ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), request.content)
