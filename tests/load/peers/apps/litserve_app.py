"""LitServe: batches of up to 16, its fast queue, raw bytes as the request."""

import argparse
from typing import Annotated

import litserve
from fastapi import Body
from network import MAX_BATCH_SIZE, PROCESSES, Network, pixels_of

_BATCH_TIMEOUT_S = 0.005


class Classifier(litserve.LitAPI):
    def setup(self, device):
        self.network = Network()

    def decode_request(self, request: Annotated[bytes, Body()]):
        return pixels_of(request)

    def batch(self, inputs):
        return list(inputs)

    def predict(self, batch):
        return self.network.answers(batch)

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--timeout-s", type=float, default=30.0)  # tuned: answers 504 to what waited so long
    given = parser.parse_args()
    api = Classifier(max_batch_size=MAX_BATCH_SIZE, batch_timeout=_BATCH_TIMEOUT_S, api_path="/classify")
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=PROCESSES, timeout=given.timeout_s, fast_queue=True
    )
    server.run(host="127.0.0.1", port=given.port, generate_client_file=False, log_level="warning")
