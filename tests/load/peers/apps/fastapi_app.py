"""By hand: FastAPI in front of ONNX Runtime, one picture a run, in Starlette's thread pool."""

import argparse

import uvicorn
from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from network import Network, pixels_of

app = FastAPI()
network = Network()


def classify(jpeg):
    return network.answers([pixels_of(jpeg)])[0]


@app.post("/classify")
async def classified(request: Request):
    return await run_in_threadpool(classify, await request.body())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--limit-concurrency", type=int)  # tuned: uvicorn answers 503 beyond it
    given = parser.parse_args()
    uvicorn.run(app, host="127.0.0.1", port=given.port, log_level="warning", limit_concurrency=given.limit_concurrency)
