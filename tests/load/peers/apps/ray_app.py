"""Ray Serve: one replica, `serve.batch` of up to 16, decoding inside the batch."""

import argparse
import asyncio
import os
import signal

import ray
from network import MAX_BATCH_SIZE, PROCESSES, Network, pixels_of
from ray import serve

_WAIT_S = 0.005
_ONGOING = 2 * MAX_BATCH_SIZE  # one batch runs, the next one gathers
_OBJECT_STORE_BYTES = 200 << 20


@serve.deployment(num_replicas=PROCESSES, max_ongoing_requests=_ONGOING, logging_config={"enable_access_log": False})
class Classifier:
    def __init__(self):
        self.network = Network()

    @serve.batch(max_batch_size=MAX_BATCH_SIZE, batch_wait_timeout_s=_WAIT_S)
    async def batched(self, jpegs):
        return await asyncio.to_thread(lambda: self.network.answers([pixels_of(jpeg) for jpeg in jpegs]))

    async def __call__(self, request):
        return await self.batched(await request.body())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--max-queued", type=int, default=-1)  # tuned: Serve answers 503 beyond it
    given = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    ray.init(num_cpus=cores, include_dashboard=False, object_store_memory=_OBJECT_STORE_BYTES, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": given.port}, logging_config={"enable_access_log": False})
    options = Classifier.options(max_queued_requests=given.max_queued)
    serve.run(options.bind(), route_prefix="/classify")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        serve.shutdown()
        ray.shutdown()
