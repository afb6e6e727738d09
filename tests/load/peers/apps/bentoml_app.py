"""BentoML: one service with adaptive batching; a client sends a list of one picture."""

import os
from pathlib import Path

import bentoml
from network import MAX_BATCH_SIZE, PROCESSES, Network, pixels_of

_MAX_LATENCY_MS = int(os.environ.get("PEER_MAX_LATENCY_MS", "60000"))  # BentoML's own default; tuned: the objective


@bentoml.service(workers=PROCESSES, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Classifier:
    def __init__(self):
        self.network = Network()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_SIZE, max_latency_ms=_MAX_LATENCY_MS)
    def classify(self, images: list[Path]) -> list[dict]:
        return self.network.answers([pixels_of(image.read_bytes()) for image in images])
