"""gRPC calls as requests to the HTTP endpoints. Promises: one life of a request, whichever way it came.

Tensors travel as they came: raw contents are the binary data of the HTTP form, in both directions.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Never

import grpc
import numpy as np
import orjson
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Message

from saccade.service.api.grpc.messages import OIP_METHODS, OIP_SERVICE, message_class
from saccade.service.api.grpc.streams import stream_of_answers

Context = Any  # grpc.aio.ServicerContext, which is generic in ways that do not matter here
_LENGTH = b"inference-header-content-length"
_ASKS_FOR_FINAL, _IS_FINAL = "triton_enable_empty_final_response", "triton_final_response"
_PASSED_ON = frozenset({"authorization", "traceparent", "tracestate", "x-priority", "x-request-id", "x-routing-key"})
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}
# As model_config.proto numbers them.
_TYPE_NUMBERS = {"TYPE_UINT8": 2, "TYPE_INT32": 8, "TYPE_FP32": 11}
_NHWC = 1


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def document(self) -> Any:
        return orjson.loads(self.body)


class OipCalls:
    """The handlers of the protocol's methods."""

    def __init__(self, asgi: ASGIApp, max_deadline_s: float) -> None:
        self.stopping = asyncio.Event()  # ends streams, which clients leave open
        self._asgi = asgi
        self._max_deadline_s = max_deadline_s

    def handlers(self) -> Mapping[str, grpc.RpcMethodHandler]:
        """By name of the method."""
        ways: dict[str, Callable[[Any, Context], Awaitable[Any]]] = {
            "ServerLive": self._server_live,
            "ServerReady": self._server_ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server_metadata,
            "ModelMetadata": self._model_metadata,
            "ModelConfig": self._model_config,
            "ModelInfer": self._model_infer,
            "ModelStatistics": self._model_statistics,
            "RepositoryIndex": self._repository_index,
            "RepositoryModelLoad": self._load,
            "RepositoryModelUnload": self._unload,
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                _reading(f"{name}Request", ways[name]),
                response_serializer=message_class(f"{name}Response").SerializeToString,
            )
            for name in OIP_METHODS
        }
        handlers["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            partial(stream_of_answers, _reading("ModelInferRequest", self._model_infer), self.stopping),
            response_serializer=message_class("ModelStreamInferResponse").SerializeToString,
        )
        return handlers

    async def is_ready(self, context: Context) -> bool:
        return (await self._ask("GET", "/health/ready", context)).status == 200

    async def _server_live(self, request: Any, context: Context) -> Any:
        return message_class("ServerLiveResponse")(live=(await self._ask("GET", "/health/live", context)).status == 200)

    async def _server_ready(self, request: Any, context: Context) -> Any:
        return message_class("ServerReadyResponse")(ready=await self.is_ready(context))

    async def _model_ready(self, request: Any, context: Context) -> Any:
        answer = await self._ask("GET", await _model_path(request, context) + "/ready", context)
        return message_class("ModelReadyResponse")(ready=answer.status == 200)

    async def _server_metadata(self, request: Any, context: Context) -> Any:
        return _parsed(await self._asked("GET", "", context), "ServerMetadataResponse")

    async def _model_metadata(self, request: Any, context: Context) -> Any:
        return _parsed(await self._asked("GET", await _model_path(request, context), context), "ModelMetadataResponse")

    async def _model_config(self, request: Any, context: Context) -> Any:
        path = await _model_path(request, context) + "/config"
        config = (await self._asked("GET", path, context)).document
        for tensor in (*config["input"], *config["output"]):
            tensor["data_type"] = _TYPE_NUMBERS[tensor["data_type"]]
        config["input"][0]["format"] = _NHWC
        return ParseDict({"config": config}, message_class("ModelConfigResponse")(), ignore_unknown_fields=True)

    async def _model_statistics(self, request: Any, context: Context) -> Any:
        path = await _model_path(request, context) if request.name else "/models"
        return _parsed(await self._asked("GET", path + "/stats", context), "ModelStatisticsResponse")

    async def _repository_index(self, request: Any, context: Context) -> Any:
        body = orjson.dumps({"ready": request.ready})
        models = (await self._asked("POST", "/repository/index", context, body)).document
        return ParseDict({"models": models}, message_class("RepositoryIndexResponse")())

    async def _load(self, request: Any, context: Context) -> Any:
        await self._asked("POST", f"/repository/models/{request.model_name}/load", context)
        return message_class("RepositoryModelLoadResponse")()

    async def _unload(self, request: Any, context: Context) -> Any:
        await self._asked("POST", f"/repository/models/{request.model_name}/unload", context)
        return message_class("RepositoryModelUnloadResponse")()

    async def _model_infer(self, request: Any, context: Context) -> Any:
        try:
            header, tensors = _http_form(request, self._timeout_us(context))
        except ValueError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        path = await _path_of(request.model_name, request.model_version, context) + "/infer"
        body = b"".join((header, *tensors))
        response = _infer_response(await self._asked("POST", path, context, body, (_LENGTH, b"%d" % len(header))))
        if _ASKS_FOR_FINAL in request.parameters and request.parameters[_ASKS_FOR_FINAL].bool_param:
            response.parameters[_IS_FINAL].bool_param = True  # every request has one response
        return response

    def _timeout_us(self, context: Context) -> int | None:
        left_s = context.time_remaining()
        return None if left_s is None else max(1, int(min(left_s, self._max_deadline_s) * 1_000_000))

    async def _asked(
        self, method: str, path: str, context: Context, body: bytes = b"", *headers: tuple[bytes, bytes]
    ) -> _Answer:
        """The answer of a path below /v2; what is not 200 ends the call with its words."""
        answer = await self._ask(method, path, context, body, *headers)
        request_id = answer.headers.get(b"x-request-id")
        if request_id is not None:
            context.set_trailing_metadata((("x-request-id", request_id.decode("latin-1")),))
        if answer.status != 200:
            await _abort(context, answer)
        return answer

    async def _ask(
        self, method: str, path: str, context: Context, body: bytes = b"", *headers: tuple[bytes, bytes]
    ) -> _Answer:
        given = [
            (name.encode(), value if isinstance(value, bytes) else value.encode("latin-1", "replace"))
            for name, value in context.invocation_metadata() or ()
            if name in _PASSED_ON
        ]
        scope = {
            "type": "http",
            "http_version": "2",
            "scheme": "http",
            "method": method,
            "path": "/v2" + path,
            "raw_path": b"",
            "root_path": "",
            "query_string": b"",
            "headers": [*given, *headers, (b"content-length", b"%d" % len(body))],
        }
        sent: list[Message] = []
        has_body = True

        async def receive() -> Message:
            nonlocal has_body
            if has_body:
                has_body = False
                return {"type": "http.request", "body": body, "more_body": False}
            await asyncio.Event().wait()  # a client that leaves cancels the call
            raise AssertionError("nobody sets this event")

        async def send(message: Message) -> None:
            sent.append(message)

        await self._asgi(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in sent[1:])
        return _Answer(sent[0]["status"], {name.lower(): value for name, value in sent[0]["headers"]}, content)


async def _abort(context: Context, answer: _Answer) -> Never:
    code = _CODES.get(answer.status, grpc.StatusCode.INTERNAL)
    await context.abort(code, answer.document["error"])
    raise AssertionError("abort raises")


def _reading(
    name: str, handler: Callable[[Any, Context], Awaitable[Any]]
) -> Callable[[bytes, Context], Awaitable[Any]]:
    """The handler for a message's bytes. gRPC's own reading would log each damaged one with its trace."""
    message = message_class(name)

    async def handle(data: bytes, context: Context) -> Any:
        try:
            request = message.FromString(data)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the request is no {name} of {OIP_SERVICE}")
        return await handler(request, context)

    return handle


async def _model_path(request: Any, context: Context) -> str:
    return await _path_of(request.name, request.version, context)


async def _path_of(model: str, version: str, context: Context) -> str:
    """Below /v2."""
    if not model or "/" in model or "/" in version:  # would be another path
        await context.abort(grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {model!r}, version {version!r}")
    return f"/models/{model}" + (f"/versions/{version}" if version else "")


def _parsed(answer: _Answer, message: str) -> Any:
    return ParseDict(answer.document, message_class(message)(), ignore_unknown_fields=True)


def _http_form(request: Any, timeout_us: int | None) -> tuple[bytes, Sequence[bytes]]:
    """JSON header and binary tensors. Raises ValueError."""
    inputs, raw = list(request.inputs), list(request.raw_input_contents)
    if raw and len(raw) != len(inputs):
        raise ValueError(f"{len(raw)} raw_input_contents for {len(inputs)} inputs: give all of them, or none")
    if raw and any(given.HasField("contents") for given in inputs):
        raise ValueError("contents of an input must not be specified when using raw_input_contents")
    tensors = raw or [_contents(given) for given in inputs]
    parameters = {**_parameters(request.parameters), "binary_data_output": True}
    if not isinstance(parameters.pop(_ASKS_FOR_FINAL, False), bool):
        raise ValueError(f"parameter {_ASKS_FOR_FINAL!r} must be true or false")
    if timeout_us is not None and not parameters.get("timeout"):
        parameters["timeout"] = timeout_us
    document = {
        "id": request.id,
        "parameters": parameters,
        "inputs": [
            {
                "name": given.name,
                "datatype": given.datatype,
                "shape": list(given.shape),
                "parameters": {**_parameters(given.parameters), "binary_data_size": len(tensor)},
            }
            for given, tensor in zip(inputs, tensors, strict=True)
        ],
        "outputs": [
            {"name": item.name, "parameters": {**_parameters(item.parameters), "binary_data": True}}
            for item in request.outputs
        ],
    }
    return orjson.dumps(document), tensors


def _contents(given: Any) -> bytes:
    """Typed contents as raw ones. Raises ValueError."""
    if given.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(item)) + item for item in given.contents.bytes_contents)
    values = np.array(given.contents.uint_contents, np.uint32)
    if len(values) and values.max() > 255:
        raise ValueError(f"contents of input {given.name!r} must be whole numbers from 0 to 255")
    return values.astype(np.uint8).tobytes()


def _parameters(given: Any) -> dict[str, Any]:
    if not given:  # nearly always
        return {}
    return {name: getattr(value, value.WhichOneof("alternatives") or "bool_param") for name, value in given.items()}


def _infer_response(answer: _Answer) -> Any:
    size = int(answer.headers.get(_LENGTH, b"%d" % len(answer.body)))
    document = orjson.loads(answer.body[:size])
    outputs = document["outputs"]
    response: Any = message_class("ModelInferResponse")(
        model_name=document["model_name"],
        model_version=document["model_version"],
        id=document.get("id"),
        outputs=[{name: output[name] for name in ("name", "datatype", "shape")} for output in outputs],
        raw_output_contents=_slices(outputs, answer.body, size),
    )
    for name, text in document.get("parameters", {}).items():
        response.parameters[name].string_param = text
    return response


def _slices(outputs: list[dict[str, Any]], body: bytes, position: int) -> Iterator[bytes]:
    for output in outputs:
        end = position + output["parameters"]["binary_data_size"]
        yield body[position:end]
        position = end
