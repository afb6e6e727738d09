"""saccade under Locust, for teams that run it already. Locust is not a dependency: `pip install locust`.

    MODEL=digits-classifier IMAGES=repository/.samples/classify \
      locust -f tests/load/locustfile.py --host http://127.0.0.1:8000 --headless -u 200 -r 20 -t 60s --html locust.html

Each user asks once a second, so `-u` is the rate; but a user waits for its answer before it asks again, so a server
that stalls is asked less, and its stall is seen by few. `saccade bench` keeps asking and counts the wait.
"""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

from locust import FastHttpUser, constant_throughput, events, task

MODEL = os.environ.get("MODEL", "digits-classifier")
IMAGES = Path(os.environ.get("IMAGES", "repository/.samples/classify"))
OBJECTIVE_MS = float(os.environ.get("OBJECTIVE_MS", "200"))
MAX_LATE_RATIO = 0.01
TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".bmp": "image/bmp"}

BODIES = [
    (path.read_bytes(), TYPES[path.suffix.lower()])
    for path in sorted(IMAGES.rglob("*"))
    if path.suffix.lower() in TYPES
]
random.Random(0).shuffle(BODIES)
NEXT_BODY = itertools.cycle(BODIES)


class VisionUser(FastHttpUser):
    """One request per second, as long as answers come in time."""

    wait_time = constant_throughput(1)

    @task
    def predict(self) -> None:
        body, media_type = next(NEXT_BODY)
        with self.client.post(
            f"/v1/models/{MODEL}/predict",
            data=body,
            headers={"Content-Type": media_type},
            name=f"predict {MODEL}",
            catch_response=True,
        ) as response:
            if response.status_code != 200:
                problem = response.json() if response.text else {}
                response.failure(f"{response.status_code} {problem.get('title', '')}")
            elif response.request_meta["response_time"] > OBJECTIVE_MS:
                response.failure(f"later than {OBJECTIVE_MS:g} ms")


@events.quitting.add_listener
def exit_code(environment: Any, **_: Any) -> None:
    """1 when too many requests failed or were late, for CI."""
    environment.process_exit_code = int(environment.stats.total.fail_ratio > MAX_LATE_RATIO)
