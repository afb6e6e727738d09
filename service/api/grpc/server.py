"""The gRPC port of an API process. Promises: beside HTTP, shared among processes, drained like it."""

from __future__ import annotations

from typing import Any

import grpc
from grpc_reflection.v1alpha import reflection
from starlette.types import ASGIApp

from saccade.service.api.grpc.calls import OipCalls
from saccade.service.api.grpc.messages import HEALTH_SERVICE, OIP_SERVICE, POOL, message_class
from saccade.service.settings import Settings

_HEALTH_PACKAGE = "grpc.health.v1"
_SERVING, _NOT_SERVING = 1, 2
# A tensor arrives in a few large pieces instead of many of 16 KiB: 8 % less processor time for pixels of 224x224.
_PIECE_BYTES = 1024 * 1024
_FOR_TENSORS = (
    ("grpc.http2.max_frame_size", _PIECE_BYTES),
    ("grpc.http2.lookahead_bytes", _PIECE_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.experimental.tcp_min_read_chunk_size", _PIECE_BYTES // 4),
    ("grpc.experimental.tcp_read_chunk_size", _PIECE_BYTES // 4),
)
_MESSAGE_MARGIN_BYTES = 64 * 1024  # names, shapes and parameters beside the tensors


class GrpcServer:
    """Speaks the Open Inference Protocol, health and reflection."""

    def __init__(self, asgi: ASGIApp, settings: Settings) -> None:
        self._address = f"{_bracketed(settings.host)}:{settings.grpc_port}"
        limit = settings.max_body_bytes + _MESSAGE_MARGIN_BYTES
        self._server = grpc.aio.server(
            options=(
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                *_FOR_TENSORS,
            )
        )
        self._calls = calls = OipCalls(asgi, settings.max_deadline_ms / 1000)

        async def check(request: Any, context: Any) -> Any:
            if request.service not in ("", OIP_SERVICE, HEALTH_SERVICE):
                await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r} here")
            status = _SERVING if await calls.is_ready(context) else _NOT_SERVING
            return message_class("HealthCheckResponse", _HEALTH_PACKAGE)(status=status)

        health = grpc.unary_unary_rpc_method_handler(
            check,
            message_class("HealthCheckRequest", _HEALTH_PACKAGE).FromString,
            message_class("HealthCheckResponse", _HEALTH_PACKAGE).SerializeToString,
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(OIP_SERVICE, calls.handlers()),
                grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": health}),
            )
        )
        reflection.enable_server_reflection((OIP_SERVICE, HEALTH_SERVICE, reflection.SERVICE_NAME), self._server, POOL)

    async def start(self) -> None:
        """Raises RuntimeError when the port is taken."""
        self._server.add_insecure_port(self._address)
        await self._server.start()

    def end_streams(self) -> None:
        """Streams end after what they were asked so far; clients would keep them open."""
        self._calls.stopping.set()

    async def stop(self, within_s: float) -> None:
        """New calls are refused at once, those in flight get so long."""
        self.end_streams()
        await self._server.stop(within_s)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
