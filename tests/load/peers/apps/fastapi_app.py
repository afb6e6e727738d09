"""By hand: FastAPI in front of ONNX Runtime, one picture a run, in Starlette's thread pool."""

import argparse
import os

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from network import PROCESSES, Network, pixels_of

app = FastAPI()
network = Network()
most_in_flight = int(os.environ.get("PEER_MOST_IN_FLIGHT", "0"))  # tuned: beyond it, 503 at once
in_flight = 0


def classify(jpeg):
    return network.answers([pixels_of(jpeg)])[0]


@app.post("/classify")
async def classified(request: Request):
    global in_flight
    if most_in_flight and in_flight >= most_in_flight:
        return Response(status_code=503)
    in_flight += 1
    try:
        return await run_in_threadpool(classify, await request.body())
    finally:
        in_flight -= 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    given = parser.parse_args()
    uvicorn.run("fastapi_app:app", host="127.0.0.1", port=given.port, log_level="warning", workers=PROCESSES)
