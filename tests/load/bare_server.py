"""`python -m tests.load.bare_server PORT < ANSWER`: uvicorn with an application that reads bodies and answers bytes."""

from __future__ import annotations

import sys
from typing import Any

import uvicorn


def main() -> None:
    """Serves until it is ended."""
    answer = sys.stdin.buffer.read()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
        (b"x-request-id", b"0123456789abcdef0123"),
        (b"server-timing", b"decode;dur=0.123, queue;dur=0.123, infer;dur=0.123, postprocess;dur=0.123, total;dur=1"),
    ]

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    uvicorn.run(
        app,
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
