"""The calls of `kserve_clients.py`, in KServe's own environment: URL and gRPC address are its arguments."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferOutput, InferRequest
from kserve.inference_client import RESTConfig

MODEL, SIDE, RED = "classifier", 32, 77


def request_of(*, is_binary: bool, wants_binary: bool | None = None) -> InferRequest:
    """Two pictures; the fake backend answers the red value of the first pixel."""
    images = np.full((2, SIDE, SIDE, 3), RED, np.uint8)
    given = InferInput("images", list(images.shape), "UINT8")
    given.set_data_from_numpy(images, binary_data=is_binary)
    parameters = None if wants_binary is None else {"binary_data_output": wants_binary}
    return InferRequest(MODEL, [given], request_id="a request", parameters=parameters)


def ensure_right(response: Any) -> None:
    outputs: dict[str, InferOutput] = {output.name: output for output in response.outputs}
    reds = np.round(outputs["scores"].as_numpy()[:, 0] * 255)
    if response.id != "a request" or reds.tolist() != [RED, RED]:
        raise AssertionError(f"{response.id}: {reds}")


async def rest(url: str) -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        for name in ("is_server_live", "is_server_ready"):
            told(f"REST {name}", await getattr(client, name)(url) is True)
        told("REST is_model_ready", await client.is_model_ready(url, MODEL) is True)
        for is_binary in (True, False):
            for wants_binary in (None, True, False):
                request = request_of(is_binary=is_binary, wants_binary=wants_binary)
                ensure_right(await client.infer(url, request, model_name=MODEL))
                told(f"REST infer, binary {is_binary}, binary answer {wants_binary}", True)
        bytes_input = InferInput("images", [1], "BYTES", data=["no picture"])
        try:
            await client.infer(url, InferRequest(MODEL, [bytes_input]), model_name=MODEL)
        except Exception as error:  # httpx.HTTPStatusError, which it makes itself
            told("REST refusal", "400" in str(error))
        else:
            told("REST refusal", False)


async def grpc(address: str) -> None:
    async with InferenceGRPCClient(address) as client:
        for name in ("is_server_live", "is_server_ready"):
            told(f"gRPC {name}", await getattr(client, name)() is True)
        told("gRPC is_model_ready", await client.is_model_ready(MODEL) is True)
        for is_binary in (True, False):
            ensure_right(await client.infer(request_of(is_binary=is_binary)))
            told(f"gRPC infer, binary {is_binary}", True)
        try:
            await client.infer(InferRequest("nobody", request_of(is_binary=True).inputs))
        except Exception as error:  # grpc.RpcError
            told("gRPC refusal", "NOT_FOUND" in str(error))
        else:
            told("gRPC refusal", False)


def told(what: str, is_right: bool) -> None:
    print(f"{what}: {'right' if is_right else 'WRONG'}", flush=True)
    if not is_right:
        raise SystemExit(1)


async def main(url: str, address: str) -> None:
    await rest(url)
    await grpc(address)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
